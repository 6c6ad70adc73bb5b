package compose

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// A replica that starts beside its old container goes through these steps, each of which finds what the one before left,
// also after the agent was killed between any two:
//
//	pending -> new one made, without its names on the networks -> started -> healthy -> gets its names
//	        -> watched -> old one loses its names -> drained -> stopped, removed -> new one gets the container's name -> good
//
// When the new one does not work the old one was not touched yet: it gets its names again if it lost them, and the new one goes.

// overlaps says whether the replica is changed in this way: something serves, and something else is to take its place.
func (st *serviceState) overlaps() bool {
	if !st.policy.startFirst || st.container == nil || st.againstStartFirst() != "" {
		return false
	}
	if len(st.differs) > 0 {
		return st.serves()
	}
	return st.record.Pending != nil && slices.ContainsFunc(st.extras, serving)
}

func serving(c container.InspectResponse) bool {
	return c.State.Running && !c.State.Paused && !c.State.Restarting
}

// overlap brings a replica to what is wanted, while its old container serves.
func (u *rollout) overlap(ctx context.Context, st *serviceState, change reconcilers.Change) error {
	w, err := u.startBeside(ctx, st, change)
	if w != nil {
		defer w.stop()
	}
	if err != nil {
		return err
	}
	u.started(st)
	bad := u.await(ctx, st, w, u.progress)
	if bad == nil {
		if err := u.safely(ctx, st, func(ctx context.Context) error { return u.expose(ctx, st, w.id) }); err != nil {
			return err
		}
		bad = u.monitor(ctx, st, w)
	}
	if bad != nil && !u.goesOn(ctx, bad) {
		return bad
	}
	err = u.safely(ctx, st, func(ctx context.Context) error { return u.takeOver(ctx, st, w.id) })
	if err == nil && bad == nil {
		st.made = w.id
	}
	return errors.Join(err, bad)
}

// goesOn says whether a new container that does not work takes the old one's place all the same.
func (u *rollout) goesOn(ctx context.Context, err error) bool {
	var bad *fault
	return errors.As(err, &bad) && ctx.Err() == nil && u.st.policy.onFailure == onFailureContinue
}

// safely does what is finished once it has begun.
func (u *rollout) safely(ctx context.Context, st *serviceState, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	safe, cancel := begun(ctx, st.mutationLimit()+time.Duration(1+len(st.extras))*(st.drain()+st.grace()))
	defer cancel()
	return do(safe)
}

// startBeside makes the new container, if it is not there yet, and starts it.
func (u *rollout) startBeside(ctx context.Context, st *serviceState, change reconcilers.Change) (w *watched, err error) {
	err = u.safely(ctx, st, func(ctx context.Context) error {
		if err := st.begin(u.clock.Now(), change.Reason); err != nil {
			return err
		}
		if err := st.place(); err != nil {
			return err
		}
		id, err := u.besideID(ctx, st)
		if err != nil {
			return err
		}
		w, err = u.start(ctx, st, id)
		if err == nil || !addressTaken(err) {
			return err
		}
		_, gone := u.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
		return errors.Join(fmt.Errorf("start a container of service %s beside the old one: somebody took its address; it gets another one: %w", st.name, errors.Unwrap(err)), gone)
	})
	return w, err
}

// addressTaken says whether the engine has given the container's address to another one.
func addressTaken(err error) bool {
	var bad *fault
	return errors.As(err, &bad) && bad.err != nil && strings.Contains(bad.err.Error(), "Address already in use")
}

// besideID gives the new container: the one that an interrupted run left, or one that is made now. Containers that neither
// serve nor are wanted go.
func (u *rollout) besideID(ctx context.Context, st *serviceState) (string, error) {
	var serve []container.InspectResponse
	for _, c := range st.extras {
		if serving(c) {
			serve = append(serve, c)
			continue
		}
		if err := u.remove(ctx, c.ID); err != nil {
			return "", fmt.Errorf("remove what an interrupted change left, %s: %w", strings.TrimPrefix(c.Name, "/"), err)
		}
	}
	st.extras = serve
	if len(st.differs) == 0 {
		st.beside = strings.TrimPrefix(st.container.Name, "/")
		return st.container.ID, nil
	}
	u.progress.Say("starting beside the old one: %s", strings.Join(st.differs, "; "))
	if err := u.lacksVolume(ctx, st); err != nil {
		return "", err
	}
	random := make([]byte, 6)
	_, _ = rand.Read(random)
	o := &one{service: st.name, number: st.number, name: st.wantName, beside: hex.EncodeToString(random) + "_" + st.wantName}
	u.addresses.Lock()
	defer u.addresses.Unlock()
	var err error
	if o.hidden, err = u.pickAddresses(ctx, st); err != nil {
		return "", err
	}
	st.beside = o.beside
	if err := u.makeOne(ctx, st, o); err != nil {
		return "", err
	}
	return o.made, nil
}

// takeOver ends all other containers of the replica and gives the new one its name.
func (u *rollout) takeOver(ctx context.Context, st *serviceState, id string) error {
	others := st.extras
	if st.container.ID != id {
		others = append(slices.Clone(others), *st.container)
	}
	for _, c := range others {
		u.progress.Say("the new container serves; ending %s", strings.TrimPrefix(c.Name, "/"))
		if err := u.retire(ctx, st, c.ID); err != nil {
			return fmt.Errorf("end the old container %s: %w", strings.TrimPrefix(c.Name, "/"), err)
		}
	}
	st.beside = ""
	c, err := u.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err == nil && c.Container.Name != "/"+st.wantName {
		_, err = u.engine.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: st.wantName})
	}
	if err != nil {
		return fmt.Errorf("give the new container the name %s: %w", st.wantName, err)
	}
	return nil
}

// drainLimit is how long a container serves on after its names lead elsewhere, before it is told to end: for clients that
// asked for its address just before, and for what they asked of it.
const drainLimit = 3 * time.Second

func (st *serviceState) drain() time.Duration { return min(drainLimit, st.grace()) }

// grace is how long a container may take to end. Docker's default is 10 s.
func (st *serviceState) grace() time.Duration {
	if grace := st.service.StopGracePeriod; grace != nil {
		return time.Duration(*grace)
	}
	return 10 * time.Second
}

// retire takes a container's names away, lets it finish what it has begun, and ends it.
func (r *Reconciler) retire(ctx context.Context, st *serviceState, id string) error {
	result, err := r.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if serving(result.Container) {
		hidden, err := r.hide(ctx, st, &result.Container)
		if err != nil {
			return err
		}
		if hidden {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-r.clock.After(st.drain()):
			}
		}
	}
	return r.remove(ctx, id)
}

// retreat goes back to the old container, which still runs: it gets its names, and all others of the replica go.
func (r *Reconciler) retreat(ctx context.Context, st *serviceState, g *good, id string, progress reconcilers.Progress) error {
	safe, cancel := begun(ctx, st.mutationLimit()+time.Duration(2+len(st.extras))*(st.drain()+st.grace()))
	defer cancel()
	for _, file := range g.Files {
		if err := placeFile(file.Path, file.Content, file.Mode); err != nil {
			return err
		}
	}
	if err := r.exposeBack(safe, st, g, id); err != nil {
		return err
	}
	all, err := r.containersOf(safe, st)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.ID == id || st.service.GetScale() > 1 && numberOf(c.Config.Labels) != st.number || isOneOf(c.ID, st.surplus) {
			continue
		}
		if err := r.retire(safe, st, c.ID); err != nil {
			return fmt.Errorf("remove the container that does not work: %w", err)
		}
	}
	old, err := r.engine.ContainerInspect(safe, id, client.ContainerInspectOptions{})
	if err == nil && old.Container.Name != "/"+st.wantName {
		_, err = r.engine.ContainerRename(safe, id, client.ContainerRenameOptions{NewName: st.wantName})
	}
	if err != nil {
		return fmt.Errorf("give the old container the name %s: %w", st.wantName, err)
	}
	st.beside = ""
	progress.Started()
	return r.noteBack(ctx, st, g, id)
}
