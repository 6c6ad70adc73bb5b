package gitremote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Signer signs the payload of a commit and returns an armoured OpenPGP or SSH signature.
// go-git's Signer is the same; [NewSSHSigner] makes one.
type Signer interface {
	Sign(message io.Reader) ([]byte, error)
}

// Person stands in a commit as author and committer.
type Person struct{ Name, Email string }

// CommitRequest is one commit that replaces or follows what a ref points to.
type CommitRequest struct {
	// Ref is the full name of the ref to move, "refs/heads/status/deu".
	Ref plumbing.ReferenceName
	// Old is where the ref is thought to be: the lease of [Remote.Push]. Zero: the ref must not exist.
	Old plumbing.Hash
	// Parent of the new commit; zero makes a root commit. For a child of the ref's last commit it equals Old.
	// The remote must have it; it is not sent and need not be known here.
	Parent plumbing.Hash
	// Files are the whole content of the commit's tree: slash-separated paths to contents. All are plain files.
	Files map[string][]byte
	// Message is the commit message; a newline is added at its end.
	Message string
	Author  Person
	When    time.Time // of author and committer; second resolution, its zone is kept
	Signer  Signer    // nil: unsigned
}

// Commit makes a commit with its trees and files in memory and pushes it, in one request and with the guarantees of
// [Remote.Push]. It returns the new commit's id, also together with an error, so that a caller
// whose answer was lost can recognise its own commit later. Equal requests (with the same time and signature) make the
// same commit.
func (r *Remote) Commit(ctx context.Context, req CommitRequest) (plumbing.Hash, error) {
	objects, h, err := BuildCommit(req)
	if err != nil {
		return plumbing.ZeroHash, r.fail(ctx, "commit", req.Ref.String(), &kindError{kind: Misconfigured, err: err})
	}
	return h, r.Push(ctx, req.Ref, req.Old, h, objects)
}

// BuildCommit makes the objects of a commit without sending them.
func BuildCommit(req CommitRequest) (*Objects, plumbing.Hash, error) {
	objects := NewObjects()
	tree, err := buildTree(objects, req.Files)
	if err != nil {
		return nil, plumbing.ZeroHash, err
	}
	who := object.Signature{Name: person(req.Author.Name), Email: person(req.Author.Email), When: req.When}
	c := &object.Commit{Author: who, Committer: who, Message: strings.TrimRight(req.Message, "\n") + "\n", TreeHash: tree}
	if !req.Parent.IsZero() {
		c.ParentHashes = []plumbing.Hash{req.Parent}
	}
	if req.Signer != nil {
		payload, err := encodeObject(c.EncodeWithoutSignature)
		if err != nil {
			return nil, plumbing.ZeroHash, err
		}
		sig, err := req.Signer.Sign(bytes.NewReader(payload))
		if err != nil {
			return nil, plumbing.ZeroHash, fmt.Errorf("signing the commit: %w", err)
		}
		c.PGPSignature = string(sig)
	}
	content, err := encodeObject(c.Encode)
	if err != nil {
		return nil, plumbing.ZeroHash, err
	}
	return objects, objects.Put(plumbing.CommitObject, content), nil
}

// person takes out what would break a commit's header.
func person(s string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if c == '<' || c == '>' || c == '\n' || c == 0 {
			return -1
		}
		return c
	}, s))
}

func encodeObject(encode func(plumbing.EncodedObject) error) ([]byte, error) {
	m := &plumbing.MemoryObject{}
	if err := encode(m); err != nil {
		return nil, err
	}
	r, err := m.Reader()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// buildTree makes the trees for a set of files and returns the root's id.
func buildTree(o *Objects, files map[string][]byte) (plumbing.Hash, error) {
	dirs := map[string]map[string]object.TreeEntry{"": {}}
	for name, content := range files {
		if err := checkPath(name); err != nil {
			return plumbing.ZeroHash, err
		}
		dir, base := path.Split(name)
		dir = strings.TrimSuffix(dir, "/")
		entry := object.TreeEntry{Name: base, Mode: filemode.Regular, Hash: o.Put(plumbing.BlobObject, content)}
		for d := dir; dirs[d] == nil; d = parentDir(d) {
			dirs[d] = map[string]object.TreeEntry{}
		}
		dirs[dir][base] = entry
	}
	names := make([]string, 0, len(dirs))
	for d := range dirs {
		names = append(names, d)
	}
	// Deepest first, so that a folder's id is known before its parent needs it.
	slices.SortFunc(names, func(a, b string) int {
		return strings.Count(b, "/")*2 + min(len(b), 1) - strings.Count(a, "/")*2 - min(len(a), 1)
	})
	var root plumbing.Hash
	for _, d := range names {
		h, err := encodeTree(o, dirs[d])
		if err != nil {
			return plumbing.ZeroHash, err
		}
		if d == "" {
			root = h
			continue
		}
		up := dirs[parentDir(d)]
		if _, clash := up[path.Base(d)]; clash {
			return plumbing.ZeroHash, fmt.Errorf("%q is a file and a folder", d)
		}
		up[path.Base(d)] = object.TreeEntry{Name: path.Base(d), Mode: filemode.Dir, Hash: h}
	}
	return root, nil
}

func parentDir(d string) string {
	if up := path.Dir(d); up != "." {
		return up
	}
	return ""
}

func encodeTree(o *Objects, entries map[string]object.TreeEntry) (plumbing.Hash, error) {
	t := &object.Tree{}
	for _, e := range entries {
		t.Entries = append(t.Entries, e)
	}
	sort.Sort(object.TreeEntrySorter(t.Entries))
	content, err := encodeObject(t.Encode)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	return o.Put(plumbing.TreeObject, content), nil
}

func checkPath(name string) error {
	if name == "" || path.Clean("/"+name) != "/"+name || strings.ContainsAny(name, "\x00\\") {
		return fmt.Errorf("%q is not a path inside a tree", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.EqualFold(part, ".git") {
			return fmt.Errorf("%q is not a path inside a tree", name)
		}
	}
	return nil
}
