package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"dive-agent/gitremote"
	"dive-agent/state"
)

// Pusher is the part of a Git remote that status branches need;
// *gitremote.Remote is one.
type Pusher interface {
	Commit(ctx context.Context, req gitremote.CommitRequest) (plumbing.Hash, error)
}

// Branches says how status branches are written: one for each instance, which
// only its agent writes, never the watched one.
type Branches struct {
	Remote Pusher
	// Prefix of the branches' names; default "status/".
	Prefix string
	// Author stands in the commits; default "dive-agent".
	Author gitremote.Person
	// Signer gives what signs the next commit; nil, or one that gives nil, leaves it unsigned.
	Signer func() (gitremote.Signer, error)
}

func (b *Branches) setDefaults() {
	if b.Prefix == "" {
		b.Prefix = "status/"
	}
	if b.Author.Name == "" {
		b.Author.Name = "dive-agent"
	}
	if b.Author.Email == "" {
		b.Author.Email = "dive-agent@localhost"
	}
}

func (b *Branches) signer() (gitremote.Signer, error) {
	if b.Signer == nil {
		return nil, nil
	}
	return b.Signer()
}

const (
	// statusKey makes a newer status replace one that still waits.
	statusKey = "status"
	// sameAgain is how soon after a push the same content is no news. What
	// comes later with the same content is the heartbeat, which the agent asks
	// for every 15 minutes.
	sameAgain = time.Minute
	// leaseTries is how often a push is tried on top of what somebody else
	// wrote in between.
	leaseTries = 3
	// refused begins the reason why an entry waits whose branch may not be
	// written: protected, or a hook's decision.
	refused = "the forge refuses the status branch"
)

func (r *Reporter) enqueueStatus(tx state.Tx, s *Status, event state.Event) error {
	payload, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write the status of %s: %w", s.Instance, err)
	}
	_, err = tx.Enqueue(state.Entry{
		Kind: state.KindStatus, Instance: s.Instance, Key: statusKey, Payload: payload, Event: event.Seq, Created: r.Clock.Now(),
	})
	return err
}

// push writes a status to its branch.
func (r *Reporter) push(ctx context.Context, e state.Entry) (func(state.Tx) error, error) {
	s := &Status{}
	if err := json.Unmarshal(e.Payload, s); err != nil {
		return nil, &goneError{fmt.Errorf("read the status of %s from the outbox: %w", e.Instance, err)}
	}
	digest, err := s.Digest()
	if err != nil {
		return nil, err
	}
	last, err := r.lastPush(ctx, s.Instance)
	if err != nil {
		return nil, err
	}
	outputs := map[string][]byte{}
	if digest, err = r.addOutputs(ctx, s.Instance, outputs, digest); err != nil {
		return nil, err
	}
	if since := s.Updated.Sub(last.Time); last.Digest == digest && since >= 0 && since < sameAgain { // it is negative after the clock went back
		return nil, nil
	}
	files, err := s.Files()
	if err != nil {
		return nil, err
	}
	if err := r.addPlans(ctx, s, files); err != nil {
		return nil, err
	}
	for name, content := range files {
		files[name] = []byte(r.Redact(string(content)))
	}
	maps.Copy(files, outputs)
	signer, err := r.Branches.signer()
	if err != nil {
		return nil, fmt.Errorf("sign the status of %s: %w", s.Instance, err)
	}
	commit, err := r.commit(ctx, gitremote.CommitRequest{
		Ref:   plumbing.NewBranchReferenceName(r.Branches.Prefix + s.Instance),
		Files: files, Message: r.Redact(s.Message()), Author: r.Branches.Author, When: s.Updated.UTC(), Signer: signer,
	}, plumbing.NewHash(last.Commit))
	if err != nil {
		var rejected *gitremote.RejectedError
		if kind, _ := gitremote.KindOf(err); errors.As(err, &rejected) && !rejected.LeaseLost || kind == gitremote.Forbidden {
			return nil, fmt.Errorf("%s: %w", refused, err)
		}
		return nil, fmt.Errorf("push the status of %s: %w", s.Instance, retryAfter(err))
	}
	return func(tx state.Tx) error {
		return tx.PutPushed(state.Pushed{Instance: s.Instance, Digest: digest, Commit: commit.String(), Time: s.Updated})
	}, nil
}

// addPlans adds a page for each plan that the status names. One that was forgotten meanwhile has none: a newer status,
// which does not name it, follows.
func (r *Reporter) addPlans(ctx context.Context, s *Status, files map[string][]byte) error {
	if len(s.Plans) == 0 {
		return nil
	}
	return r.Store.View(ctx, func(reader state.Reader) error {
		plans, err := Plans(reader, s.Instance)
		for _, p := range plans {
			if slices.ContainsFunc(s.Plans, func(l PlanLink) bool { return l.Page == p.file() }) {
				files[p.file()] = p.Page(s.Instance)
			}
		}
		return err
	})
}

// Files are the content of a status branch, but for the pages of plans.
func (s *Status) Files() (map[string][]byte, error) {
	content, err := s.YAML()
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"README.md": s.Page(), "status.yaml": content}, nil
}

func (r *Reporter) lastPush(ctx context.Context, instance string) (last state.Pushed, err error) {
	err = r.Store.View(ctx, func(reader state.Reader) error {
		last, err = reader.Pushed(instance)
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		return err
	})
	return last, err
}

// commit puts a commit on top of the one that was pushed last; equal content at
// the same time on the same parent is the same commit, so that a push whose
// success was not recorded is found again and not repeated. Where somebody else
// moved the branch, or this agent lost its memory, the commit goes on top of
// what is there: what the branch says last is what this agent saw last.
func (r *Reporter) commit(ctx context.Context, req gitremote.CommitRequest, parent plumbing.Hash) (plumbing.Hash, error) {
	for try := 1; ; try++ {
		req.Old, req.Parent = parent, parent
		commit, err := r.Branches.Remote.Commit(ctx, req)
		var rejected *gitremote.RejectedError
		switch {
		case err == nil:
			return commit, nil
		case !errors.As(err, &rejected) || !rejected.LeaseLost || try == leaseTries:
			return plumbing.ZeroHash, err
		case rejected.Current == commit:
			return commit, nil // an answer was lost: it is ours
		}
		r.Log.Warn("the status branch is not where it was left", "ref", req.Ref, "left", parent.String(), "found", rejected.Current.String())
		parent = rejected.Current
	}
}

// retryAfter takes over what a server asked for.
func retryAfter(err error) error {
	var ge *gitremote.Error
	if errors.As(err, &ge) && ge.RetryAfter > 0 {
		return &laterError{after: ge.RetryAfter, err: err}
	}
	return err
}
