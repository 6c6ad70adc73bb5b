package compose

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// archiveFolder is where what a volume held is kept when it is replaced: one folder for each volume of that name that ever was.
func (st *sharedState) archiveFolder(have *volume.Volume) string {
	return filepath.Join(st.target.Dir, "archives", strings.ReplaceAll(have.CreatedAt, ":", ""))
}

// archiveStep writes what a volume holds to an archive, before the step that replaces it. Its services are stopped for that, and
// stay so until they are made anew; where it fails nothing is removed, and they are started again.
func (st *sharedState) archiveStep(have *volume.Volume) step {
	return step{
		change: reconcilers.Change{
			Action: reconcilers.Run, Address: "archive of volume " + have.Name, Reason: "it is going to be replaced",
		},
		do: func(ctx context.Context, r *Reconciler) error {
			if err := r.archiveUsed(ctx, have.Name, st.archiveFolder(have), st.model.images()); err != nil {
				return fmt.Errorf("archive volume %s, nothing was removed: %w", have.Name, r.redacted(err))
			}
			return nil
		},
	}
}

// archiveUsed stops the containers that mount a volume and writes what it holds to <folder>/<name>.tar.gz. One that was
// archived and has not been written to since is left as it is.
func (r *Reconciler) archiveUsed(ctx context.Context, name, folder string, images []string) error {
	list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("volume", name)})
	if err != nil {
		return err
	}
	written := false
	for _, c := range list.Items {
		written = written || c.State == container.StateRunning || c.State == container.StateRestarting
	}
	if _, err := archived(folder, name); err == nil && !written {
		return nil
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	var from source
	for _, c := range list.Items {
		if err := r.stopWhole(ctx, c.ID); err != nil {
			return fmt.Errorf("stop container %s: %w", containerName(c), err)
		}
		for _, m := range c.Mounts {
			if m.Name == name {
				from = source{c.ID, m.Destination}
			}
		}
	}
	if from.container == "" {
		if from, err = r.readerOf(ctx, name, images); err != nil {
			return err
		}
		defer func() {
			_, _ = r.engine.ContainerRemove(context.WithoutCancel(ctx), from.container, client.ContainerRemoveOptions{Force: true})
		}()
	}
	return r.archiveVolume(ctx, folder, name, from)
}

// stopWhole stops a container in its own time, also when the call is cancelled meanwhile.
func (r *Reconciler) stopWhole(ctx context.Context, id string) error {
	if err := r.preStop(ctx, id); err != nil {
		return err
	}
	safe, cancel := begun(ctx, mutationLimit)
	defer cancel()
	_, err := r.engine.ContainerStop(safe, id, client.ContainerStopOptions{})
	return err
}

// readerOf makes a container that mounts the volume and never runs, of an image that the host has.
func (r *Reconciler) readerOf(ctx context.Context, name string, images []string) (source, error) {
	for _, image := range images {
		if found, err := r.engine.ImageInspect(ctx, image); err == nil {
			id, err := r.reader(ctx, found.ID, nil, name)
			return source{id, "/volume"}, err
		}
	}
	return source{}, fmt.Errorf("no container mounts it, and the host has no image of the stack to read it with")
}
