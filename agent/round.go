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

// round is one round over an instance, made by the worker's goroutine. Whoever cancels it has made the next one due: it
// ends at its next safe point and leaves the rest to that one.
type round struct {
	*worker
	trigger   string
	interrupt <-chan struct{} // closed when its waits should end
	known     state.Instance  // by the state; publish keeps what the round adds to it
	next      *assignment     // what is declared
	work      *assignment     // what is brought about: next, or what was applied last while next is rejected
	asked     bool            // a person wants what was given up to be tried again
	healing   bool            // next is rejected, and what was applied last is kept as it was
	record    *run
}

// carryOut brings the instance as far as it gets now and says when to look again (0: only when something wakes it).
func (r *round) carryOut(ctx context.Context) time.Duration {
	r.mu.Lock()
	next, removed := r.assigned, r.removed
	r.mu.Unlock()
	if next == nil && !removed {
		return 0
	}
	r.next, r.work = next, next
	var err error
	if r.known, err = r.recall(ctx); err != nil {
		return r.unread(ctx, err)
	}
	r.see(func(v *view) { v.State, v.Assignment, v.Err = r.known, next, nil })
	if err := r.foreignTo(r.declaredHost()); err != nil {
		r.watchNothing()
		return r.unable(ctx, err)
	}
	r.identifyAgain()
	if removed {
		return r.leave(ctx)
	}
	if err := r.bind(ctx); err != nil {
		return r.unable(ctx, err)
	}
	if r.known.Suspended != nil {
		return r.rest(ctx)
	}
	if err := r.takeBack(ctx); err != nil {
		return r.unable(ctx, err)
	}
	retry := r.takeRetry()
	r.asked = retry
	if r.healing = r.rejected() && !retry; !r.healing {
		r.known.Rejected = nil // another content, or a person asked
	} else if r.work, err = r.lastApplied(); err != nil {
		return r.unable(ctx, err)
	}
	return r.pass(ctx)
}

// takeRetry says whether a person asked to try a rejected revision again, and forgets it.
func (r *round) takeRetry() (asked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked, r.retry = r.retry, false
	return asked
}

// rest is a round over an instance that is suspended, or whose manifest is gone: what runs keeps running, and the status
// says so. That of a suspended one goes on being written as the heartbeat: others may use what it published.
func (r *round) rest(ctx context.Context) time.Duration {
	r.watchNothing()
	r.publish(ctx, nil, nil)
	if r.known.Suspended != nil && r.next != nil {
		return heartbeat
	}
	return 0
}

// leave is a round over an instance that is not declared here any more. What runs is kept where it moved to another host or
// is suspended, and where its manifest did not say anything else.
func (r *round) leave(ctx context.Context) time.Duration {
	r.mu.Lock()
	moved := r.movedTo != ""
	r.mu.Unlock()
	if moved || r.known.Suspended != nil {
		return r.rest(ctx)
	}
	r.watchNothing()
	err := r.takeAway(ctx)
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		return r.unable(ctx, err)
	}
	return r.rest(ctx)
}

// pass makes a pass over the graph once nobody else changes the instance.
func (r *round) pass(ctx context.Context) time.Duration {
	release, err := r.reserve(r.name)
	if err != nil {
		again := r.unable(ctx, err)
		if stateOf(err) == NodeWaiting {
			r.backoff.reset()
			again = reserveAgain
		}
		return again
	}
	defer release()
	return r.reserved(ctx)
}

// reserved makes one pass over the graph, and those that go on from it at once, with the right to change the instance in hand.
func (r *round) reserved(ctx context.Context) time.Duration {
	id, err := r.IDs.New()
	if err != nil {
		return r.unable(ctx, err)
	}
	r.record = &run{worker: r.worker, id: id, commit: r.work.revision.Commit, trigger: r.trigger}
	r.see(func(v *view) { v.Run, v.Since, v.Trigger, v.State = id, r.Clock.Now(), r.trigger, r.known })
	p, err := r.prepare(ctx)
	if err != nil {
		return r.unable(ctx, err)
	}
	r.watch(p)
	if p.survey(ctx) && ctx.Err() == nil {
		if err := r.record.start(ctx); err != nil {
			return r.unable(ctx, fmt.Errorf("cannot record the run: %w", err))
		}
		looks := r.failedBefore(ctx)
		r.see(func(v *view) { v.Running, v.Looks, v.Nodes, v.Seen = true, looks, p.views(), r.Clock.Now() })
		r.emit(Event{Kind: "run", State: "begin", Message: r.work.revision.Short() + " (" + r.trigger + ")", Run: id})
		goesOn := func() {
			r.see(func(v *view) { v.Looks = false })
			r.publish(ctx, p, nil)
		}
		if r.record.began = goesOn; !looks {
			r.record.once.Do(goesOn)
		}
		p.apply(ctx)
	} else {
		p.settle(ctx)
	}
	return r.conclude(ctx, p)
}

// failedBefore says whether what is told of the instance is that this revision does not work, or waits for somebody. A
// run that only looks whether that is still so is no news.
func (r *round) failedBefore(ctx context.Context) (failed bool) {
	err := r.Store.View(ctx, func(reader state.Reader) error {
		last, err := lastStatus(reader, r.name)
		failed = err == nil && last != nil && last.Phase.Failing() && last.Attempted == r.next.revision.Commit
		return err
	})
	return err == nil && failed
}

// prepare makes all that a pass needs: folders, secrets, scope, services.
func (r *round) prepare(ctx context.Context) (*pass, error) {
	instance := r.work.instance
	folders, err := placesOf(r.Dir, r.name, sourceOf(r.work))
	if err != nil {
		return nil, err
	}
	if err := r.keepRemoval(folders); err != nil {
		return nil, err
	}
	services, data := r.stack(instance, r.work.fleet, folders)
	found, err := r.Secrets.Ensure(ctx, instance, SecretsQuery{
		Dir: folders.secrets, Source: folders.source, All: strings.Contains(r.trigger, "sync"), HasData: data,
	})
	if err != nil {
		return nil, err
	}
	scope, known, err := r.scopeOf(ctx, instance, folders, found.Values)
	if err != nil {
		return nil, err
	}
	r.tellSecrets(found)
	options := passOptions{
		fleet: r.work.fleet, instance: instance, places: folders, reconcilers: r.Reconcilers, services: services,
		scope: scope, secrets: found.Values, imported: known,
		clock: r.Clock, log: r.log.With("run", r.record.id), redact: r.Redactor.String, learn: r.learn,
		applied: r.known.Applied != "", interrupt: r.interrupt, recorder: r.record, retry: r.asked,
		fresh: strings.Contains(r.trigger, triggerVerify),
	}
	if r.healing {
		options.mayApply = func(n *desired.Node) bool {
			_, ok := r.Reconcilers[n.Component.Kind].(reconcilers.RollsBack)
			return ok && r.known.Applied != "" // before the first success there is nothing to keep
		}
	}
	options.onChange = func(n Node) { r.noteNode(r.record.id, n) }
	options.looked = func(node string, took time.Duration) {
		r.counters.looks.WithLabelValues(r.name, node).Observe(took.Seconds())
	}
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

// stack finds the components that run the instance's services, and what data they keep.
func (w *worker) stack(instance *desired.Instance, fleet *desired.Fleet, folders places) (reconcilers.Services, func(context.Context) ([]string, error)) {
	services := stacks{graph: instance.Graph, of: map[string]reconcilers.Services{}}
	var keepers []func(context.Context) ([]string, error)
	scope := instance.Scope(nil, folders.builtins())
	for _, component := range instance.Components {
		engine := w.Reconcilers[component.Kind]
		target := folders.target(fleet, instance, component, scope)
		target.Log = w.log
		if finder, ok := engine.(reconcilers.ServiceFinder); ok {
			services.of[component.Name] = finder.Services(target)
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
func (r *round) conclude(ctx context.Context, p *pass) time.Duration {
	if interrupted(ctx) && !r.record.open {
		return 0 // nothing was begun; what was told before still holds
	}
	outcome, message := p.outcome(ctx)
	rejected := rejection(p)
	goOn := false // with a secret that has another value now
	now := r.Clock.Now()
	r.counters.rounds.WithLabelValues(r.name, string(outcome)).Inc()
	r.counters.took.WithLabelValues(r.name).Observe(now.Sub(p.began).Seconds())
	r.known.Attempted, r.known.Updated = r.next.revision.Commit, now
	told := rejected != nil && !r.healing && r.toldBefore(ctx, rejected)
	switch {
	case rejected != nil && !r.healing:
		r.known.Rejected = &state.Rejection{Revision: r.next.revision.Commit, Reason: rejected.Message, Since: now}
		detail := rejectionDetail{Digest: r.next.instance.Digest, Logs: rejected.Logs, Node: rejected.ID, Stays: rejected.Stays}
		if rejected.Again {
			detail.Again = now.Add(r.backoff.next())
		}
		r.keepRejection(ctx, detail)
	case p.achieved(ctx) && !r.healing:
		goOn = outcome == state.Done && r.forget(ctx, p)
		if before := (readyRevision{r.known.Applied, r.known.AppliedDigest}); before.Revision != "" && before.Digest != r.next.instance.Digest {
			if err := r.Store.Update(context.WithoutCancel(ctx), func(tx state.Tx) error { return keepFormer(tx, r.name, before) }); err != nil {
				r.log.Error("cannot keep what was ready before", "error", err)
			}
		}
		r.known.Applied, r.known.AppliedDigest, r.known.Rejected = r.next.revision.Commit, r.next.instance.Digest, nil
	case outcome == state.Done:
		outcome, message = state.Failed, r.known.Rejected.Reason
	}
	r.see(func(v *view) {
		v.Nodes, v.Seen, v.State, v.Running, v.Looks = p.views(), now, r.known, goOn, v.Looks && goOn
	})
	if r.record.open {
		r.record.finish(outcome, message)
	}
	if interrupted(ctx) && rejected == nil { // a rejection is kept in any case: what was put back is not to be tried again
		return 0
	}
	if goOn {
		return r.reserved(ctx)
	}
	if !told {
		r.publish(ctx, p, nil)
	}
	switch {
	case rejected != nil && !r.healing:
		r.rouse("rejected") // back to what was applied, at once
		return 0
	case r.gotWell(p):
		r.mu.Lock()
		r.retry = true
		r.mu.Unlock()
		return r.backoff.next() // should it be rejected all the same, ever later
	case r.healing:
		return r.untilAgain(now)
	case outcome == state.Done || outcome == state.Blocked:
		r.backoff.reset()
		return r.resync()
	case outcome == state.Waiting:
		r.backoff.reset()
		if again := p.again(); again > 0 {
			return min(again, r.resync())
		}
	}
	return r.backoff.next()
}

// interrupted says whether something else takes the place of the round that ctx belongs to.
func interrupted(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return errors.Is(cause, errSuperseded) || errors.Is(cause, errDraining) || errors.Is(cause, errSuspended)
}

// unread is the end of a round that could not read the state. It writes none: what is there is more than it knows.
func (r *round) unread(ctx context.Context, err error) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	err = fmt.Errorf("cannot read the agent's state: %w", err)
	r.log.Error("the instance cannot be worked on", "error", err)
	r.see(func(v *view) { v.Err = err })
	return r.backoff.next()
}

// unable is the end of a round that never came to its graph.
func (r *round) unable(ctx context.Context, err error) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	r.log.Debug("the instance cannot be worked on", "error", r.Redactor.String(err.Error())) // its status tells the log once
	if r.next != nil {                                                                       // else its manifest went before this agent began
		r.known.Attempted = r.next.revision.Commit
	}
	r.see(func(v *view) { v.Err, v.Assignment, v.State = err, r.next, r.known })
	r.publish(ctx, nil, err)
	var blocked *reconcilers.BlockedError
	if errors.As(err, &blocked) && blocked.Reason == reasonNotFound { // what a server did not give it may give soon
		return min(r.backoff.next(), r.resync())
	}
	if stateOf(err) == NodeBlocked {
		return r.resync()
	}
	return r.backoff.next()
}

// resync is when an instance that waits for nothing is looked at again: in time for the secrets that come from elsewhere.
func (w *worker) resync() time.Duration {
	again := w.Options.Resync
	if again <= 0 {
		again = 5 * time.Minute
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.assigned == nil {
		return again
	}
	for _, spec := range w.assigned.instance.Secrets {
		if spec.Source != nil {
			again = min(again, spec.Source.Interval)
		}
	}
	return again
}
