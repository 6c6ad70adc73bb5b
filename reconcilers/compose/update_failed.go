package compose

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// anyGood says whether a replica has a version to go back to.
func (st *serviceState) anyGood() bool {
	for _, replica := range st.group() {
		if replica.record.Good != nil {
			return true
		}
	}
	return false
}

// group gives all replicas of the service that this one is of.
func (st *serviceState) group() []*serviceState {
	if st.first != nil {
		return st.first.replicas()
	}
	return st.replicas()
}

// putBackAll handles a replica that does not work: what was good before is put back, at it and at all that were changed
// with it, when there is something else.
func (u *rollout) putBackAll(ctx context.Context, st *serviceState, bad *fault) error {
	logs := u.tail(ctx, st)
	if st.oneShot || st.known() {
		return fmt.Errorf("%w%s", errors.Join(bad, st.noteEnd(u.clock.Now(), bad)), quoted(logs))
	}
	if st.endedLike(u.clock.Now(), bad) {
		return fmt.Errorf("%w, as it did before it was changed%s", bad, quoted(logs))
	}
	rejected := &reconcilers.RejectedError{Message: bad.message, Err: bad.err, Logs: logs}
	image := st.goodImage()
	if image == "" {
		rejected.PutBack, rejected.Stays = "there is no earlier version to put back", true
		return rejected
	}
	others := u.changed(st)
	if st.untouched(ctx, u.Reconciler) && len(others) == 0 {
		rejected.PutBack = "nothing was changed"
		st.record.Pending = nil
		return errors.Join(rejected, st.record.write(st.recordPath(st.name)))
	}
	u.progress.Say("%s; putting back %s", bad.message, image)
	for _, replica := range append([]*serviceState{st}, others...) {
		err := u.back(ctx, replica)
		if err == nil {
			continue
		}
		if same := (*fault)(nil); errors.As(err, &same) { // what is wrong is around the service: the revision is not to blame
			return fmt.Errorf("%w; put back, what ran before does not work any more either%s", bad, quoted(logs))
		}
		rejected.PutBack = fmt.Sprintf("putting back %s failed: %v", image, err)
		return rejected
	}
	if mark := st.record.Good; mark != nil && mark.Written == st.written() && mark.ImageID == st.imageID {
		// The revision is what it was when the service was ready: a new output or secret is what does not work yet.
		return fmt.Errorf("%w; put back to what ran before%s", bad, quoted(logs))
	}
	rejected.PutBack = "put back to " + image
	return rejected
}

// goodImage names the image of the version that there is to go back to, "" when there is none.
func (st *serviceState) goodImage() string {
	for _, replica := range append([]*serviceState{st}, st.group()...) {
		if g, err := replica.readGood(); err == nil && g != nil {
			return g.Config.Image
		}
	}
	return ""
}

// changed are the other replicas that were changed, and may have to be put back: their changes are pending.
func (u *rollout) changed(st *serviceState) []*serviceState {
	var others []*serviceState
	for _, replica := range st.group() {
		if replica != st && replica.record.Pending != nil {
			others = append(others, replica)
		}
	}
	return others
}

// back brings a replica back to its last good version. One that had none goes: it was not there before.
func (u *rollout) back(ctx context.Context, st *serviceState) error {
	st.made = ""
	good, err := st.readGood()
	if err != nil {
		return err
	}
	if good != nil {
		return u.putBack(ctx, st, good, u.progress)
	}
	safe, cancel := begun(ctx, st.mutationLimit())
	defer cancel()
	if err := u.clear(safe, st); err != nil {
		return err
	}
	return st.forget(st.number)
}

// keep leaves a replica that does not work as it is, by onFailure: continue.
func (u *rollout) keep(ctx context.Context, st *serviceState, bad *fault) error {
	logs := u.tail(ctx, st)
	safe, cancel := begun(ctx, mutationLimit)
	defer cancel()
	if result, err := u.engine.ContainerInspect(safe, st.wantName, client.ContainerInspectOptions{}); err == nil {
		c := &result.Container
		st.asDeclared(c)
		st.record.Pending = nil
		if err := st.note(c); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w; it is kept (onFailure: continue)%s", bad, quoted(logs))
}

// paused is an update that ended at a version that does not work, and that goes on with another one.
type paused struct {
	At      time.Time `json:"at"`
	Wanted  string    `json:"wanted"` // digest of what was wanted
	Message string    `json:"message"`
}

// wanted digests what the service is to be.
func (st *serviceState) wanted() string {
	return digestText(st.hash + " " + st.content + " " + st.imageID)
}

// isPaused says whether an update to what is wanted now was paused, and nobody asks to try it again.
func (st *serviceState) isPaused() bool {
	p := st.record.Paused
	return p != nil && p.Wanted == st.wanted() && !st.target.Retry
}

// pausedError tells of it.
func (st *serviceState) pausedError() error {
	return &reconcilers.BlockedError{
		Reason: "UpdatePaused", Message: fmt.Sprintf("the update of service %s is paused: %s", st.name, st.record.Paused.Message),
		Do: "Merge a version that works, or the one of before; to try this one again: dive-agent sync " + st.target.Instance.Name + " --retry",
	}
}

// resume lets an update go on that was paused: something else is wanted now.
func (st *serviceState) resume() error {
	if st.record.Paused == nil {
		return nil
	}
	st.record.Paused = nil
	return st.record.write(st.recordPath(st.name))
}

// pause ends an update by onFailure: pause. Where the old container still serves the new one goes; all that is well stays.
func (u *rollout) pause(ctx context.Context, st *serviceState, bad *fault) error {
	logs := u.tail(ctx, st)
	if u.goodServes(ctx, st) != "" {
		if err := u.back(ctx, st); err != nil {
			return err
		}
	} else if st.record.Pending != nil {
		st.record.Pending = nil
		if err := st.record.write(st.recordPath(st.name)); err != nil {
			return err
		}
	}
	if err := u.commit(ctx); err != nil {
		return err
	}
	first := st.group()[0]
	first.record.Paused = &paused{At: u.clock.Now(), Wanted: st.wanted(), Message: bad.Error() + quoted(logs)}
	if err := first.record.write(first.recordPath(st.name)); err != nil {
		return err
	}
	return first.pausedError()
}

// goodServes gives the ID of the container of the last good version where it still runs, "" where it does not.
func (r *Reconciler) goodServes(ctx context.Context, st *serviceState) string {
	if st.record.Good == nil {
		return ""
	}
	c, err := r.engine.ContainerInspect(context.WithoutCancel(ctx), st.record.Good.Container, client.ContainerInspectOptions{})
	if err != nil || c.Container.State.Status != container.StateRunning {
		return ""
	}
	return c.Container.ID
}
