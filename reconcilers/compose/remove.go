package compose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

var _ reconcilers.Remover = (*Reconciler)(nil)

// Trace is reconcilers.Remover: the project's name finds all that is its own by the engine's labels.
func (r *Reconciler) Trace(t reconcilers.Target) (string, error) {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok {
		return "", fmt.Errorf("component %s is not of kind %s", t.Component.Name, Kind.Name)
	}
	return spec.projectName(t.Instance.Name, t.Scope)
}

// Remove is reconcilers.Remover: containers stop in the reverse of the order in which their services came about. Volumes are
// removed only when each of them was archived.
func (r *Reconciler) Remove(ctx context.Context, order reconcilers.Removal, progress reconcilers.Progress) error {
	t := &taking{Reconciler: r, order: order, progress: progress}
	steps := []func(context.Context) error{t.stop}
	if order.Destroy {
		if order.Archive != "" {
			steps = append(steps, t.archive)
		}
		steps = append(steps, t.containers, t.networks)
		if order.Archive != "" {
			steps = append(steps, t.volumes)
		}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return away(r.engine, err)
		}
	}
	return nil
}

// taking is the removal of one project.
type taking struct {
	*Reconciler
	order    reconcilers.Removal
	progress reconcilers.Progress
}

// do makes one change, announced before anything is touched, and ended once it has begun.
func (t *taking) do(ctx context.Context, action reconcilers.Action, address, reason string, act func(context.Context) error) error {
	change := reconcilers.Change{Action: action, Address: address, Reason: reason}
	if err := t.progress.Begin(ctx, change); err != nil {
		return err
	}
	ctx, cancel := begun(ctx, mutationLimit)
	defer cancel()
	err := act(ctx)
	if errdefs.IsNotFound(err) { // somebody else was quicker
		err = nil
	}
	t.progress.End(change, err)
	if err != nil {
		return fmt.Errorf("%s %s: %w", action, address, err)
	}
	return nil
}

// list gives the project's containers, in the order in which they are to stop.
func (t *taking) list(ctx context.Context) ([]container.Summary, error) {
	list, err := t.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: projectFilter(t.order.Trace)})
	if err != nil {
		return nil, fmt.Errorf("list the containers of project %s: %w", t.order.Trace, err)
	}
	place := func(c container.Summary) int { return slices.Index(t.order.Parts, c.Labels[api.ServiceLabel]) }
	slices.SortStableFunc(list.Items, func(a, b container.Summary) int {
		return cmp.Or(cmp.Compare(place(b), place(a)), cmp.Compare(containerName(a), containerName(b)))
	})
	return list.Items, nil
}

// stop stops the containers one after the other. One that the engine would start again by itself is told not to be.
func (t *taking) stop(ctx context.Context) error {
	containers, err := t.list(ctx)
	if err != nil {
		return err
	}
	for _, c := range containers {
		if c.State == container.StateExited || c.State == container.StateCreated || c.State == container.StateDead {
			continue
		}
		err := t.do(ctx, reconcilers.Update, "container "+containerName(c), "stop", func(ctx context.Context) error {
			_, err := t.engine.ContainerUpdate(ctx, c.ID, client.ContainerUpdateOptions{RestartPolicy: &container.RestartPolicy{Name: container.RestartPolicyDisabled}})
			if err != nil && !errdefs.IsNotFound(err) { // Podman before 5.1 cannot be told so; there, a container that was stopped stays so
				return err
			}
			if c.State == container.StatePaused {
				if _, err := t.engine.ContainerUnpause(ctx, c.ID, client.ContainerUnpauseOptions{}); err != nil {
					return err
				}
			}
			if err := t.preStop(ctx, c.ID); err != nil {
				t.log.Warn("a container is stopped although a command before its stop failed", "error", err)
			}
			_, err = t.engine.ContainerStop(ctx, c.ID, client.ContainerStopOptions{})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// containers removes them. What they have in volumes without a name goes only when it was archived.
func (t *taking) containers(ctx context.Context) error {
	containers, err := t.list(ctx)
	if err != nil {
		return err
	}
	for _, c := range containers {
		err := t.do(ctx, reconcilers.Delete, "container "+containerName(c), "its instance was removed", func(ctx context.Context) error {
			_, err := t.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: t.order.Archive != ""})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *taking) networks(ctx context.Context) error {
	list, err := t.engine.NetworkList(ctx, client.NetworkListOptions{Filters: projectFilter(t.order.Trace)})
	if err != nil {
		return fmt.Errorf("list the networks of project %s: %w", t.order.Trace, err)
	}
	var problems []error
	for _, n := range list.Items {
		problems = append(problems, t.do(ctx, reconcilers.Delete, "network "+n.Name, "its instance was removed", func(ctx context.Context) error {
			_, err := t.engine.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
			return err
		}))
	}
	return errors.Join(problems...)
}

// volumes removes those of the project, all of which are archived by now.
func (t *taking) volumes(ctx context.Context) error {
	list, err := t.engine.VolumeList(ctx, client.VolumeListOptions{Filters: projectFilter(t.order.Trace)})
	if err != nil {
		return fmt.Errorf("list the volumes of project %s: %w", t.order.Trace, err)
	}
	for _, v := range list.Items {
		if _, err := archived(t.order.Archive, v.Name); err != nil {
			return err
		}
		err := t.do(ctx, reconcilers.Delete, "volume "+v.Name, "archived, and its instance was removed", func(ctx context.Context) error {
			_, err := t.engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
