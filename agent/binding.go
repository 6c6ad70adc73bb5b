package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/state"
)

// known reads what the store knows of the instance; of a new one, nothing.
func (w *worker) known(ctx context.Context) (known state.Instance, err error) {
	known = state.Instance{Name: w.name, Host: w.Host}
	err = w.Store.View(ctx, func(r state.Reader) error {
		found, err := r.Instance(w.name)
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		if err == nil {
			known = found
		}
		return err
	})
	return known, err
}

// bind ties the instance to this machine at its first run, and refuses to work on one that belongs to another machine.
func (w *worker) bind(ctx context.Context, known *state.Instance, next *assignment) error {
	if declared := next.fleet.Hosts[w.Host]; declared != nil && declared.MachineID != "" && w.MachineID != "" && declared.MachineID != w.MachineID {
		return &reconcilers.BlockedError{
			Reason:  "ForeignMachine",
			Message: fmt.Sprintf("hosts/%s.yaml names the machine %s, and this is %s", w.Host, declared.MachineID, w.MachineID),
			Do:      "Correct the machine id of the host, or the host's name in this agent's configuration.",
		}
	}
	if known.MachineID == w.MachineID && known.Attempted != "" {
		return nil
	}
	bound := *known
	bound.Host, bound.MachineID, bound.Attempted, bound.Updated = w.Host, w.MachineID, next.revision.Commit, w.Clock.Now()
	err := w.Store.Update(ctx, func(tx state.Tx) error { return tx.PutInstance(bound) })
	var foreign *state.MachineError
	if errors.As(err, &foreign) {
		return &reconcilers.BlockedError{Reason: "ForeignMachine", Message: foreign.Error(), Do: "Nothing was touched.", Err: nil}
	}
	if err == nil {
		*known = bound
	}
	return err
}

// rejected says whether what is declared was tried and did not work: the same commit, or the same content.
func (w *worker) rejected(known state.Instance, next *assignment) bool {
	if known.Rejected == nil {
		return false
	}
	if known.Rejected.Revision == next.revision.Commit {
		return true
	}
	return w.rejectionDetail().Digest == next.instance.Digest
}

// rejectionDetail is what the state's rejection does not hold.
type rejectionDetail struct {
	Digest string   // of the instance's content that was rejected
	Logs   []string // last words of the service that failed, redacted
}

func rejectedKey(instance string) string { return state.Key(instance, "rejected", "detail") }

// rejectionDetail reads it; of an instance that was never rejected it is empty.
func (w *worker) rejectionDetail() (detail rejectionDetail) {
	ctx, cancel := context.WithTimeout(context.Background(), storeLimit)
	defer cancel()
	err := w.Store.View(ctx, func(r state.Reader) error {
		value, err := r.Value(rejectedKey(w.name))
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(value, &detail)
	})
	if err != nil {
		w.log.Error("cannot read why the revision was rejected", "error", err)
	}
	return detail
}

func (w *worker) keepRejection(ctx context.Context, detail rejectionDetail) {
	err := w.Store.Update(context.WithoutCancel(ctx), func(tx state.Tx) error {
		encoded, err := json.Marshal(detail)
		if err != nil {
			return err
		}
		return tx.PutValue(rejectedKey(w.name), encoded)
	})
	if err != nil {
		w.log.Error("cannot record the rejection", "error", err)
	}
}

// lastApplied loads the instance as it was last ready, to keep it so while the declared revision is rejected. Before the
// first success there is none: then the declared one is only looked at.
func (w *worker) lastApplied(known state.Instance, next *assignment) (*assignment, error) {
	if known.Applied == "" {
		return next, nil
	}
	revision := Revision{Commit: known.Applied, Branch: next.revision.Branch, Dir: w.snapshotDir(known.Applied)}
	fleet, err := desired.Load(revision.Dir, desired.Options{Kinds: w.Kinds})
	if err != nil {
		return nil, fmt.Errorf("cannot read the applied revision %s again: %w", revision.Short(), err)
	}
	instance := fleet.Instances[w.name]
	if instance == nil {
		return nil, fmt.Errorf("the applied revision %s does not hold instance %s", revision.Short(), w.name)
	}
	return &assignment{revision: revision, fleet: fleet, instance: instance}, nil
}

// sourceOf is the instance's source folder in the snapshot.
func sourceOf(a *assignment) string {
	return filepath.Join(a.revision.Dir, filepath.FromSlash(a.instance.Source))
}

// noServices is the answer for an instance without a stack.
type noServices struct{}

func (noServices) Find(_ context.Context, service string) (reconcilers.Container, error) {
	return reconcilers.Container{}, fmt.Errorf("no service %q: the instance has no stack", service)
}

func (noServices) Logs(_ context.Context, service string, _ time.Time, _ int) (io.ReadCloser, error) {
	return nil, fmt.Errorf("no service %q: the instance has no stack", service)
}

func (noServices) Exec(_ context.Context, service string, _, _ []string, _ io.Reader) ([]byte, int, error) {
	return nil, 0, fmt.Errorf("no service %q: the instance has no stack", service)
}
