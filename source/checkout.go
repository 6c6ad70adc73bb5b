package source

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"dive-agent/gitremote"
)

// Fetch makes a temporary snapshot of another revision, to plan with: a branch, a tag, a full ref name
// ("refs/pull/7/head"), or a commit in 40 digits (which the remote may refuse when no ref points to it). Limits hold as for
// the branch; nothing is proven about descent or signatures, and the accepted revision is not touched. The returned
// function removes the snapshot; it may be called more than once.
func (s *Source) Fetch(ctx context.Context, what string) (Revision, func() error, error) {
	commit, err := s.resolve(ctx, what)
	if err != nil {
		return Revision{}, nil, err
	}
	fresh, err := s.opts.Remote.Fetch(ctx, commit, nil, 1)
	if err != nil {
		return Revision{}, nil, err
	}
	c, err := s.commit(fresh, commit)
	if err != nil {
		return Revision{}, nil, err
	}
	from := pool{fresh: fresh}
	tree, err := readTree(commit.String(), from, c.TreeHash, s.opts.Path, s.opts.Limits)
	var missing *missingError
	if errors.As(err, &missing) {
		err = &UnreadableError{Commit: commit.String(), Err: missing}
	}
	if err != nil {
		return Revision{}, nil, err
	}
	rev := s.describe(c, tree)
	rev.Branch = what
	var r [6]byte
	if _, err := rand.Read(r[:]); err != nil {
		return Revision{}, nil, err
	}
	parent, name := filepath.Join(s.opts.Dir, checkoutsDir), gitremote.Short(rev.Commit)+"-"+hex.EncodeToString(r[:])
	rev.Dir = filepath.Join(parent, name)
	if _, err := writeSnapshot(parent, name, tree, from, false); err != nil {
		return Revision{}, nil, err
	}
	return rev, func() error { return removeCheckout(parent, name) }, nil
}

func removeCheckout(parent, name string) error {
	all, err := os.Open(parent)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer all.Close()
	if err := removeTree(all, name); err != nil {
		return fmt.Errorf("removing the temporary snapshot: %w", err)
	}
	return nil
}

// resolve finds the commit behind a name: a branch first, then a tag.
func (s *Source) resolve(ctx context.Context, what string) (plumbing.Hash, error) {
	if isCommit(what) {
		return plumbing.NewHash(what), nil
	}
	names := []plumbing.ReferenceName{plumbing.ReferenceName(what)}
	if !strings.HasPrefix(what, "refs/") {
		names = []plumbing.ReferenceName{plumbing.NewBranchReferenceName(what), plumbing.NewTagReferenceName(what)}
	}
	var err error
	for _, name := range names {
		var h plumbing.Hash
		if h, err = s.opts.Remote.Ref(ctx, name); err == nil || !errors.Is(err, gitremote.ErrRefNotFound) {
			return h, err
		}
	}
	return plumbing.ZeroHash, fmt.Errorf("%q is neither a branch nor a tag at %s; a commit needs all of its 40 digits: %w", what, s.opts.Remote, err)
}
