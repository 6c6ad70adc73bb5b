package gitremote

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	githash "github.com/go-git/go-git/v5/plumbing/hash"
)

type pushRequest struct {
	ref      plumbing.ReferenceName
	old, new plumbing.Hash
	pack     []byte
}

// Push moves ref from old to new and sends the objects that the remote does not have. Old is a true lease: the
// server compares it with where the ref is and refuses when it differs; the zero hash means "must not
// exist yet". New = zero deletes the ref. The move need not be a fast-forward, unless the server demands it.
//
// A nil error means that the ref points to new: the server reported it, or the ref was read afterwards and
// is there (so an answer that was lost is no failure, and a push may be repeated). An answer with nothing in
// it is not a success. A refused push gives a [*RejectedError] that says where the ref is now; the decision
// comes from reading the ref, never from the server's words.
func (r *Remote) Push(ctx context.Context, ref plumbing.ReferenceName, old, new plumbing.Hash, objects *Objects) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	return r.fail(ctx, "push", ref.String(), r.push(ctx, ref, old, new, objects))
}

// push reads the ref again when the answer was lost or a refusal: a push that did happen is a success, whatever was
// heard of it, and a refusal tells whether somebody else was faster.
func (r *Remote) push(ctx context.Context, ref plumbing.ReferenceName, old, new plumbing.Hash, objects *Objects) error {
	if err := checkRef(ref); err != nil {
		return err
	}
	if old == new {
		return ofKind(Misconfigured, "the old and the new commit are the same")
	}
	req := pushRequest{ref: ref, old: old, new: new}
	if !new.IsZero() {
		var err error
		if req.pack, err = encodePack(objects); err != nil {
			return err
		}
	}
	report, err := r.wire.push(ctx, req)
	if err == nil && report.accepted(ref) {
		return nil
	}
	if err != nil && !uncertain(err) {
		return err
	}
	now, readErr := r.ref(ctx, ref)
	if errors.Is(readErr, ErrRefNotFound) {
		now, readErr = plumbing.ZeroHash, nil
	}
	switch {
	case readErr == nil && now == new:
		return nil
	case err != nil:
		return err
	case readErr != nil:
		return fmt.Errorf("the remote refused (%s), and reading the ref failed: %w", report.reason(ref), readErr)
	}
	return &RejectedError{Ref: ref, Reason: report.reason(ref), Current: now, LeaseLost: now != old}
}

// uncertain says whether a push may have happened although its answer did not come.
func uncertain(err error) bool {
	var ke *kindError
	if errors.As(err, &ke) {
		return ke.kind == ServerError || ke.kind == BadAnswer
	}
	return !untrusted(err)
}

// pushCapabilities are asked for in a push. Every server that can be written to has them (side-band-64k and
// report-status are older than smart HTTP).
const pushCapabilities = "report-status side-band-64k"

// encode writes the request of gitprotocol-pack(5), "Reference Update Request and Packfile Transfer".
func (p pushRequest) encode(agent string) []byte {
	w := &pktWriter{}
	w.linef("%s %s %s\x00%s agent=%s", p.old, p.new, p.ref, pushCapabilities, agent)
	w.flush()
	w.Write(p.pack)
	return w.Bytes()
}

// encodePack writes a pack of whole objects, gitformat-pack(5). A status is three small objects: what counts is not to
// make a compressor for each.
func encodePack(o *Objects) ([]byte, error) {
	if o == nil {
		o = NewObjects()
	}
	var buf bytes.Buffer
	buf.WriteString("PACK")
	buf.Write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 2), uint32(len(o.order))))
	zw := compressors.Get().(*zlib.Writer)
	defer compressors.Put(zw)
	for _, h := range o.order {
		e, err := o.store.EncodedObject(plumbing.AnyObject, h)
		if err != nil {
			return nil, fmt.Errorf("encoding the pack: %w", err)
		}
		object := e.(*encoded)
		head, size := byte(object.kind)<<4|byte(len(object.content)&15), len(object.content)>>4
		for ; size > 0; size >>= 7 {
			buf.WriteByte(head | 0x80)
			head = byte(size & 0x7f)
		}
		buf.WriteByte(head)
		zw.Reset(&buf)
		if _, err := zw.Write(object.content); err != nil {
			return nil, fmt.Errorf("encoding the pack: %w", err)
		}
		if err := zw.Close(); err != nil {
			return nil, fmt.Errorf("encoding the pack: %w", err)
		}
	}
	sum := githash.New(crypto.SHA1)
	sum.Write(buf.Bytes())
	return sum.Sum(buf.Bytes()), nil
}

var compressors = sync.Pool{New: func() any {
	zw, _ := zlib.NewWriterLevel(nil, zlib.BestSpeed) // fails for unknown levels only
	return zw
}}

// pushReport is the server's answer to a push.
type pushReport struct {
	unpack string
	refs   map[string]string // "ok", or the reason
	said   string            // what hooks wrote, bounded
}

func (p *pushReport) accepted(ref plumbing.ReferenceName) bool {
	return p != nil && p.unpack == "ok" && p.refs[ref.String()] == "ok"
}

func (p *pushReport) reason(ref plumbing.ReferenceName) string {
	var parts []string
	if p.unpack != "ok" {
		parts = append(parts, "unpack: "+p.unpack)
	}
	if why := p.refs[ref.String()]; why != "" && why != "ok" {
		parts = append(parts, why)
	}
	if p.said != "" {
		parts = append(parts, strings.TrimSpace(p.said))
	}
	return strings.Join(parts, "; ")
}

// maxSaid bounds how much of a hook's output is kept, in bytes.
const maxSaid = 1 << 10

// readPushReport reads a report-status inside a side band, or bare when the server has no side band.
func readPushReport(p *pktReader) (*pushReport, error) {
	kind, first, err := p.next()
	if err != nil {
		return nil, err
	}
	if kind != pktData {
		return nil, ErrEmptyAnswer
	}
	if bytes.HasPrefix(first, []byte("unpack ")) {
		report := &pushReport{refs: map[string]string{}}
		if err := report.line(first); err != nil {
			return nil, err
		}
		return report, report.readFrom(p)
	}
	var inner bytes.Buffer
	said := ""
	for ; kind == pktData; kind, first, err = p.next() {
		if len(first) == 0 {
			return nil, protocolError("an empty packet in the report")
		}
		switch data := first[1:]; first[0] {
		case 1:
			inner.Write(data)
		case 2:
			said = (said + string(data))[:min(maxSaid, len(said)+len(data))]
		case 3:
			return nil, serverSaid(strings.TrimSpace(string(data)))
		default:
			if rest, ok := bytes.CutPrefix(first, []byte("ERR ")); ok {
				return nil, serverSaid(strings.TrimSpace(string(rest)))
			}
			return nil, protocolError("band %d in the report", first[0])
		}
	}
	if err != nil {
		return nil, cutShort(err)
	}
	if inner.Len() == 0 {
		return nil, ErrEmptyAnswer
	}
	report := &pushReport{refs: map[string]string{}, said: said}
	return report, report.readFrom(newPktReader(&inner))
}

func (p *pushReport) readFrom(r *pktReader) error {
	for {
		kind, line, err := r.line()
		switch {
		case errors.Is(err, io.EOF):
			return protocolError("a report without its end")
		case err != nil:
			return err
		case kind != pktData:
			if p.unpack == "" {
				return ErrEmptyAnswer
			}
			return nil
		}
		if err := p.line(line); err != nil {
			return err
		}
	}
}

func (p *pushReport) line(b []byte) error {
	line := strings.TrimSuffix(string(b), "\n")
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "unpack":
		p.unpack = rest
	case "ok":
		p.refs[rest] = "ok"
	case "ng":
		ref, why, _ := strings.Cut(rest, " ")
		if why == "" || why == "ok" {
			why = "refused"
		}
		p.refs[ref] = why
	default:
		return protocolError("%q in the report", clip(b))
	}
	return nil
}
