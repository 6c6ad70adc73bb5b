package gitremote

import (
	"bytes"
	"compress/zlib"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	githash "github.com/go-git/go-git/v5/plumbing/hash"
)

// packReader takes a pack apart in one pass. Every size is known from a header and checked against the
// limits before a byte of it is inflated, results of deltas included.
// Source: gitformat-pack(5).
type packReader struct {
	raw    *bytes.Reader
	size   int64
	limits Limits
	out    *Objects
	zr     io.ReadCloser

	byOffset map[int64]packEntry
	byHash   map[plumbing.Hash]packEntry
	waiting  map[plumbing.Hash][]pendingDelta // deltas whose base was not yet seen
	pending  int
	inflated int64
}

type packEntry struct {
	kind    plumbing.ObjectType
	content []byte
}

type pendingDelta struct {
	offset int64
	delta  []byte
}

// readPack reads a whole pack: structure, sizes, checksum. Objects outside of it cannot be referred to.
func readPack(pack []byte, limits Limits) (*Objects, error) {
	const headLen, sumLen = 12, 20
	if len(pack) < headLen+sumLen || string(pack[:4]) != "PACK" {
		return nil, protocolError("a pack of %d bytes without a pack's header", len(pack))
	}
	if v := binary.BigEndian.Uint32(pack[4:]); v != 2 && v != 3 {
		return nil, protocolError("a pack of version %d", v)
	}
	count := int64(binary.BigEndian.Uint32(pack[8:]))
	if count > limits.Objects {
		return nil, &LimitError{What: "objects in a pack", Limit: limits.Objects}
	}
	body := pack[:len(pack)-sumLen]
	sum := githash.New(crypto.SHA1)
	sum.Write(body)
	if !bytes.Equal(sum.Sum(nil), pack[len(body):]) {
		return nil, protocolError("the pack's checksum is wrong")
	}
	p := &packReader{
		raw: bytes.NewReader(body), size: int64(len(body)), limits: limits, out: NewObjects(),
		byOffset: map[int64]packEntry{}, byHash: map[plumbing.Hash]packEntry{}, waiting: map[plumbing.Hash][]pendingDelta{},
	}
	_, _ = p.raw.Seek(headLen, io.SeekStart)
	for range count {
		if err := p.entry(); err != nil {
			return nil, packError(err)
		}
	}
	if p.raw.Len() != 0 {
		return nil, protocolError("%d bytes too many in the pack", p.raw.Len())
	}
	if p.pending > 0 {
		return nil, protocolError("%d objects of the pack need others that it does not contain", p.pending)
	}
	p.out.Wire = int64(len(pack))
	return p.out, nil
}

func packError(err error) error {
	var le *LimitError
	if errors.As(err, &le) || errors.Is(err, errProtocol) {
		return err
	}
	return fmt.Errorf("%w: in the pack: %w", errProtocol, cutShort(err))
}

// entry reads one object: its header, its base if it is a delta, its content.
func (p *packReader) entry() error {
	offset := p.size - int64(p.raw.Len())
	kind, size, err := p.header()
	if err != nil {
		return err
	}
	switch kind {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		if err := p.count(size); err != nil {
			return err
		}
		content, err := p.inflate(size)
		if err != nil {
			return err
		}
		return p.add(offset, packEntry{kind, content})
	case plumbing.OFSDeltaObject:
		back, err := p.backOffset()
		if err != nil {
			return err
		}
		base, ok := p.byOffset[offset-back]
		if !ok {
			return protocolError("a delta without its base")
		}
		delta, err := p.inflateDelta(size)
		if err != nil {
			return err
		}
		e, err := p.patched(base, delta)
		if err != nil {
			return err
		}
		return p.add(offset, e)
	case plumbing.REFDeltaObject:
		var h plumbing.Hash
		if _, err := io.ReadFull(p.raw, h[:]); err != nil {
			return err
		}
		delta, err := p.inflateDelta(size)
		if err != nil {
			return err
		}
		if base, ok := p.byHash[h]; ok {
			e, err := p.patched(base, delta)
			if err != nil {
				return err
			}
			return p.add(offset, e)
		}
		p.waiting[h] = append(p.waiting[h], pendingDelta{offset, delta})
		p.pending++
		return nil
	}
	return protocolError("an object of type %d", kind)
}

// header reads type and size: 3 bits of type, then 4 and 7 bits of size at a time, lowest first.
func (p *packReader) header() (plumbing.ObjectType, int64, error) {
	c, err := p.raw.ReadByte()
	if err != nil {
		return 0, 0, err
	}
	kind, size := plumbing.ObjectType(c>>4&7), int64(c&15)
	for shift := 4; c&0x80 != 0; shift += 7 {
		if shift > 53 {
			return 0, 0, protocolError("an object's size does not fit")
		}
		if c, err = p.raw.ReadByte(); err != nil {
			return 0, 0, err
		}
		size |= int64(c&0x7f) << shift
	}
	return kind, size, nil
}

// backOffset reads how far before this object the base of a delta starts.
func (p *packReader) backOffset() (int64, error) {
	c, err := p.raw.ReadByte()
	if err != nil {
		return 0, err
	}
	n := int64(c & 0x7f)
	for c&0x80 != 0 {
		if n > 1<<40 {
			return 0, protocolError("a delta's base does not fit")
		}
		if c, err = p.raw.ReadByte(); err != nil {
			return 0, err
		}
		n = (n+1)<<7 | int64(c&0x7f)
	}
	return n, nil
}

// count takes the size of one object from the allowance, before the object is made.
func (p *packReader) count(size int64) error {
	if size > p.limits.Object {
		return &LimitError{What: "bytes in one object", Limit: p.limits.Object}
	}
	p.inflated += size
	if p.inflated > p.limits.Inflated {
		return &LimitError{What: "bytes of objects", Limit: p.limits.Inflated}
	}
	return nil
}

// inflateDelta inflates the instructions of a delta; they count like an object of their size.
func (p *packReader) inflateDelta(size int64) ([]byte, error) {
	if err := p.count(size); err != nil {
		return nil, err
	}
	return p.inflate(size)
}

// inflate reads exactly size bytes; a stream that holds less or more is an error.
func (p *packReader) inflate(size int64) ([]byte, error) {
	var err error
	if p.zr == nil {
		p.zr, err = zlib.NewReader(p.raw)
	} else {
		err = p.zr.(zlib.Resetter).Reset(p.raw, nil)
	}
	if err != nil {
		return nil, err
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(p.zr, content); err != nil {
		return nil, err
	}
	var more [1]byte
	if n, err := p.zr.Read(more[:]); n != 0 || !errors.Is(err, io.EOF) {
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, protocolError("an object is larger than its header says")
	}
	return content, nil
}

// patched applies a delta to its base.
func (p *packReader) patched(base packEntry, delta []byte) (packEntry, error) {
	from, rest, ok1 := deltaSize(delta)
	to, _, ok2 := deltaSize(rest)
	if !ok1 || !ok2 || from != int64(len(base.content)) {
		return packEntry{}, protocolError("a delta that does not fit its base")
	}
	if err := p.count(to); err != nil {
		return packEntry{}, err
	}
	if to == 0 {
		return packEntry{kind: base.kind}, nil
	}
	content, err := packfile.PatchDelta(base.content, delta)
	if err != nil {
		return packEntry{}, err
	}
	if int64(len(content)) != to {
		return packEntry{}, protocolError("a delta that does not make what it says")
	}
	return packEntry{base.kind, content}, nil
}

// deltaSize reads one of the two sizes at the start of a delta.
func deltaSize(b []byte) (int64, []byte, bool) {
	var n int64
	for i := 0; i < len(b) && i < 8; i++ {
		n |= int64(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			return n, b[i+1:], true
		}
	}
	return 0, nil, false
}

// add stores an object and then every delta that waited for it, without recursion.
func (p *packReader) add(offset int64, e packEntry) error {
	type found struct {
		offset int64
		packEntry
	}
	for queue := []found{{offset, e}}; len(queue) > 0; {
		f := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		h := p.out.Put(f.kind, f.content)
		p.byOffset[f.offset], p.byHash[h] = f.packEntry, f.packEntry
		for _, d := range p.waiting[h] {
			p.pending--
			next, err := p.patched(f.packEntry, d.delta)
			if err != nil {
				return err
			}
			queue = append(queue, found{d.offset, next})
		}
		delete(p.waiting, h)
	}
	return nil
}
