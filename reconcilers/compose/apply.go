package compose

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// mutationLimit bounds a change that has begun: it is finished even when the call is cancelled.
const mutationLimit = 2 * time.Minute

// begun is the context of a change that has begun. A wait for health, which may take longer, is no part of it.
func begun(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

// fault is a new version that does not work: the engine refuses it, it exits, or it is not healthy in time.
type fault struct {
	message string
	ends    bool // its process ends; the engine's events tell the exit code
	err     error
}

func (f *fault) Error() string {
	if f.err != nil {
		return f.message + ": " + f.err.Error()
	}
	return f.message
}

func (f *fault) Unwrap() error { return f.err }

// mutationLimit is the limit of what is done to a container of the service, its end in its own time among it.
func (st *serviceState) mutationLimit() time.Duration {
	limit := mutationLimit
	if grace := st.service.StopGracePeriod; grace != nil {
		limit += time.Duration(*grace)
	}
	return limit
}

// bring carries the change of a replica out, and waits until it is ready and was for as long as it is to be watched. The
// error is a *fault when the new container does not work.
func (u *rollout) bring(ctx context.Context, st *serviceState, change reconcilers.Change) error {
	if st.lacking != nil {
		return st.lacking
	}
	if err := st.notPulled(); err != nil {
		return err
	}
	if st.imageID == "" {
		return &reconcilers.RejectedError{
			Message: fmt.Sprintf("image %s of service %s is not on this host", st.service.Image, st.name), PutBack: "nothing was changed",
		}
	}
	if st.overlaps() {
		return u.overlap(ctx, st, change)
	}
	interrupted := st.record.Pending != nil
	safe, cancel := begun(ctx, st.mutationLimit())
	defer cancel()
	w, err := u.change(safe, st, change, u.progress)
	if w != nil {
		defer w.stop()
	}
	if err != nil {
		return err
	}
	u.started(st)
	if err := u.await(ctx, st, w, u.progress); err != nil {
		return err
	}
	if interrupted { // it may have lost its names to one that was to take its place
		if err := u.safely(ctx, st, func(ctx context.Context) error { return u.expose(ctx, st, w.id) }); err != nil {
			return err
		}
	}
	if err := u.monitor(ctx, st, w); err != nil {
		return err
	}
	st.made = w.id
	return nil
}

// change does all that is needed until the container was told to start. It watches the container from before its start.
func (r *Reconciler) change(ctx context.Context, st *serviceState, change reconcilers.Change, progress reconcilers.Progress) (*watched, error) {
	if err := r.removeExtras(ctx, st); err != nil {
		return nil, err
	}
	id := ""
	if c := st.container; c != nil && len(st.differs) == 0 {
		id = c.ID
		if c.Name != "/"+st.wantName {
			if _, err := r.engine.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: st.wantName}); err != nil {
				return nil, fmt.Errorf("rename container %s: %w", st.wantName, err)
			}
		}
	}
	if !st.known() {
		if err := st.begin(r.clock.Now(), change.Reason); err != nil {
			return nil, err
		}
	}
	if err := st.place(); err != nil {
		return nil, err
	}
	if id != "" {
		w, err := r.start(ctx, st, id)
		if !isGone(err) {
			return w, err
		}
		if w != nil {
			w.stop()
		}
		if err := r.gone(ctx, id); err != nil {
			return nil, err
		}
		st.container = nil
	}
	if st.container != nil {
		progress.Say("replacing: %s", change.Reason)
	}
	o, err := r.make(ctx, st)
	if err != nil {
		return nil, err
	}
	w, err := r.start(ctx, st, o.made)
	if !o.aside {
		return w, err
	}
	if bad := r.remove(ctx, o.replace); bad != nil {
		err = errors.Join(err, fmt.Errorf("remove the old container of service %s, which has ended: %w", st.name, bad))
	}
	return w, err
}

// begin notes a change of which it is not known yet whether it is good.
func (st *serviceState) begin(now time.Time, reason string) error {
	if st.record.Pending != nil {
		return nil
	}
	st.record.Pending = &pending{Since: now, Reason: reason}
	if st.container != nil && st.lead != "" {
		st.record.Pending.Replaces = st.container.ID
	}
	return st.record.write(st.recordPath(st.name))
}

// noteMade notes how a container looks that was made for a pending change, before its first start: what somebody does to it before
// the change is found good is seen by that.
func (st *serviceState) noteMade(c *container.InspectResponse) error {
	p := st.record.Pending
	if p == nil || p.Made == c.ID || c.State.Status != container.StateCreated {
		return nil
	}
	live, err := st.record.live(c)
	if err != nil {
		return fmt.Errorf("digest container %s: %w", st.wantName, err)
	}
	p.Made, p.Wanted, p.Live = c.ID, st.wanted(), live
	return st.record.write(st.recordPath(st.name))
}

// isGone says whether the engine lost the container between our look at it and its start: someone removes it.
func isGone(err error) bool {
	return err != nil && (errdefs.IsNotFound(err) && strings.Contains(err.Error(), "No such container") ||
		strings.Contains(err.Error(), "marked for removal"))
}

// gone waits until a container that is being removed has gone.
func (r *Reconciler) gone(ctx context.Context, id string) error {
	wait := r.engine.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	select {
	case <-wait.Result:
		return nil
	case err := <-wait.Error:
		if errdefs.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("wait until container %s is removed: %w", id[:12], err)
	}
}

// known says whether what is wanted is what was good before, so that nothing new is tried: be it that a tag now leads to an image that
// was tried and did not work.
func (st *serviceState) known() bool {
	good := st.record.Good
	if good == nil && st.first != nil { // one more of what there is
		good = st.first.record.Good
	}
	return good != nil && good.Hash == st.hash && good.Content == st.content &&
		(good.ImageID == st.imageID || st.imageID != "" && st.record.Refused == st.imageID)
}

// removeExtras removes leftovers of a change that was cut off. Volumes stay.
func (r *Reconciler) removeExtras(ctx context.Context, st *serviceState) error {
	for _, c := range st.extras {
		if err := r.remove(ctx, c.ID); err != nil {
			return fmt.Errorf("remove what an interrupted change left, %s: %w", strings.TrimPrefix(c.Name, "/"), err)
		}
	}
	return nil
}

// remove stops a container in its own time and removes it. Its named volumes stay, and its anonymous ones too.
func (r *Reconciler) remove(ctx context.Context, id string) error {
	if err := r.preStop(ctx, id); err != nil {
		r.log.Warn("a container is removed although a command before its stop failed", "error", err)
	}
	if _, err := r.engine.ContainerStop(ctx, id, client.ContainerStopOptions{}); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	_, err := r.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) && strings.Contains(err.Error(), "already in progress") {
		return nil
	}
	return err
}

// make lets the Compose SDK create the container, in place of the one that is there, and finds it. A container that is
// only gone, and was good, is made again as it was, which takes fewer questions to the engine.
func (r *Reconciler) make(ctx context.Context, st *serviceState) (*one, error) {
	o := &one{service: st.name, number: st.number, name: st.wantName}
	if err := r.lacksVolume(ctx, st); err != nil {
		return nil, err
	}
	if st.container == nil && st.known() {
		if g, err := st.readGood(); err == nil && g != nil && g.Name == st.wantName {
			if o.made, err = r.recreate(ctx, g); err == nil || g.ImageID != st.imageID {
				return o, err
			}
		}
	}
	if st.container != nil {
		if err := r.preStop(ctx, st.container.ID); err != nil {
			return nil, err
		}
	}
	if st.container != nil {
		o.replace = st.container.ID
	}
	if err := r.makeOne(ctx, st, o); err != nil {
		return nil, err
	}
	c, err := r.engine.ContainerInspect(ctx, o.made, client.ContainerInspectOptions{})
	if err == nil && c.Container.Name != "/"+st.wantName {
		_, err = r.engine.ContainerRename(ctx, o.made, client.ContainerRenameOptions{NewName: st.wantName})
	}
	if err != nil {
		return nil, fmt.Errorf("find the container that was made for service %s: %w", st.name, err)
	}
	return o, nil
}

// makeOne has the Compose SDK create one container of the service.
func (r *Reconciler) makeOne(ctx context.Context, st *serviceState, o *one) error {
	project, err := st.model.narrowed(st.name)
	if err != nil {
		return err
	}
	service, single := project.Services[st.name], 1
	service.PullPolicy, service.Scale = types.PullPolicyNever, &single
	service.CustomLabels = service.CustomLabels.Add(contentLabel, st.content)
	if err := withHooks(&service); err != nil {
		return err
	}
	project.Services[st.name] = service
	if err := r.create(withOne(ctx, o), project, o.replace != ""); err != nil {
		return r.createError(st, err)
	}
	return nil
}

// createError sorts what the SDK says: a definition that the engine refuses is a fault, all else is tried again.
func (r *Reconciler) createError(st *serviceState, err error) error {
	if errdefs.IsConflict(err) && strings.Contains(err.Error(), "is already in use by") { // since we looked
		return st.nameTaken()
	}
	message := fmt.Sprintf("create the container of service %s", st.name)
	err = r.redacted(err)
	if errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) || errdefs.IsConflict(err) || errdefs.IsNotImplemented(err) {
		return &fault{message: message, err: err}
	}
	return fmt.Errorf("%s: %w", message, err)
}

// start starts a container that does not run. Values of configs and secrets that are no files are copied in first.
// The SDK would start one container at a time in the whole process.
func (r *Reconciler) start(ctx context.Context, st *serviceState, id string) (*watched, error) {
	w, err := r.watch(ctx, id)
	if err != nil {
		return nil, err
	}
	c, err := r.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return w, fmt.Errorf("inspect container %s: %w", st.wantName, err)
	}
	switch state := c.Container.State; {
	case state.Paused:
		_, err = r.engine.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{})
	case state.Running || state.Restarting:
		if parent := st.recreatedParent(); parent != "" && st.record.Container == id {
			if err = r.preStop(ctx, id); err != nil {
				return w, err
			}
			if err = st.starts(id); err == nil {
				_, err = r.engine.ContainerRestart(ctx, id, client.ContainerRestartOptions{})
			}
		}
	case st.completed() && st.container.ID == id: // and not only the one before it
	default:
		if err = errors.Join(st.noteMade(&c.Container), st.starts(id), r.inject(ctx, id, st.injections())); err == nil {
			_, err = r.engine.ContainerStart(ctx, id, client.ContainerStartOptions{})
		}
	}
	if err == nil || errdefs.IsNotModified(err) {
		return w, r.postStart(ctx, st, id)
	}
	message := fmt.Sprintf("start container %s", st.wantName)
	err = r.redacted(err)
	if client.IsErrConnectionFailed(err) || ctx.Err() != nil || isGone(err) {
		return w, fmt.Errorf("%s: %w", message, err)
	}
	if port := takenPort(err.Error()); port != "" {
		return w, &fault{message: fmt.Sprintf("service %s cannot have port %s of this host: another program listens there (ss -ltnp)", st.name, port)}
	}
	return w, &fault{message: message, err: err}
}

// portRefusal matches what engines say of a host port that is not free: of the proxy, of another container, and since 28.
var portRefusal = regexp.MustCompile(`:(\d+)(?:/\w+|:[\d.]+:\d+/\w+)?:? (?:bind: |failed: )?(?:address already in use|port is already allocated)`)

// takenPort gives the host port that the engine could not have, "" when that is not what it says.
func takenPort(said string) string {
	if found := portRefusal.FindStringSubmatch(said); found != nil {
		return found[1]
	}
	return ""
}

// commit notes a service that is ready: how its container looks, and what is needed to make it again.
func (r *Reconciler) commit(ctx context.Context, st *serviceState, id string) error {
	ctx, cancel := begun(ctx, mutationLimit)
	defer cancel()
	result, err := r.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("inspect container %s: %w", st.wantName, err)
	}
	c := &result.Container
	st.asDeclared(c)
	if !st.isGood(c) {
		if err := st.keepGood(c); err != nil {
			return err
		}
	}
	st.record.Pending = nil
	if c.Image == st.imageID {
		st.record.Refused = ""
	}
	st.container, st.differs, st.extras = c, nil, nil
	return st.note(c)
}

// isGood says whether the container is the good one already, and was not made by this change: it was started, unpaused or renamed.
func (st *serviceState) isGood(c *container.InspectResponse) bool {
	good := st.record.Good
	return st.isNoted(c) && good != nil && good.Container == c.ID && st.known() && good.Written == st.written()
}

// untouched says whether the container of before still runs, and no other one: the engine refused to make a new one.
func (st *serviceState) untouched(ctx context.Context, r *Reconciler) bool {
	if st.beside != "" || st.container == nil || len(st.differs) == 0 || st.record.Good == nil || st.record.Good.Container != st.container.ID {
		return false
	}
	c, err := r.engine.ContainerInspect(ctx, st.container.ID, client.ContainerInspectOptions{})
	return err == nil && c.Container.State.Status == container.StateRunning && c.Container.Name == "/"+st.wantName
}

func (r *Reconciler) redacted(err error) error {
	if err == nil {
		return nil
	}
	if text := err.Error(); r.redact(text) != text {
		return &loadError{text: r.redact(text), err: err}
	}
	return err
}
