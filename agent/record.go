package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"dive-agent/reconcilers"
	"dive-agent/state"
)

// run records one pass in the store: it begins with the first change, so that a pass with nothing to do leaves no trace.
type run struct {
	worker  *worker
	id      string
	commit  string
	trigger string
	open    bool   // a run of this id is in the store
	began   func() // called once, when the first change is recorded to begin; nil: nobody asks
	once    sync.Once
}

func (r *run) start(ctx context.Context) error {
	if r.open {
		return nil
	}
	err := r.worker.Store.Update(ctx, func(tx state.Tx) error {
		return tx.StartRun(state.Run{
			ID: r.id, Instance: r.worker.name, Revision: r.commit, Trigger: r.trigger, Started: r.worker.Clock.Now(),
		})
	})
	r.open = err == nil
	return err
}

// begin records changes in one transaction.
func (r *run) begin(ctx context.Context, node string, changes []reconcilers.Change) (steps []int64, err error) {
	err = r.worker.Store.Update(ctx, func(tx state.Tx) error {
		steps = steps[:0]
		for _, c := range changes {
			step, err := tx.StartStep(state.Step{
				Run: r.id, Node: node, Action: string(c.Action), Address: c.Address, Started: r.worker.Clock.Now(),
			})
			if err != nil {
				return err
			}
			steps = append(steps, step)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if r.began != nil {
		r.once.Do(r.began)
	}
	for _, c := range changes {
		r.worker.emit(Event{Node: node, Kind: "change", State: "begin", Message: string(c.Action) + " " + c.Address + ": " + c.Reason, Run: r.id})
		r.worker.fail("begin " + node + " " + string(c.Action) + " " + c.Address)
	}
	return steps, nil
}

func (r *run) end(node string, step int64, c reconcilers.Change, err error) {
	r.worker.fail("end " + node + " " + string(c.Action) + " " + c.Address)
	outcome, message := state.Done, ""
	if err != nil {
		outcome, message = outcomeOf(stateOf(err)), r.worker.Redactor.String(err.Error())
	}
	r.worker.counters.changes.WithLabelValues(r.worker.name, string(outcome)).Inc()
	at := r.worker.Clock.Now()
	if err := r.worker.record(func(tx state.Tx) error { return tx.FinishStep(r.id, step, at, outcome, message) }); err != nil {
		r.worker.log.Error("cannot record the end of a step", "node", node, "run", r.id, "error", err)
	}
	r.worker.emit(Event{Node: node, Kind: "change", State: string(outcome), Message: string(c.Action) + " " + c.Address, Run: r.id})
}

// finish records the end of the run.
func (r *run) finish(outcome state.Outcome, message string) {
	message = strings.TrimSpace(r.worker.Redactor.String(message))
	at := r.worker.Clock.Now()
	if err := r.worker.record(func(tx state.Tx) error { return tx.FinishRun(r.id, at, outcome, message) }); err != nil {
		r.worker.log.Error("cannot record the end of a run", "run", r.id, "error", err)
	}
	r.worker.emit(Event{Kind: "run", State: string(outcome), Message: message, Run: r.id})
}

// record writes the end of a step or a run. One that cannot be written now is owed until the next status can: what has
// ended is not told to be running.
func (w *worker) record(end func(state.Tx) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), storeLimit)
	defer cancel()
	err := w.Store.Update(ctx, end)
	if err != nil {
		w.mu.Lock()
		w.owed = append(w.owed, end)
		w.mu.Unlock()
	}
	return err
}

// payOwed writes the ends that are owed in front of a change of the state, in one transaction.
func (w *worker) payOwed(ctx context.Context, change func(state.Tx) error) error {
	w.mu.Lock()
	owed := w.owed
	w.mu.Unlock()
	err := w.Store.Update(ctx, func(tx state.Tx) error {
		for _, end := range owed {
			if err := end(tx); err != nil && !errors.Is(err, state.ErrNotFound) { // a run that fell out of the ring
				return err
			}
		}
		return change(tx)
	})
	if err == nil {
		w.mu.Lock()
		w.owed = w.owed[len(owed):]
		w.mu.Unlock()
	}
	return err
}

// storeLimit bounds a write that must not be cut by the end of a pass.
const storeLimit = 10 * time.Second

func outcomeOf(s NodeState) state.Outcome {
	switch s {
	case NodeDone:
		return state.Done
	case NodeBlocked:
		return state.Blocked
	case NodeFailed, NodeRejected:
		return state.Failed
	}
	return state.Waiting
}
