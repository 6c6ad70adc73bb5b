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

// applyService makes the one change that a service's plan has at most, announced before anything is touched.
func (r *Reconciler) applyService(ctx context.Context, st *serviceState, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	if len(p.Changes) == 0 {
		return reconcilers.Applied{Facts: st.facts()}, nil
	}
	change := p.Changes[0]
	if err := progress.Begin(ctx, change); err != nil {
		return reconcilers.Applied{}, err
	}
	if st.givesUp() {
		err := r.stopForGood(ctx, st)
		var blocked *reconcilers.BlockedError
		if errors.As(err, &blocked) { // it is stopped
			progress.End(change, nil)
		} else {
			progress.End(change, err)
		}
		return reconcilers.Applied{Facts: st.facts()}, err
	}
	applied, err := r.bring(ctx, st, change, progress)
	progress.End(change, err)
	return applied, st.stillFlaps(err)
}

// bring carries the change out, waits until the service is ready, and puts the last good version back when it is not.
func (r *Reconciler) bring(ctx context.Context, st *serviceState, change reconcilers.Change, progress reconcilers.Progress) (reconcilers.Applied, error) {
	if st.lacking != nil {
		return reconcilers.Applied{}, st.lacking
	}
	if err := st.notPulled(); err != nil {
		return reconcilers.Applied{}, err
	}
	if st.imageID == "" {
		return reconcilers.Applied{}, &reconcilers.RejectedError{
			Message: fmt.Sprintf("image %s of service %s is not on this host", st.service.Image, st.name), PutBack: "nothing was changed",
		}
	}
	limit := mutationLimit
	if grace := st.service.StopGracePeriod; grace != nil {
		limit += time.Duration(*grace)
	}
	safe, cancel := begun(ctx, limit)
	defer cancel()
	w, err := r.change(safe, st, change, progress)
	if w != nil {
		defer w.stop()
	}
	if err == nil {
		progress.Started()
		err = r.await(ctx, st, w, progress)
	}
	if err == nil {
		return r.commit(ctx, st, w.id)
	}
	var bad *fault
	if !errors.As(err, &bad) || ctx.Err() != nil {
		return reconcilers.Applied{}, err
	}
	return reconcilers.Applied{}, r.failed(ctx, st, bad, progress)
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
	if st.record.Pending == nil && !st.known() {
		st.record.Pending = &pending{Since: r.clock.Now(), Reason: change.Reason}
		if err := st.record.write(st.recordPath(st.name)); err != nil {
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
	id, err := r.make(ctx, st)
	if err != nil {
		return nil, err
	}
	return r.start(ctx, st, id)
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

// known says whether what is wanted is what was good before, so that nothing new is tried.
func (st *serviceState) known() bool {
	good := st.record.Good
	return good != nil && good.Hash == st.hash && good.Content == st.content && good.ImageID == st.imageID
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
func (r *Reconciler) make(ctx context.Context, st *serviceState) (string, error) {
	if err := r.lacksVolume(ctx, st); err != nil {
		return "", err
	}
	if st.container == nil && st.known() {
		if g, err := st.readGood(); err == nil && g != nil && g.Name == st.wantName {
			if id, err := r.recreate(ctx, g); err == nil {
				return id, nil
			}
		}
	}
	if st.container != nil {
		if err := r.preStop(ctx, st.container.ID); err != nil {
			return "", err
		}
	}
	project, err := st.model.narrowed(st.name)
	if err != nil {
		return "", err
	}
	service := project.Services[st.name]
	service.PullPolicy = types.PullPolicyNever
	service.CustomLabels = service.CustomLabels.Add(contentLabel, st.content)
	if err := withHooks(&service); err != nil {
		return "", err
	}
	project.Services[st.name] = service
	err = r.create(ctx, project, st.container != nil)
	if err != nil {
		return "", r.createError(st, err)
	}
	c, err := r.engine.ContainerInspect(ctx, st.wantName, client.ContainerInspectOptions{})
	if err != nil {
		return "", fmt.Errorf("find the container that was made for service %s: %w", st.name, err)
	}
	return c.Container.ID, nil
}

// createError sorts what the SDK says: a definition that the engine refuses is a fault, all else is tried again.
func (r *Reconciler) createError(st *serviceState, err error) error {
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
	case st.completed():
	default:
		if err = errors.Join(st.starts(id), r.inject(ctx, id, st.injections())); err == nil {
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
func (r *Reconciler) commit(ctx context.Context, st *serviceState, id string) (reconcilers.Applied, error) {
	ctx, cancel := begun(ctx, mutationLimit)
	defer cancel()
	result, err := r.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return reconcilers.Applied{}, fmt.Errorf("inspect container %s: %w", st.wantName, err)
	}
	c := &result.Container
	if err := st.keepGood(c); err != nil {
		return reconcilers.Applied{}, err
	}
	st.record.Pending, st.record.Refused = nil, ""
	st.container, st.differs, st.extras = c, nil, nil
	if err := st.note(c); err != nil {
		return reconcilers.Applied{}, err
	}
	return reconcilers.Applied{Facts: st.facts()}, nil
}

// failed handles a container that does not work: what was good before is put back, when there is something else.
func (r *Reconciler) failed(ctx context.Context, st *serviceState, bad *fault, progress reconcilers.Progress) error {
	logs := r.tail(ctx, st)
	if st.oneShot || st.known() {
		return fmt.Errorf("%w%s", errors.Join(bad, st.noteEnd(r.clock.Now(), bad)), quoted(logs))
	}
	if st.endedLike(r.clock.Now(), bad) {
		return fmt.Errorf("%w, as it did before it was changed%s", bad, quoted(logs))
	}
	rejected := &reconcilers.RejectedError{Message: bad.message, Err: bad.err, Logs: logs}
	good, err := st.readGood()
	if err != nil || good == nil {
		rejected.PutBack, rejected.Stays = "there is no earlier version to put back", true
		return rejected
	}
	if st.untouched(ctx, r) {
		rejected.PutBack = "nothing was changed"
		st.record.Pending = nil
		return errors.Join(rejected, st.record.write(st.recordPath(st.name)))
	}
	progress.Say("%s; putting back %s", bad.message, good.Config.Image)
	if err := r.putBack(ctx, st, good, progress); err != nil {
		if same := (*fault)(nil); errors.As(err, &same) { // what is wrong is around the service: the revision is not to blame
			return fmt.Errorf("%w; put back, what ran before does not work any more either%s", bad, quoted(logs))
		}
		rejected.PutBack = fmt.Sprintf("putting back %s failed: %v", good.Config.Image, err)
		return rejected
	}
	if mark := st.record.Good; mark != nil && mark.Written == st.written() && mark.ImageID == st.imageID {
		// The revision is what it was when the service was ready: a new output or secret is what does not work yet.
		return fmt.Errorf("%w; put back to what ran before%s", bad, quoted(logs))
	}
	rejected.PutBack = "put back to " + good.Config.Image
	return rejected
}

// untouched says whether the container of before still runs: the engine refused to make a new one.
func (st *serviceState) untouched(ctx context.Context, r *Reconciler) bool {
	if st.container == nil || len(st.differs) == 0 || st.record.Good == nil || st.record.Good.Container != st.container.ID {
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
