package compose

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// asked is a question to the engine that is asked once in a survey.
type asked struct{ what, about string }

// projectContainers lists the containers of a project, those too that do not run.
func (r *Reconciler) projectContainers(ctx context.Context, project string) ([]container.Summary, error) {
	return reconcilers.Once(ctx, asked{"containers", project}, func() ([]container.Summary, error) {
		list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: projectFilter(project)})
		if err != nil {
			return nil, fmt.Errorf("list the project's containers: %w", err)
		}
		return list.Items, nil
	})
}

// serviceContainers lists the containers of a service, those too that do not run.
func (r *Reconciler) serviceContainers(ctx context.Context, project, service string) (list []container.Summary, err error) {
	if reconcilers.InSurvey(ctx) {
		list, err = r.projectContainers(ctx, project)
	} else {
		var asked client.ContainerListResult
		asked, err = r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: projectFilter(project, api.ServiceLabel+"="+service)})
		list = asked.Items
	}
	if err != nil {
		return nil, fmt.Errorf("list containers of service %s: %w", service, err)
	}
	var own []container.Summary
	for _, item := range list {
		if item.Labels[api.ServiceLabel] == service {
			own = append(own, item)
		}
	}
	return own, nil
}

// allContainers lists the containers of all Compose projects of the host, by their IDs.
func (r *Reconciler) allContainers(ctx context.Context) ([]container.Summary, error) {
	return reconcilers.Once(ctx, asked{what: "containers"}, func() ([]container.Summary, error) {
		list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", api.ProjectLabel)})
		if err != nil {
			return nil, fmt.Errorf("list this host's containers: %w", err)
		}
		slices.SortFunc(list.Items, func(a, b container.Summary) int { return strings.Compare(a.ID, b.ID) })
		return list.Items, nil
	})
}

// allNetworks lists the networks of the host.
func (r *Reconciler) allNetworks(ctx context.Context) ([]network.Summary, error) {
	return reconcilers.Once(ctx, asked{what: "networks"}, func() ([]network.Summary, error) {
		list, err := r.engine.NetworkList(ctx, client.NetworkListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list networks: %w", err)
		}
		return list.Items, nil
	})
}

// allVolumes gives the volumes of the host by their names.
func (r *Reconciler) allVolumes(ctx context.Context) (map[string]volume.Volume, error) {
	return reconcilers.Once(ctx, asked{what: "volumes"}, func() (map[string]volume.Volume, error) {
		list, err := r.engine.VolumeList(ctx, client.VolumeListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list volumes: %w", err)
		}
		found := map[string]volume.Volume{}
		for _, v := range list.Items {
			found[v.Name] = v
		}
		return found, nil
	})
}

// lookAtVolume gives a volume; false when the host has none of that name.
func (r *Reconciler) lookAtVolume(ctx context.Context, name string) (volume.Volume, bool, error) {
	if reconcilers.InSurvey(ctx) {
		all, err := r.allVolumes(ctx)
		v, ok := all[name]
		return v, ok, err
	}
	have, err := r.engine.VolumeInspect(ctx, name, client.VolumeInspectOptions{})
	if errdefs.IsNotFound(err) {
		return volume.Volume{}, false, nil
	}
	if err != nil {
		return volume.Volume{}, false, fmt.Errorf("inspect volume %s: %w", name, err)
	}
	return have.Volume, true, nil
}

// inspectImage gives an image of the host.
func (r *Reconciler) inspectImage(ctx context.Context, name string) (client.ImageInspectResult, error) {
	return reconcilers.Once(ctx, asked{"image", name}, func() (client.ImageInspectResult, error) { return r.engine.ImageInspect(ctx, name) })
}
