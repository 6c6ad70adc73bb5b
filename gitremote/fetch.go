package gitremote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

type fetchRequest struct {
	want  plumbing.Hash
	haves []plumbing.Hash
	depth int
	// commitsOnly leaves out all trees and files: the filter "tree:0", which a server may not allow.
	commitsOnly bool
}

// maxHaves bounds the haves of one request: more would not make the pack smaller for us.
const maxHaves = 64

// Fetch brings the commit want and what it needs into memory. With haves the remote leaves out
// everything that they reach (their trees and files included), so the pack holds what lies between;
// a have that the remote does not know is ignored by it. With depth > 0 the history is cut after so many commits.
//
// The objects are whole when Fetch returns: checksum and limits checked, and want is among them. When want is reachable
// from a have, there is nothing to send: ErrLeftOut.
func (r *Remote) Fetch(ctx context.Context, want plumbing.Hash, haves []plumbing.Hash, depth int) (*Objects, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	o, err := r.fetch(ctx, fetchRequest{want: want, haves: haves, depth: depth})
	if err != nil {
		return nil, r.fail(ctx, "fetch", want.String(), err)
	}
	return o, nil
}

// FetchHistory is Fetch for the commits alone, without their trees and files: what a proof of descent needs when all that lies
// between is too much. It fails when the remote does not allow filters.
func (r *Remote) FetchHistory(ctx context.Context, want plumbing.Hash, haves []plumbing.Hash) (*Objects, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	o, err := r.fetch(ctx, fetchRequest{want: want, haves: haves, commitsOnly: true})
	if err != nil {
		return nil, r.fail(ctx, "fetch the history of", want.String(), err)
	}
	return o, nil
}

func (r *Remote) fetch(ctx context.Context, req fetchRequest) (*Objects, error) {
	if req.want.IsZero() {
		return nil, ofKind(Misconfigured, "there is no commit to fetch")
	}
	if len(req.haves) > maxHaves {
		req.haves = req.haves[:maxHaves]
	}
	answer, err := r.wire.fetch(ctx, req)
	if err != nil {
		return nil, err
	}
	o, err := readPack(answer.pack.Bytes(), r.cfg.Limits)
	if err != nil {
		return nil, err
	}
	o.Shallow = answer.shallow
	if !o.Has(req.want) {
		return nil, ErrLeftOut
	}
	return o, nil
}

// encode writes the request: gitprotocol-v2(5) "fetch", or gitprotocol-pack(5) "Packfile Negotiation".
func (f fetchRequest) encode(v2 bool, agent string) []byte {
	w := &pktWriter{}
	if v2 {
		w.linef("command=fetch")
		w.linef("agent=%s", agent)
		w.linef("object-format=sha1")
		w.delim()
		w.linef("ofs-delta\n")
		w.linef("no-progress\n")
		w.linef("want %s\n", f.want)
	} else {
		filter := ""
		if f.commitsOnly {
			filter = " filter"
		}
		w.linef("want %s ofs-delta side-band-64k no-progress%s agent=%s\n", f.want, filter, agent)
	}
	if f.depth > 0 {
		w.linef("deepen %d\n", f.depth)
	}
	if f.commitsOnly {
		w.linef("filter tree:0\n")
	}
	if !v2 {
		w.flush()
	}
	for _, h := range f.haves {
		w.linef("have %s\n", h)
	}
	w.linef("done\n")
	if v2 {
		w.flush()
	}
	return w.Bytes()
}

// packAnswer is a pack as it came, not yet looked into.
type packAnswer struct {
	pack    bytes.Buffer
	shallow []plumbing.Hash
}

// readPackAnswer reads what precedes the pack and the pack itself out of its side band. The reader bounds the bytes.
func readPackAnswer(p *pktReader, v2, deepened bool) (*packAnswer, error) {
	a := &packAnswer{}
	var err error
	if v2 {
		err = a.readSections(p)
	} else {
		err = a.readNegotiation(p, deepened)
	}
	return a, err
}

// readSections reads version 2: sections with a name each, the last is "packfile".
func (a *packAnswer) readSections(p *pktReader) error {
	for {
		kind, line, err := p.line()
		if err != nil {
			return err
		}
		if kind != pktData {
			return protocolError("no pack in the answer")
		}
		if string(line) == "packfile" {
			return a.readBand(p, nil)
		}
		for kind == pktData { // the lines of another section
			if kind, line, err = p.line(); err != nil {
				return cutShort(err)
			}
			if kind == pktData {
				if err := a.shallowLine(line); err != nil {
					return err
				}
			}
		}
		if kind != pktDelim {
			return protocolError("no pack in the answer")
		}
	}
}

func (a *packAnswer) shallowLine(line []byte) error {
	rest, ok := bytes.CutPrefix(line, []byte("shallow "))
	if !ok {
		return nil
	}
	h, err := parseHash(rest)
	a.shallow = append(a.shallow, h)
	return err
}

// readNegotiation reads version 0: shallow lines until a flush when the history was cut, then ACK or NAK lines.
func (a *packAnswer) readNegotiation(p *pktReader, deepened bool) error {
	for deepened {
		kind, line, err := p.line()
		if err != nil {
			return err
		}
		if kind != pktData {
			break
		}
		if err := a.shallowLine(line); err != nil {
			return err
		}
	}
	seen := false
	for {
		kind, line, err := p.next()
		if err != nil {
			return err
		}
		switch {
		case kind != pktData:
			return protocolError("no pack in the answer")
		case bytes.HasPrefix(line, []byte("ACK ")), bytes.HasPrefix(line, []byte("NAK")):
			seen = true
		case bytes.HasPrefix(line, []byte("ERR ")):
			return serverSaid(strings.TrimSpace(string(line[4:])))
		case !seen:
			return protocolError("%q where ACK or NAK should be", clip(line))
		default:
			return a.readBand(p, line)
		}
	}
}

// readBand collects band 1 until the flush. first is a packet that was already read.
func (a *packAnswer) readBand(p *pktReader, first []byte) error {
	said := ""
	line := first
	for {
		if line == nil {
			kind, next, err := p.next()
			if err != nil {
				return cutShort(err)
			}
			if kind != pktData {
				break
			}
			line = next
		}
		if len(line) == 0 {
			return protocolError("an empty packet in the pack")
		}
		switch band, data := line[0], line[1:]; band {
		case 1:
			a.pack.Write(data)
		case 2:
			said = string(data)
		case 3:
			return serverSaid(strings.TrimSpace(string(data)))
		default:
			return protocolError("band %d in the pack", band)
		}
		line = nil
	}
	if a.pack.Len() == 0 {
		if said != "" {
			return fmt.Errorf("%w: %w", ErrEmptyAnswer, errors.New(said))
		}
		return ErrEmptyAnswer
	}
	return nil
}
