package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/state"
)

// round brings the instance as far as it gets now and says when to look again (0: only when something wakes it).
func (w *worker) round(ctx context.Context, trigger string) time.Duration {
	known, err := w.known(ctx)
	if err != nil {
		return w.unread(ctx, err)
	}
	w.mu.Lock()
	next, removed, retry := w.assigned, w.removed, w.retry
	w.retry = false
	w.mu.Unlock()
	if next == nil {
		return 0
	}
	w.see(func(v *view) { v.State, v.Assignment, v.Err = known, next, nil })
	if removed {
		return w.gone(ctx, known, next)
	}
	if err := w.bind(ctx, &known, next); err != nil {
		return w.unable(ctx, known, next, err)
	}
	if known.Suspended != nil {
		w.watchNothing()
		w.publish(ctx, known, next, nil, nil)
		return 0
	}
	healing := w.rejected(known, next) && !retry
	if !healing {
		known.Rejected = nil // another content, or a person asked
	}
	work := next
	if healing {
		if work, err = w.lastApplied(known, next); err != nil {
			return w.unable(ctx, known, next, err)
		}
	}
	return w.pass(ctx, known, next, work, healing, trigger)
}

// pass makes one pass over the graph of work. next is what is declared; work differs from it while next is rejected.
func (w *worker) pass(ctx context.Context, known state.Instance, next, work *assignment, healing bool, trigger string) time.Duration {
	id, err := w.IDs.New()
	if err != nil {
		return w.unable(ctx, known, next, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	interrupt := make(chan struct{})
	w.mu.Lock()
	w.cancel, w.interrupt = cancel, interrupt
	switch {
	case w.isStopped():
		cancel(errDraining)
	case w.assigned.instance.Digest != next.instance.Digest:
		cancel(errSuperseded)
	}
	w.view.Assignment, w.view.Run, w.view.Since, w.view.Trigger, w.view.State, w.view.Err = next, id, w.Clock.Now(), trigger, known, nil
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.cancel, w.interrupt, w.view.Running = nil, nil, false
		w.mu.Unlock()
	}()
	recorder := &run{worker: w, id: id, commit: work.revision.Commit, trigger: trigger}
	p, err := w.prepare(ctx, known, work, healing, recorder, interrupt)
	if err != nil {
		return w.unable(ctx, known, next, err)
	}
	w.watch(p)
	if p.survey(ctx) && ctx.Err() == nil {
		if err := recorder.start(ctx); err != nil {
			return w.unable(ctx, known, next, fmt.Errorf("cannot record the run: %w", err))
		}
		w.see(func(v *view) { v.Running, v.Nodes = true, p.views() })
		w.emit(Event{Kind: "run", State: "begin", Message: work.revision.Short() + " (" + trigger + ")", Run: id})
		w.publish(ctx, known, next, p, nil)
		p.apply(ctx)
	} else {
		p.settle(ctx)
	}
	return w.conclude(ctx, known, next, work, healing, p, recorder)
}

// prepare makes all that a pass needs: folders, secrets, scope, services.
func (w *worker) prepare(ctx context.Context, known state.Instance, work *assignment, healing bool, recorder *run, interrupt chan struct{}) (*pass, error) {
	instance := work.instance
	folders, err := placesOf(w.Dir, w.name, sourceOf(work))
	if err != nil {
		return nil, err
	}
	services, data := w.stack(instance, work.fleet, folders)
	values, made, err := w.Secrets.Ensure(ctx, instance, folders.secrets, data)
	if err != nil {
		return nil, err
	}
	for _, value := range values {
		w.Redactor.AddValue(value)
	}
	if len(made) > 0 {
		w.emit(Event{Kind: "secrets", Message: fmt.Sprintf("%d made", len(made)), Run: recorder.id})
		w.log.Info("secrets made", "count", len(made), "names", made, "run", recorder.id)
	}
	options := passOptions{
		fleet: work.fleet, instance: instance, places: folders, reconcilers: w.Reconcilers, services: services,
		scope: instance.Scope(values, desired.Builtins{ProjectDir: folders.project, SecretsDir: folders.secrets}),
		clock: w.Clock, log: w.log.With("run", recorder.id), redact: w.Redactor.String,
		learn:   func(v desired.Value) { w.Redactor.AddValue(v) },
		applied: known.Applied != "", interrupt: interrupt, recorder: recorder,
	}
	if healing {
		options.mayApply = func(n *desired.Node) bool {
			_, ok := w.Reconcilers[n.Component.Kind].(reconcilers.RollsBack)
			return ok && known.Applied != "" // before the first success there is nothing to keep
		}
	}
	options.onChange = func(n Node) { w.noteNode(recorder.id, n) }
	return newPass(options), nil
}

// noteNode tells of a node's change.
func (w *worker) noteNode(run string, n Node) {
	w.mu.Lock()
	if !w.view.Running { // a survey: what it finds is told as a whole, at its end
		w.mu.Unlock()
		return
	}
	told := false
	for i := range w.view.Nodes {
		if old := w.view.Nodes[i]; old.ID == n.ID {
			told = old.State == n.State && old.Message == n.Message
			w.view.Nodes[i] = n
		}
	}
	w.mu.Unlock()
	if !told {
		w.emit(Event{Node: n.ID, Kind: "node", State: string(n.State), Message: n.Message, Run: run, Duration: n.Duration})
	}
}

// stack finds the component that runs the instance's services, and what data it keeps.
func (w *worker) stack(instance *desired.Instance, fleet *desired.Fleet, folders places) (reconcilers.Services, func(context.Context) ([]string, error)) {
	var (
		services reconcilers.Services = noServices{}
		keepers  []func(context.Context) ([]string, error)
	)
	for _, component := range instance.Components {
		engine := w.Reconcilers[component.Kind]
		target := reconcilers.Target{
			Instance: instance, Component: component, Fleet: fleet, SourceDir: folders.source, Log: w.log,
			ProjectDir: folders.project, SecretsDir: folders.secrets, Scope: instance.Scope(nil, desired.Builtins{ProjectDir: folders.project, SecretsDir: folders.secrets}),
		}
		if finder, ok := engine.(reconcilers.ServiceFinder); ok {
			services = finder.Services(target)
		}
		if keeper, ok := engine.(reconcilers.DataKeeper); ok {
			keepers = append(keepers, func(ctx context.Context) ([]string, error) { return keeper.Data(ctx, target) })
		}
	}
	return services, func(ctx context.Context) ([]string, error) {
		var all []string
		for _, data := range keepers {
			found, err := data(ctx)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
		return all, nil
	}
}

// conclude turns the end of a pass into state, status and the time of the next one.
func (w *worker) conclude(ctx context.Context, known state.Instance, next, work *assignment, healing bool, p *pass, recorder *run) time.Duration {
	if interrupted(ctx) && !recorder.open {
		return 0 // nothing was begun; what was told before still holds
	}
	outcome, message := p.outcome(ctx)
	rejected := rejection(p)
	now := w.Clock.Now()
	w.counters.rounds.WithLabelValues(w.name, string(outcome)).Inc()
	w.counters.took.WithLabelValues(w.name).Observe(now.Sub(p.began).Seconds())
	known.Attempted, known.Updated = next.revision.Commit, now
	switch {
	case rejected != nil && !healing:
		known.Rejected = &state.Rejection{Revision: next.revision.Commit, Reason: rejected.Message, Since: now}
		w.keepRejection(ctx, rejectionDetail{Digest: next.instance.Digest, Logs: rejected.Logs})
	case outcome == state.Done && !healing:
		known.Applied, known.AppliedDigest, known.Rejected = next.revision.Commit, next.instance.Digest, nil
	case outcome == state.Done:
		outcome, message = state.Failed, known.Rejected.Reason
	}
	w.see(func(v *view) { v.Nodes, v.State, v.Running = p.views(), known, false })
	if recorder.open {
		w.finishRun(recorder, outcome, message)
	}
	if interrupted(ctx) && rejected == nil { // a rejection is kept in any case: what was put back is not to be tried again
		return 0
	}
	w.publish(context.WithoutCancel(ctx), known, next, p, nil)
	switch {
	case rejected != nil && !healing:
		w.rouse("rejected") // back to what was applied, at once
		return 0
	case healing || outcome == state.Done || outcome == state.Blocked:
		w.backoff.reset()
		return w.resync()
	case outcome == state.Waiting:
		w.backoff.reset()
		if again := p.again(); again > 0 {
			return again
		}
	}
	return w.backoff.next()
}

// interrupted says whether something else takes the place of the round that ctx belongs to.
func interrupted(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return errors.Is(cause, errSuperseded) || errors.Is(cause, errDraining) || errors.Is(cause, errSuspended)
}

func rejection(p *pass) *Node {
	for _, view := range p.views() {
		if view.State == NodeRejected {
			return &view
		}
	}
	return nil
}

// unread is the end of a round that could not read the state. It writes none: what is there is more than it knows.
func (w *worker) unread(ctx context.Context, err error) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	err = fmt.Errorf("cannot read the agent's state: %w", err)
	w.log.Error("the instance cannot be worked on", "error", err)
	w.see(func(v *view) { v.Err = err })
	return w.backoff.next()
}

// unable is the end of a round that never came to its graph.
func (w *worker) unable(ctx context.Context, known state.Instance, next *assignment, err error) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	w.log.Error("the instance cannot be worked on", "error", w.Redactor.String(err.Error()))
	known.Attempted = next.revision.Commit
	w.see(func(v *view) { v.Err, v.Assignment, v.State = err, next, known })
	w.publish(ctx, known, next, nil, err)
	if stateOf(err) == NodeBlocked {
		return w.resync()
	}
	return w.backoff.next()
}

func (w *worker) finishRun(r *run, outcome state.Outcome, message string) {
	ctx, cancel := context.WithTimeout(context.Background(), storeLimit)
	defer cancel()
	message = strings.TrimSpace(w.Redactor.String(message))
	if err := w.Store.Update(ctx, func(tx state.Tx) error {
		return tx.FinishRun(r.id, w.Clock.Now(), outcome, message)
	}); err != nil {
		w.log.Error("cannot record the end of a run", "run", r.id, "error", err)
	}
	w.emit(Event{Kind: "run", State: string(outcome), Message: message, Run: r.id})
}

func (w *worker) resync() time.Duration {
	if w.Options.Resync > 0 {
		return w.Options.Resync
	}
	return 5 * time.Minute
}
