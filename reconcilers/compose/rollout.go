package compose

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"dive-agent/reconcilers"
)

// rollout carries the changes of a service's replicas out: first what costs nothing that serves, all at once, and then
// batch after batch of those that serve. A replica keeps its record "pending" until all are well: until then each can be
// put back to what it was. Where a rollout stops, wherever that is, the next one goes on.
type rollout struct {
	*Reconciler
	st       *serviceState
	progress reconcilers.Progress

	mu      sync.Mutex
	waiting map[*serviceState]bool // that have not been started yet
	kept    []error                // of replicas that do not work and are kept, by onFailure: continue
}

// applyService makes the changes of a service's plan, each announced before anything is touched.
func (r *Reconciler) applyService(ctx context.Context, st *serviceState, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	applied, err := r.rollOut(ctx, st, p, progress)
	return applied, st.holdsNothingUp(err)
}

func (r *Reconciler) rollOut(ctx context.Context, st *serviceState, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	if len(p.Changes) == 0 {
		return reconcilers.Applied{Facts: st.allFacts()}, nil
	}
	u := &rollout{Reconciler: r, st: st, progress: progress, waiting: map[*serviceState]bool{}}
	batches := st.batches()
	for _, batch := range batches {
		for _, replica := range batch {
			u.waiting[replica] = true
		}
	}
	for i, batch := range batches {
		if i > 0 {
			if err := u.pauseBetween(ctx); err != nil {
				return reconcilers.Applied{}, err
			}
		}
		if err := u.batch(ctx, batch); err != nil {
			return reconcilers.Applied{}, err
		}
	}
	if err := u.commit(ctx); err != nil {
		return reconcilers.Applied{}, err
	}
	for _, replica := range st.replicas() {
		if err := replica.stillFlaps(nil); err != nil {
			u.kept = append(u.kept, replica.several(err))
		}
	}
	if err := u.removeSurplus(ctx); err != nil {
		return reconcilers.Applied{}, err
	}
	return reconcilers.Applied{Facts: st.allFacts()}, errors.Join(u.kept...)
}

// batches are the replicas with a change, in the order in which they are changed. The first batch has those that do not
// serve, or run what is wanted already.
func (st *serviceState) batches() [][]*serviceState {
	var first, serving []*serviceState
	for _, replica := range st.replicas() {
		switch {
		case len(replica.plan().Changes) == 0:
		case len(replica.differs) > 0 && replica.serves():
			serving = append(serving, replica)
		default:
			first = append(first, replica)
		}
	}
	var batches [][]*serviceState
	if len(first) > 0 {
		batches = append(batches, first)
	}
	size := st.policy.parallelism
	if size <= 0 {
		size = len(serving)
	}
	for len(serving) > 0 {
		n := min(size, len(serving))
		batches, serving = append(batches, serving[:n]), serving[n:]
	}
	return batches
}

// pauseBetween waits for the policy's delay.
func (u *rollout) pauseBetween(ctx context.Context) error {
	if u.st.policy.delay <= 0 {
		return nil
	}
	u.progress.Say("waiting %s before the next replicas", u.st.policy.delay)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-u.clock.After(u.st.policy.delay):
		return nil
	}
}

// batch brings some replicas to what is wanted, all at the same time, as one act.
func (u *rollout) batch(ctx context.Context, batch []*serviceState) error {
	changes := make([]reconcilers.Change, len(batch))
	for i, replica := range batch {
		changes[i] = replica.plan().Changes[0]
	}
	if err := u.progress.Begin(ctx, changes...); err != nil {
		return err
	}
	if err := u.st.resume(); err != nil {
		return err
	}
	errs := make([]error, len(batch))
	var wg sync.WaitGroup
	for i, replica := range batch {
		wg.Go(func() {
			if replica.givesUp() {
				errs[i] = u.stopForGood(ctx, replica)
			} else {
				errs[i] = u.bring(ctx, replica, changes[i])
			}
		})
	}
	wg.Wait()
	first := u.judge(ctx, batch, errs)
	for i, replica := range batch {
		var blocked *reconcilers.BlockedError
		if replica.record.Flaps != nil && replica.record.Flaps.GivenUp && errors.As(errs[i], &blocked) { // it is stopped
			errs[i] = nil
		}
		u.progress.End(changes[i], errs[i])
	}
	return first
}

// judge decides what the failures of a batch mean, and gives the error that ends the rollout. A failure that is kept ends
// nothing.
func (u *rollout) judge(ctx context.Context, batch []*serviceState, errs []error) error {
	for _, err := range errs {
		var bad *fault
		if err != nil && (!errors.As(err, &bad) || ctx.Err() != nil) {
			return err
		}
	}
	for i, replica := range batch {
		var bad *fault
		if !errors.As(errs[i], &bad) {
			continue
		}
		err, ends := u.failed(ctx, replica, bad)
		errs[i] = replica.several(err)
		if ends {
			return replica.stillFlaps(errs[i])
		}
		u.kept = append(u.kept, errs[i])
	}
	return nil
}

// started notes that a replica was started; when none is left, so is the service.
func (u *rollout) started(replica *serviceState) {
	u.mu.Lock()
	delete(u.waiting, replica)
	all := len(u.waiting) == 0
	u.mu.Unlock()
	if all {
		u.progress.Started()
	}
}

// commit notes all that was brought: from here on it is what there is to go back to.
func (u *rollout) commit(ctx context.Context) error {
	for _, replica := range u.st.replicas() {
		if replica.made == "" {
			continue
		}
		if err := u.Reconciler.commit(ctx, replica, replica.made); err != nil {
			return err
		}
		replica.made = ""
	}
	return nil
}

// removeSurplus removes the containers beyond the number of replicas, when the others are well.
func (u *rollout) removeSurplus(ctx context.Context) error {
	for i := range u.st.surplus {
		c := &u.st.surplus[i]
		change := u.st.surplusChange(c)
		if err := u.progress.Begin(ctx, change); err != nil {
			return err
		}
		safe, cancel := begun(ctx, u.st.mutationLimit())
		err := u.retire(safe, u.st, c.ID)
		cancel()
		if err == nil {
			err = u.st.forget(numberOf(c.Config.Labels))
		}
		u.progress.End(change, err)
		if err != nil {
			return fmt.Errorf("remove container %s: %w", strings.TrimPrefix(c.Name, "/"), err)
		}
	}
	u.st.surplus = nil
	return nil
}

// failed handles a replica that does not work, by the service's policy. ends says that the rollout is over.
func (u *rollout) failed(ctx context.Context, replica *serviceState, bad *fault) (err error, ends bool) {
	switch {
	case replica.oneShot || replica.known():
	case u.st.policy.onFailure == onFailureContinue:
		return u.keep(ctx, replica, bad), false
	case u.st.policy.onFailure == onFailurePause && u.st.anyGood():
		return u.pause(ctx, replica, bad), true
	}
	return u.putBackAll(ctx, replica, bad), true
}
