package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"dive-agent/desired"
	"dive-agent/state"
)

// Agent works on all instances of one host.
type Agent struct {
	Options
	bus      *bus
	counters counters
	peers    neighbours
	lifetime context.Context // ends when the agent gives up its workers
	identity identity

	all sync.WaitGroup // the workers' goroutines, and what they left to be done later

	mu       sync.Mutex // guards what follows; taken before a worker's, never after it
	workers  map[string]*worker
	revision *Revision // in force
	refused  *Refusal  // of what the branch points to; nil when that is in force
	source   SourceHealth
	left     []string // instances that an agent before this one worked on here; the first revision says whether they still are
	draining bool     // no worker is started any more
}

// SourceHealth is how the fleet repository can be reached.
type SourceHealth struct {
	Err    string    `json:"error,omitempty"`  // empty while it can be reached
	Reason string    `json:"reason,omitempty"` // CamelCase: GitUnreachable, HistoryRewritten, TreeRefused
	Since  time.Time `json:"since"`            // since when it is so
	Polled time.Time `json:"polled"`           // the last poll that was answered
}

// New makes an agent; it starts nothing. Its workers end when lifetime does.
func New(lifetime context.Context, o Options) *Agent {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Agent{Options: o, bus: newBus(o.Redactor.String), counters: newCounters(), workers: map[string]*worker{}, lifetime: lifetime}
}

// learn makes the redactor know a secret that came up during a pass.
func (a *Agent) learn(v desired.Value) { a.Redactor.AddValue(v) }

// Recover closes the runs that a crash left open, and tells of them; it finds the instances that were worked on here. To be
// called once, by the one process that holds the state folder's lock, before the first revision is taken.
func (a *Agent) Recover(ctx context.Context) error {
	crashed, err := a.Store.Recover(ctx)
	if err == nil {
		a.left, err = a.workedOn(ctx)
	}
	if err != nil {
		return fmt.Errorf("cannot read the agent's state: %w", err)
	}
	if err := a.recallRefusal(); err != nil {
		a.Log.Warn("it is told once the branch was read", "error", err) // a torn disk is no reason not to start
	}
	for _, run := range crashed {
		a.Log.Warn("a run was cut off and is continued", "instance", run.Instance, "run", run.ID, "message", run.Message)
		a.bus.emit(Event{Time: a.Clock.Now(), Instance: run.Instance, Kind: "run", State: string(state.Crashed), Message: run.Message, Run: run.ID})
	}
	return nil
}

// workedOn names the instances that the state knows and whose folder was not deleted: what runs of one may have been left.
func (a *Agent) workedOn(ctx context.Context) (names []string, err error) {
	err = a.Store.View(ctx, func(r state.Reader) error {
		instances, err := r.Instances()
		for _, instance := range instances {
			if _, err := os.Stat(folderOf(a.Dir, instance.Name)); err == nil {
				names = append(names, instance.Name)
			}
		}
		return err
	})
	return names, err
}

// load reads a revision's fleet. What only a host can allow is judged for the instances of this one: each of the others
// judges its own.
func (a *Agent) load(revision Revision) (*desired.Fleet, error) {
	return desired.Load(revision.Dir, desired.Options{Kinds: a.Kinds, Allow: func(host string) []string {
		if host != a.Host {
			return []string{desired.AllowAll}
		}
		return a.Allow
	}})
}

// Take makes a revision the one in force, when its tree is a valid fleet. A Problems error means that it was refused as
// a whole and the one before stays in force. Revisions are taken one at a time.
func (a *Agent) Take(revision Revision) error {
	if a.inForce(revision) {
		return nil
	}
	fleet, err := a.load(revision)
	if err != nil {
		err = bounded(err)
		a.refuse(revision, err)
		return err
	}
	a.identify(fleet.Hosts[a.Host])
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revision = &revision
	if a.refused != nil && a.refused.Revision.Commit == revision.Commit { // by an agent before this one
		a.nowRefused(nil)
	}
	a.Log.Info("revision in force", "commit", revision.Short(), "subject", revision.Subject)
	a.bus.emit(Event{Time: a.Clock.Now(), Kind: "revision", State: "taken", Message: revision.Short() + " " + revision.Subject})
	for name, instance := range fleet.Instances {
		if instance.Host == a.Host {
			a.worker(name).assign(&assignment{revision: revision, fleet: fleet, instance: instance})
		}
	}
	for _, name := range a.left { // also one whose manifest went before this agent began
		a.worker(name)
	}
	a.left = nil
	var gone []string
	for name := range a.workers {
		if fleet.Instances[name] == nil {
			gone = append(gone, name)
		}
	}
	a.noteRemovals(gone, fleet.Removed)
	for name, w := range a.workers {
		if instance := fleet.Instances[name]; instance == nil {
			w.remove("")
		} else if instance.Host != a.Host {
			w.remove(instance.Host)
		}
	}
	return nil
}

// inForce says whether a revision is the one in force.
func (a *Agent) inForce(revision Revision) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.revision != nil && a.revision.Commit == revision.Commit
}

// worker gives the instance's worker, started when new. a.mu is held.
func (a *Agent) worker(name string) *worker {
	w := a.workers[name]
	if w == nil {
		w = newWorker(a, name)
		a.workers[name] = w
		if !a.draining {
			a.all.Go(func() { w.run(a.lifetime) })
		}
	}
	return w
}

// SourceIs tells the agent how the fleet repository can be reached.
func (a *Agent) SourceIs(health SourceHealth) {
	health.Err = a.Redactor.String(health.Err)
	a.mu.Lock()
	changed := a.source.Reason != health.Reason
	if !changed {
		health.Since = a.source.Since
	}
	a.source = health
	a.mu.Unlock()
	if !changed {
		return
	}
	if health.Err != "" {
		a.Log.Warn("the fleet repository is not followed", "reason", health.Reason, "error", health.Err)
		a.bus.emit(Event{Time: a.Clock.Now(), Kind: "source", State: health.Reason, Message: health.Err})
	} else {
		a.Log.Info("the fleet repository is followed")
		a.bus.emit(Event{Time: a.Clock.Now(), Kind: "source", State: "Followed"})
	}
	a.RouseAll("source")
}

// RouseAll makes a round of every instance due.
func (a *Agent) RouseAll(trigger string) {
	for _, w := range a.sorted() {
		w.rouse(trigger)
	}
}

// sorted gives the workers by name.
func (a *Agent) sorted() []*worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	var workers []*worker
	for _, name := range slices.Sorted(maps.Keys(a.workers)) {
		workers = append(workers, a.workers[name])
	}
	return workers
}

// Drain ends all rounds at their next safe point and waits for the workers, until ctx ends. The agent takes up no work
// afterwards.
func (a *Agent) Drain(ctx context.Context) error {
	a.mu.Lock()
	a.draining = true
	a.mu.Unlock()
	for _, w := range a.sorted() {
		w.stop()
	}
	ended := make(chan struct{})
	go func() { a.all.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("some work did not end in time: %w", ctx.Err())
	}
}

// Alive says whether the agent still answers, for a watchdog: its locks can be taken.
func (a *Agent) Alive() bool {
	for _, w := range a.sorted() {
		w.mu.Lock()
		w.mu.Unlock() //nolint:staticcheck // taking it is the test
	}
	return true
}

// snapshotDir is where the source keeps a revision's tree.
func (a *Agent) snapshotDir(commit string) string { return filepath.Join(a.Dir, "snapshots", commit) }

// InUse names the commits whose snapshots are still needed.
func (a *Agent) InUse(ctx context.Context) (commits []string, err error) {
	a.mu.Lock()
	if a.revision != nil {
		commits = append(commits, a.revision.Commit)
	}
	a.mu.Unlock()
	err = a.Store.View(ctx, func(r state.Reader) error {
		instances, err := r.Instances()
		for _, instance := range instances {
			former, problem := formerOf(r, instance.Name)
			for _, commit := range []string{instance.Applied, former.Revision} {
				if commit != "" {
					commits = append(commits, commit)
				}
			}
			err = errors.Join(err, problem)
		}
		return err
	})
	return commits, err
}
