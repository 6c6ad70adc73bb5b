package agent

import (
	"context"
	"errors"
	"path/filepath"

	"dive-agent/reconcilers"
	"dive-agent/state"
)

// recall reads what the store knows of the instance.
func (w *worker) recall(ctx context.Context) (known state.Instance, err error) {
	err = w.Store.View(ctx, func(r state.Reader) (err error) {
		known, err = w.recallIn(r)
		return err
	})
	return known, err
}

// recallIn is recall within a transaction; of a new instance nothing is known.
func (w *worker) recallIn(r state.Reader) (state.Instance, error) {
	known, err := r.Instance(w.name)
	if errors.Is(err, state.ErrNotFound) {
		return state.Instance{Name: w.name, Host: w.Host}, nil
	}
	return known, err
}

// movedIn is the way out for a machine that replaces another.
func movedIn(old string) string {
	return "If this machine took the other's place, with its volumes and its state folder, set machineID: " + old + " in agent.yaml"
}

// bind ties the instance to this machine at its first run, and refuses to work on one that was tied to another machine.
func (r *round) bind(ctx context.Context) error {
	if r.known.MachineID == r.MachineID && r.known.Attempted != "" {
		return nil
	}
	bound := r.known
	bound.Host, bound.MachineID, bound.Attempted, bound.Updated = r.Host, r.MachineID, r.next.revision.Commit, r.Clock.Now()
	err := r.Store.Update(ctx, func(tx state.Tx) error { return tx.PutInstance(bound) })
	var foreign *state.MachineError
	if errors.As(err, &foreign) {
		return &reconcilers.BlockedError{Reason: "ForeignMachine", Message: foreign.Error(), Do: "Nothing was touched. " + movedIn(foreign.Bound)}
	}
	if err == nil {
		r.known = bound
	}
	return err
}

// sourceOf is the instance's source folder in the snapshot.
func sourceOf(a *assignment) string {
	return filepath.Join(a.revision.Dir, filepath.FromSlash(a.instance.Source))
}
