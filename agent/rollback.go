package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"dive-agent/state"
)

// A rollback by hand is a rejection by a person: what is declared is not tried again, and what was ready before is brought back as it
// is after a rejection. Reconcilers that put nothing back leave what they made: volumes, realms and replica sets are never part of it.

// formerKey has the revision that was ready before the applied one, of another content.
func formerKey(instance string) string { return state.Key(instance, "applied", "former") }

// readyRevision is one under which an instance was ready.
type readyRevision struct {
	Revision string `json:"revision"`
	Digest   string `json:"digest"` // of the instance's content
}

func formerOf(r state.Reader, instance string) (former readyRevision, err error) {
	value, err := r.Value(formerKey(instance))
	if errors.Is(err, state.ErrNotFound) {
		return readyRevision{}, nil
	}
	if err == nil {
		err = json.Unmarshal(value, &former)
	}
	return former, err
}

func keepFormer(tx state.Tx, instance string, former readyRevision) error {
	value, err := json.Marshal(former)
	if err != nil {
		return err
	}
	return tx.PutValue(formerKey(instance), value)
}

// rollback is a person's order to go back.
type rollback struct{ by, reason string }

// Rollback makes an instance go back to what was ready before, and gives the declared revision and the one that it goes back to.
func (a *Agent) Rollback(ctx context.Context, name, by, reason string) (from, to string, err error) {
	w, err := a.find(name)
	if err != nil {
		return "", "", err
	}
	w.mu.Lock()
	next, removed := w.assigned, w.removed
	w.mu.Unlock()
	if next == nil || removed {
		return "", "", fmt.Errorf("%s is not declared on this host: there is nothing to go back from", name)
	}
	var back readyRevision
	err = a.Store.View(ctx, func(r state.Reader) error {
		known, err := w.recallIn(r)
		if err == nil {
			back, err = w.before(r, known, next)
		}
		return err
	})
	if err != nil {
		return "", "", err
	}
	w.mu.Lock()
	w.back = &rollback{by: by, reason: reason}
	if w.cancel != nil {
		w.cancel(errSuperseded)
	}
	w.mu.Unlock()
	w.rouse("rollback")
	return next.revision.Commit, back.Revision, nil
}

// before finds what an instance can go back to.
func (w *worker) before(r state.Reader, known state.Instance, next *assignment) (back readyRevision, err error) {
	declared := next.revision.Short()
	switch {
	case known.Suspended != nil:
		return back, fmt.Errorf("%s is suspended: dive-agent resume %s first", w.name, w.name)
	case known.Rejected != nil:
		return back, fmt.Errorf("%s was rejected already, and is not tried again", declared)
	case known.Applied == "":
		return back, fmt.Errorf("%s was never ready: there is nothing to go back to", w.name)
	case known.AppliedDigest != next.instance.Digest: // what is declared is under way, or does not work
		back = readyRevision{Revision: known.Applied, Digest: known.AppliedDigest}
	default:
		if back, err = formerOf(r, w.name); err != nil {
			return back, err
		}
		if back.Revision == "" {
			return back, fmt.Errorf("no revision before %s is known under which %s was ready: merge what it is to be", declared, w.name)
		}
	}
	if _, err := os.Stat(w.snapshotDir(back.Revision)); err != nil {
		return back, fmt.Errorf("revision %s is not on this host any more: merge what %s is to be: %w", Revision{Commit: back.Revision}.Short(), w.name, err)
	}
	return back, nil
}

// takeBack carries out an order to go back, durably, before the round begins its work. One that does not hold any more is dropped.
func (r *round) takeBack(ctx context.Context) error {
	r.mu.Lock()
	order := r.back
	r.back = nil
	r.mu.Unlock()
	if order == nil {
		return nil
	}
	reason := "rolled back by " + order.by
	if order.reason != "" {
		reason += ": " + order.reason
	}
	known := r.known
	err := r.Store.Update(context.WithoutCancel(ctx), func(tx state.Tx) error {
		back, err := r.before(tx, known, r.next)
		if err != nil {
			return err
		}
		known.Rejected = &state.Rejection{Revision: r.next.revision.Commit, Reason: reason, Since: r.Clock.Now()}
		known.Applied, known.AppliedDigest, known.Updated = back.Revision, back.Digest, r.Clock.Now()
		detail, err := json.Marshal(rejectionDetail{Digest: r.next.instance.Digest})
		if err != nil {
			return err
		}
		return errors.Join(tx.PutInstance(known), tx.PutValue(rejectedKey(r.name), detail), keepFormer(tx, r.name, readyRevision{}))
	})
	if err != nil {
		return fmt.Errorf("cannot roll back: %w", err)
	}
	r.known = known
	r.emit(Event{Kind: "phase", State: "rolled back", Message: reason})
	return nil
}
