package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"dive-agent/desired"
	"dive-agent/secrets"
	"dive-agent/state"
)

// assignment is what a worker has to bring about: an instance at a revision.
type assignment struct {
	revision Revision
	fleet    *desired.Fleet
	instance *desired.Instance
}

// worker keeps one instance in its desired state: one round after the other, never two at a time.
type worker struct {
	*Agent
	name string
	log  *slog.Logger

	mu        sync.Mutex             // guards what follows, up to wake; taken after the agent's, never before it
	assigned  *assignment            // what the fleet repository declares now
	triggers  []string               // why the next round is due
	owed      []func(state.Tx) error // ends of steps and runs that could not be recorded yet, oldest first
	rounds    int64                  // begun so far
	retry     bool                   // a person asked to try a rejected revision again
	back      *rollback              // a person asked to go back to what was ready before
	removed   bool
	movedTo   string                  // the host that a removed one is bound to now, whose agent tells of it from then on
	cancel    context.CancelCauseFunc // of the round that runs; nil between rounds
	interrupt chan struct{}           // of the round that runs; closed to end its waits
	view      view

	wake    chan struct{} // holds one when a round is due
	stopped chan struct{} // closed when no further round may begin
	end     sync.Once     // closes stopped

	// Of the goroutine that makes the rounds alone:
	watches context.CancelFunc // ends the watches of live events, and waits for them
	watched string             // digest of the instance that is watched
	backoff backoff
}

// view is what is told of a worker: a value, replaced as a whole.
type view struct {
	Assignment *assignment
	Nodes      []Node
	Seen       time.Time // when the nodes were as they are told
	Run        string    // id of the round that runs, or of the last one
	Running    bool
	Looks      bool      // it goes over what did not work before, and has changed nothing yet: that is still told
	Since      time.Time // of the round
	Trigger    string
	State      state.Instance
	Err        error             // what kept the last round from its graph
	Sources    []secrets.Trouble // secrets that cannot be had where they come from, whose last values are used
	Exports    []string          // why outputs are not published as the manifests have it
	Unkept     error             // why the last status could not be written to the state; nil: it was
}

func newWorker(a *Agent, name string) *worker {
	return &worker{
		Agent: a, name: name, log: a.Log.With("instance", name),
		wake: make(chan struct{}, 1), stopped: make(chan struct{}), backoff: backoff{random: a.Random},
	}
}

// assign gives the worker a new revision. A round at work on another content ends at its next safe point.
func (w *worker) assign(next *assignment) {
	w.mu.Lock()
	before := w.assigned
	w.assigned, w.removed, w.movedTo = next, false, ""
	changed := before == nil || before.instance.Digest != next.instance.Digest
	if changed && before != nil && w.cancel != nil {
		w.cancel(errSuperseded)
	}
	w.mu.Unlock()
	if changed || before.fleet.Digest != next.fleet.Digest {
		w.rouse("revision")
	} else if before.revision.Commit != next.revision.Commit {
		w.rouse("commit")
	}
}

// remove tells the worker that its manifest is gone, or names another host. What runs keeps running.
func (w *worker) remove(movedTo string) {
	w.mu.Lock()
	w.removed, w.movedTo = true, movedTo
	if w.cancel != nil {
		w.cancel(errSuperseded)
	}
	w.mu.Unlock()
	w.rouse("removed")
}

// rouse makes a round due now; a round that only waits ends for it. It never blocks.
func (w *worker) rouse(trigger string) { w.knock(trigger, func() bool { return true }) }

// rouseNode makes a round due because a node's live state changed. A round at work is disturbed only when it is through
// with that node: before, it sees the change itself, or made it.
func (w *worker) rouseNode(id string) {
	w.knock("event", func() bool {
		for _, n := range w.view.Nodes {
			if (id == "" || n.ID == id) && n.State == NodeDone {
				return true
			}
		}
		return false
	})
}

func (w *worker) knock(trigger string, disturb func() bool) {
	w.mu.Lock()
	if !slices.Contains(w.triggers, trigger) {
		w.triggers = append(w.triggers, trigger)
	}
	if w.interrupt != nil && disturb() {
		close(w.interrupt)
		w.interrupt = nil
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run works until ctx ends. It comes back only between two rounds.
func (w *worker) run(ctx context.Context) {
	defer func() {
		if w.watches != nil {
			w.watches()
		}
	}()
	var timer <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.stopped:
			return
		case <-w.wake:
		case <-timer:
			w.rouse("schedule")
			<-w.wake
		}
		trigger := w.take()
		if trigger == "" {
			continue
		}
		timer = nil
		if again := w.round(ctx, trigger); again > 0 {
			timer = w.Clock.After(again)
		}
	}
}

// round makes one round and says when to look again (0: only when something wakes it). It can be cancelled from before
// its first look at what is wanted, so that nothing that is said meanwhile (another revision, a suspension, the agent's
// end) is passed over.
func (w *worker) round(ctx context.Context, trigger string) time.Duration {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	interrupt := make(chan struct{})
	w.mu.Lock()
	if w.isStopped() {
		w.mu.Unlock()
		return 0
	}
	w.rounds++
	number := w.rounds
	w.cancel, w.interrupt = cancel, interrupt
	w.mu.Unlock()
	again := (&round{worker: w, trigger: trigger, interrupt: interrupt}).carryOut(ctx)
	w.mu.Lock()
	w.cancel, w.interrupt, w.view.Running, w.view.Looks = nil, nil, false, false
	w.mu.Unlock()
	w.emit(Event{Kind: "round", Round: number})
	return again
}

// stop lets the round that runs come to its safe point and begins no other.
func (w *worker) stop() {
	w.end.Do(func() { close(w.stopped) })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		w.cancel(errDraining)
	}
}

// take gives why the round is due, and forgets it.
func (w *worker) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	trigger := strings.Join(w.triggers, "+")
	w.triggers = nil
	return trigger
}

func (w *worker) isStopped() bool {
	select {
	case <-w.stopped:
		return true
	default:
		return false
	}
}

// emit tells an event of this instance.
func (w *worker) emit(e Event) {
	e.Instance, e.Time = w.name, w.Clock.Now()
	w.bus.emit(e)
}

// see changes what is told of the worker.
func (w *worker) see(change func(*view)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.view)
}

func (w *worker) fail(point string) {
	if w.Failpoint != nil {
		w.Failpoint(w.name + " " + point)
	}
}
