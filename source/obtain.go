package source

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"dive-agent/gitremote"
)

// obtain brings a commit of the branch onto the disk: fetch, proof, signatures, tree, snapshot.
func (s *Source) obtain(ctx context.Context, head plumbing.Hash) (*candidate, error) {
	s.mu.Lock()
	base := s.base
	accepted := plumbing.NewHash(s.acceptedLocked())
	if s.unrelated {
		accepted = plumbing.ZeroHash
	}
	s.mu.Unlock()

	var fresh *gitremote.Objects
	var err error
	between := map[string]bool{}
	switch {
	case accepted.IsZero() || accepted == head:
		accepted = plumbing.ZeroHash // nothing to descend from
		fresh, err = s.opts.Remote.Fetch(ctx, head, nil, 1)
	default:
		fresh, err = s.opts.Remote.Fetch(ctx, head, []plumbing.Hash{accepted}, 0)
		if kind, _ := gitremote.KindOf(err); kind == gitremote.TooLarge {
			// Much happened, or the remote lost the accepted commit and sends everything: the commits alone tell which, and the
			// tree is fetched by itself below. What is too large itself fails there again.
			if history, herr := s.opts.Remote.FetchHistory(ctx, head, []plumbing.Hash{accepted}); herr == nil || errors.Is(herr, gitremote.ErrLeftOut) {
				fresh, err = history, herr
			}
		}
		if errors.Is(err, gitremote.ErrLeftOut) { // the branch went back behind the accepted commit
			err = s.rewritten(accepted, head)
		}
		if err == nil {
			between, err = s.prove(fresh, accepted, head)
		}
	}
	if err != nil {
		return nil, err
	}
	commit, err := s.commit(fresh, head)
	if err != nil {
		return nil, err
	}
	signer := ""
	if s.opts.Signers != nil {
		if signer, err = s.opts.Signers.check(fresh, head, accepted); err != nil {
			return nil, err
		}
	}
	rev, content, err := s.write(ctx, fresh, base, commit)
	if err != nil {
		return nil, err
	}
	rev.Signer = signer
	return &candidate{rev: rev, content: content, between: between}, nil
}

// prove walks the parents of head until one of them is the accepted commit. Everything between is in the pack, so a walk
// that ends elsewhere is a proof of the contrary. It returns the commits that head descends from on the way.
func (s *Source) prove(fresh *gitremote.Objects, accepted, head plumbing.Hash) (map[string]bool, error) {
	seen := map[string]bool{}
	found := false
	for queue := []plumbing.Hash{head}; len(queue) > 0; {
		h := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if h == accepted {
			found = true
			continue
		}
		if seen[h.String()] || !fresh.Has(h) {
			continue
		}
		c, err := s.commit(fresh, h)
		if err != nil {
			return nil, err
		}
		seen[h.String()] = true
		queue = append(queue, c.ParentHashes...)
	}
	if !found {
		return nil, s.rewritten(accepted, head)
	}
	delete(seen, head.String())
	return seen, nil
}

func (s *Source) rewritten(accepted, head plumbing.Hash) error {
	return &RewrittenError{Branch: s.opts.Branch, Accepted: accepted.String(), Found: head.String()}
}

func (s *Source) commit(fresh *gitremote.Objects, h plumbing.Hash) (*object.Commit, error) {
	c, err := fresh.Commit(h)
	if err != nil {
		return nil, &UnreadableError{Commit: h.String(), Err: err}
	}
	return c, nil
}

// write reads the tree of a commit and makes its snapshot. When something is in neither the fetch nor the base (after
// a snapshot was lost, or behind a server that sends too little), the whole tree is fetched, once.
func (s *Source) write(ctx context.Context, fresh *gitremote.Objects, base *stored, c *object.Commit) (Revision, *stored, error) {
	rev, content, err := s.writeFrom(pool{fresh, base}, c)
	var missing *missingError
	if !errors.As(err, &missing) {
		return rev, content, err
	}
	if fresh, err = s.opts.Remote.Fetch(ctx, c.Hash, nil, 1); err != nil {
		return Revision{}, nil, err
	}
	rev, content, err = s.writeFrom(pool{fresh, nil}, c)
	if errors.As(err, &missing) {
		err = &UnreadableError{Commit: c.Hash.String(), Err: missing}
	}
	return rev, content, err
}

func (s *Source) writeFrom(from pool, c *object.Commit) (Revision, *stored, error) {
	commit := c.Hash.String()
	tree, err := readTree(commit, from, c.TreeHash, s.opts.Path, s.opts.Limits)
	if err != nil {
		return Revision{}, nil, err
	}
	rev := s.describe(c, tree)
	rev.Dir = s.snapshotDir(commit, s.opts.Path)
	content, err := s.place(rev, tree, from)
	if err != nil {
		return Revision{}, nil, err
	}
	if s.opts.Path != "" {
		keepWay(content, from, c.TreeHash, s.opts.Path)
	}
	return rev, content, nil
}

// place writes the snapshot, unless one of the same content is there from before.
func (s *Source) place(rev Revision, tree *node, from pool) (*stored, error) {
	if content, err := verify(rev.Dir, tree.hash, s.opts.Limits); err == nil {
		return content, nil
	}
	return writeSnapshot(filepath.Dir(rev.Dir), filepath.Base(rev.Dir), tree, from, true)
}

func (s *Source) describe(c *object.Commit, tree *node) Revision {
	subject, _, _ := strings.Cut(strings.TrimLeft(c.Message, "\n"), "\n")
	return Revision{
		Commit: c.Hash.String(), Tree: tree.hash.String(), Branch: s.opts.Branch,
		Subject: printable(subject, 200), Author: printable(c.Author.Name+" <"+c.Author.Email+">", 200), Time: c.Committer.When.UTC(),
	}
}

// keepWay adds the trees between the repository's root and the followed folder to what is remembered, so that the next
// fetch, which leaves out what did not change, can be read.
func keepWay(content *stored, from pool, root plumbing.Hash, path string) {
	r := &treeReader{from: from, limits: Limits{}.withDefaults()}
	for _, part := range splitPath(path) {
		raw, err := from.tree(root)
		if err != nil {
			return
		}
		content.trees[root] = raw
		entries, err := r.parse(root, "")
		if err != nil {
			return
		}
		for _, e := range entries {
			if e.name == part {
				root = e.hash
			}
		}
	}
}

// printable makes foreign text safe to show: one line, no control characters, bounded in bytes.
func printable(s string, limit int) string {
	s = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || unicode.Is(unicode.Cf, c) || c == unicode.ReplacementChar {
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, ""))
	s = strings.TrimSpace(s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit-3], "") + "..."
	}
	return s
}
