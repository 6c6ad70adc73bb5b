package gitremote

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// advertisement is what a server tells about its refs: a whole advertisement of version 0, or the answer
// to ls-refs of version 2, or (v2 true and refs nil) the capabilities of version 2.
type advertisement struct {
	refs map[string]refValue
	caps capabilities
	v2   bool
}

type refValue struct {
	hash   plumbing.Hash
	peeled plumbing.Hash // of an annotated tag; else zero
}

func (v refValue) commit() plumbing.Hash {
	if !v.peeled.IsZero() {
		return v.peeled
	}
	return v.hash
}

// capabilities maps a capability to its value, "" when it has none.
type capabilities map[string]string

// usable refuses a repository whose objects this program cannot read, before it is asked for any.
func (c capabilities) usable() error {
	if f, ok := c["object-format"]; ok && f != "sha1" {
		return ofKind(BadAnswer, "the repository uses %s objects: only SHA-1 repositories are supported", clip([]byte(f)))
	}
	return nil
}

// Ref reads where one ref points: the commit behind it, an annotated tag peeled. The name is a full one
// ("refs/heads/main"). A ref that does not exist, also in an empty repository, gives ErrRefNotFound
// in an *Error of kind NotFound.
func (r *Remote) Ref(ctx context.Context, name plumbing.ReferenceName) (plumbing.Hash, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	h, err := r.ref(ctx, name)
	if err != nil {
		return plumbing.ZeroHash, r.fail(ctx, "read ref", name.String(), err)
	}
	return h, nil
}

func (r *Remote) ref(ctx context.Context, name plumbing.ReferenceName) (plumbing.Hash, error) {
	if err := checkRef(name); err != nil {
		return plumbing.ZeroHash, err
	}
	if l, ok := r.wire.(localRefs); ok {
		if h, ok := l.localRef(name.String()); ok {
			return parseHash([]byte(h))
		}
	}
	refs, err := r.list(ctx, name.String())
	if err != nil {
		return plumbing.ZeroHash, err
	}
	v, ok := refs[name.String()]
	if !ok {
		return plumbing.ZeroHash, ErrRefNotFound
	}
	return v.commit(), nil
}

// Refs lists the refs whose names start with one of the prefixes, each with the commit behind it. No such ref is
// no error: the map is empty.
func (r *Remote) Refs(ctx context.Context, prefixes ...string) (map[plumbing.ReferenceName]plumbing.Hash, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	for _, p := range prefixes {
		if strings.ContainsAny(p, "\n\x00 ") {
			return nil, r.fail(ctx, "list refs", "", ofKind(Misconfigured, "the prefix %q is not possible in a ref name", p))
		}
	}
	refs, err := r.list(ctx, prefixes...)
	if err != nil {
		return nil, r.fail(ctx, "list refs", strings.Join(prefixes, " "), err)
	}
	out := map[plumbing.ReferenceName]plumbing.Hash{}
	for name, v := range refs {
		for _, p := range prefixes {
			if strings.HasPrefix(name, p) {
				out[plumbing.ReferenceName(name)] = v.commit()
			}
		}
	}
	return out, nil
}

func (r *Remote) list(ctx context.Context, prefixes ...string) (map[string]refValue, error) {
	adv, err := r.wire.list(ctx, r.lsRefsRequest(prefixes), prefixes)
	if err != nil {
		return nil, err
	}
	return adv.refs, nil
}

func checkRef(name plumbing.ReferenceName) error {
	if err := name.Validate(); err != nil || !strings.HasPrefix(name.String(), "refs/") {
		return ofKind(Misconfigured, "%q is not the full name of a ref", name.String())
	}
	return nil
}

// lsRefsRequest is the request of gitprotocol-v2(5), "ls-refs".
func (r *Remote) lsRefsRequest(prefixes []string) []byte {
	w := &pktWriter{}
	w.linef("command=ls-refs\n")
	w.linef("agent=%s", r.cfg.UserAgent)
	w.linef("object-format=sha1")
	w.delim()
	w.linef("peel\n")
	for _, p := range prefixes {
		w.linef("ref-prefix %s\n", p)
	}
	w.flush()
	return w.Bytes()
}

// readLsRefs reads the answer to ls-refs: "<hash> <name>[ <attribute>...]" until a flush.
func readLsRefs(p *pktReader) (map[string]refValue, error) {
	refs := map[string]refValue{}
	for {
		kind, line, err := p.line()
		if err != nil {
			return nil, err
		}
		switch kind {
		case pktFlush:
			return refs, nil
		case pktData:
		default:
			return nil, protocolError("a packet that does not belong into a list of refs")
		}
		hash, rest, ok := bytes.Cut(line, []byte(" "))
		if !ok {
			return nil, protocolError("a ref without a name")
		}
		name, attrs, _ := bytes.Cut(rest, []byte(" "))
		if bytes.Equal(hash, []byte("unborn")) {
			continue
		}
		var v refValue
		if v.hash, err = parseHash(hash); err != nil {
			return nil, err
		}
		for a := range bytes.FieldsSeq(attrs) {
			if peeled, ok := bytes.CutPrefix(a, []byte("peeled:")); ok {
				if v.peeled, err = parseHash(peeled); err != nil {
					return nil, err
				}
			}
		}
		refs[string(name)] = v
	}
}

// readAdvertisement reads what a server says first, of version 0, 1 or 2. From HTTP it starts with the name of
// the service and a flush. Source: gitprotocol-pack(5), "Reference Discovery"; gitprotocol-http(5).
func readAdvertisement(p *pktReader) (*advertisement, error) {
	adv := &advertisement{refs: map[string]refValue{}, caps: capabilities{}}
	first := true
	for {
		kind, line, err := p.line()
		if err != nil {
			return nil, err
		}
		switch {
		case kind == pktFlush:
			return adv, adv.caps.usable()
		case kind != pktData:
			return nil, protocolError("a packet that does not belong into an advertisement")
		case first && bytes.HasPrefix(line, []byte("# service=")):
			if kind, _, err = p.line(); err != nil {
				return nil, err
			}
			if kind != pktFlush {
				return nil, protocolError("no flush after the name of the service")
			}
			continue
		case first && bytes.Equal(line, []byte("version 2")):
			adv.v2 = true
			if err := readCapabilities(p, adv.caps); err != nil {
				return nil, err
			}
			return adv, adv.caps.usable()
		case first && bytes.Equal(line, []byte("version 1")):
			continue
		}
		if err := adv.addLine(line, first); err != nil {
			return nil, err
		}
		first = false
	}
}

// addLine reads a line of version 0; the first one has the capabilities behind a zero byte (gitprotocol-pack(5)).
func (adv *advertisement) addLine(line []byte, first bool) error {
	if first {
		ref, caps, _ := bytes.Cut(line, []byte{0})
		line = ref
		for c := range bytes.FieldsSeq(caps) {
			k, v, _ := bytes.Cut(c, []byte("="))
			adv.caps[string(k)] = string(v)
		}
	}
	hash, name, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return protocolError("a ref without a name")
	}
	if bytes.Equal(hash, []byte("shallow")) {
		return nil
	}
	h, err := parseHash(hash)
	if err != nil {
		return err
	}
	if string(name) == "capabilities^{}" { // an empty repository
		return nil
	}
	if tag, ok := bytes.CutSuffix(name, []byte("^{}")); ok {
		v := adv.refs[string(tag)]
		v.peeled = h
		adv.refs[string(tag)] = v
		return nil
	}
	adv.refs[string(name)] = refValue{hash: h}
	return nil
}

func readCapabilities(p *pktReader, caps capabilities) error {
	for {
		kind, line, err := p.line()
		if err != nil {
			return err
		}
		if kind != pktData {
			return nil
		}
		k, v, _ := bytes.Cut(line, []byte("="))
		caps[string(k)] = string(v)
	}
}

func parseHash(b []byte) (plumbing.Hash, error) {
	if len(b) == 64 {
		return plumbing.ZeroHash, ofKind(BadAnswer, "the repository uses SHA-256 objects: only SHA-1 repositories are supported")
	}
	if len(b) != 40 || !plumbing.IsHash(string(b)) {
		return plumbing.ZeroHash, protocolError("%q where an object id should be", clip(b))
	}
	return plumbing.NewHash(string(b)), nil
}

func clip(b []byte) []byte { return b[:min(len(b), 48)] }

// serverSaid is an error in the server's own words.
func serverSaid(text string) error {
	kind := ServerError
	low := strings.ToLower(text)
	for _, s := range []string{"not found", "does not appear to be a git repository", "does not exist", "no such repository"} {
		if strings.Contains(low, s) {
			kind = NotFound
		}
	}
	return &kindError{kind: kind, err: fmt.Errorf("the remote says: %s", text)}
}

// Short is a commit's id as people write it.
func Short(id string) string { return id[:min(len(id), 7)] }
