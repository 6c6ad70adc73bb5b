package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"dive-agent/state"
)

// UnknownError says that no instance of that name is bound to this host.
type UnknownError struct {
	Name string
	Have []string
}

func (e *UnknownError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("no instance %q: none is bound to this host yet", e.Name)
	}
	return fmt.Sprintf("no instance %q on this host (has: %s)", e.Name, strings.Join(e.Have, ", "))
}

func (a *Agent) find(name string) (*worker, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[name]; w != nil {
		return w, nil
	}
	unknown := &UnknownError{Name: name}
	for have := range a.workers {
		unknown.Have = append(unknown.Have, have)
	}
	slices.Sort(unknown.Have)
	return nil, unknown
}

// Sync makes a round due now; with retry, a rejected revision is tried again. A round with a number above the one it
// gives has seen what was there at the time of the call.
func (a *Agent) Sync(name string, retry bool) (after int64, err error) {
	w, err := a.find(name)
	if err != nil {
		return 0, err
	}
	w.mu.Lock()
	w.retry = w.retry || retry
	after = w.rounds
	w.mu.Unlock()
	w.rouse("sync")
	return after, nil
}

// triggerVerify is why a round is due when a person asked for all checks.
const triggerVerify = "verify"

// Verify makes a round due now in which every check is made, also those with a schedule of their own. A round with a number
// above the one it gives has made them.
func (a *Agent) Verify(name string) (after int64, err error) {
	w, err := a.find(name)
	if err != nil {
		return 0, err
	}
	w.mu.Lock()
	after = w.rounds
	w.mu.Unlock()
	w.rouse(triggerVerify)
	return after, nil
}

// Suspend pauses the work on an instance, also over restarts. What runs keeps running.
func (a *Agent) Suspend(ctx context.Context, name, by, reason string) error {
	return a.suspension(ctx, name, &state.Suspension{By: by, Reason: reason, Since: a.Clock.Now()})
}

// Resume goes on with an instance.
func (a *Agent) Resume(ctx context.Context, name string) error { return a.suspension(ctx, name, nil) }

func (a *Agent) suspension(ctx context.Context, name string, to *state.Suspension) error {
	w, err := a.find(name)
	if err != nil {
		return err
	}
	err = a.Store.Update(ctx, func(tx state.Tx) error {
		known, err := w.recallIn(tx)
		if err != nil {
			return err
		}
		known.Suspended, known.Updated = to, a.Clock.Now()
		return tx.PutInstance(known)
	})
	if err != nil {
		return fmt.Errorf("cannot record it: %w", err)
	}
	word := "resumed"
	if to != nil {
		word = "suspended"
		w.mu.Lock()
		if w.cancel != nil {
			w.cancel(errSuspended)
		}
		w.mu.Unlock()
	}
	w.emit(Event{Kind: "phase", State: word, Message: word})
	w.rouse(word)
	return nil
}

// History gives the last runs of an instance, newest first.
func (a *Agent) History(ctx context.Context, name string, limit int) (runs []state.Run, steps map[string][]state.Step, err error) {
	steps = map[string][]state.Step{}
	err = a.Store.View(ctx, func(r state.Reader) error {
		var err error
		if runs, err = r.Runs(name, limit); err != nil {
			return err
		}
		for _, run := range runs {
			if steps[run.ID], err = r.Steps(run.ID); err != nil {
				return err
			}
		}
		return nil
	})
	return runs, steps, err
}

// EventsAfter gives the events after seq, and a channel that is closed when there are more.
func (a *Agent) EventsAfter(seq int64) ([]Event, <-chan struct{}) { return a.bus.after(seq) }
