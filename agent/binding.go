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

// bind ties the instance to this machine at its first run, and refuses to work on one that belongs to another machine.
func (r *round) bind(ctx context.Context) error {
	declared := r.next.fleet.Hosts[r.Host]
	if declared != nil && declared.MachineID != "" && r.MachineID != "" && declared.MachineID != r.MachineID {
		return &reconcilers.BlockedError{
			Reason:  "ForeignMachine",
			Message: fmt.Sprintf("hosts/%s.yaml names the machine %s, and this is %s", r.Host, declared.MachineID, r.MachineID),
			Do:      "Correct the machine id of the host, or the host's name in this agent's configuration. " + movedIn(declared.MachineID),
		}
	}
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

// rejected says whether what is declared was tried and did not work: the same commit, or the same content.
func (r *round) rejected() bool {
	if r.known.Rejected == nil {
		return false
	}
	return r.known.Rejected.Revision == r.next.revision.Commit || r.rejectionDetail().Digest == r.next.instance.Digest
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
func (r *round) lastApplied() (*assignment, error) {
	if r.known.Applied == "" {
		return r.next, nil
	}
	revision := Revision{Commit: r.known.Applied, Branch: r.next.revision.Branch, Dir: r.snapshotDir(r.known.Applied)}
	fleet, err := desired.Load(revision.Dir, desired.Options{Kinds: r.Kinds})
	if err != nil {
		return nil, fmt.Errorf("cannot read the applied revision %s again: %w", revision.Short(), err)
	}
	instance := fleet.Instances[r.name]
	if instance == nil {
		return nil, fmt.Errorf("the applied revision %s does not hold instance %s", revision.Short(), r.name)
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
