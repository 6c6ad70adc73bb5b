package testbed

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// OfProject filters what an engine has by its Compose project.
func OfProject(name string) client.Filters {
	return client.Filters{}.Add("label", "com.docker.compose.project="+name)
}

// Running gives the running containers of a Compose project by service.
func Running(ctx context.Context, engine *client.Client, project string) (map[string]container.Summary, error) {
	list, err := engine.ContainerList(ctx, client.ContainerListOptions{Filters: OfProject(project)})
	if err != nil {
		return nil, err
	}
	found := map[string]container.Summary{}
	for _, c := range list.Items {
		found[c.Labels["com.docker.compose.service"]] = c
	}
	return found, nil
}

// Address is where a running container is reached from its engine's machine: by IP, without a port. It is empty for one that is
// in no network.
func Address(c container.Summary) string {
	if c.NetworkSettings == nil {
		return ""
	}
	for _, n := range c.NetworkSettings.Networks {
		if n.IPAddress.IsValid() { // it is not while the container starts
			return n.IPAddress.String()
		}
	}
	return ""
}

// RemoveProject removes what an engine has of a Compose project: containers, volumes with their data, networks. What
// cannot be removed does not keep it from the rest; the error names each.
func RemoveProject(ctx context.Context, engine *client.Client, name string) error {
	of := OfProject(name)
	var failed []error
	containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: of})
	failed = append(failed, err)
	for _, c := range containers.Items {
		_, err := engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		failed = append(failed, err)
	}
	volumes, err := engine.VolumeList(ctx, client.VolumeListOptions{Filters: of})
	failed = append(failed, err)
	for _, v := range volumes.Items {
		_, err := engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{})
		failed = append(failed, err)
	}
	networks, err := engine.NetworkList(ctx, client.NetworkListOptions{Filters: of})
	failed = append(failed, err)
	for _, n := range networks.Items {
		_, err := engine.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
		failed = append(failed, err)
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("remove project %s: %w", name, err)
	}
	return nil
}
