package compose

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"dive-agent/atomicfile"
	"dive-agent/reconcilers"
)

// An archive is <volume>.tar.gz, 0600, with its SHA-256 beside it as `sha256sum -c` reads it. The sum is written last: a
// volume is archived when both are there. The engine reads the volume through a container that mounts it, which need not run;
// no program and no image is needed for that.

// archiveLimit bounds the reading of one volume.
const archiveLimit = 6 * time.Hour

// archived gives the place of a volume's archive.
func archived(folder, name string) (string, error) {
	file := filepath.Join(folder, name+".tar.gz")
	for _, part := range []string{file, file + ".sha256"} {
		if _, err := os.Stat(part); err != nil {
			return "", fmt.Errorf("volume %s is not archived: %w", name, err)
		}
	}
	return file, nil
}

// source is where a volume can be read.
type source struct{ container, path string }

// archive writes what the project's volumes hold, those without a name included.
func (t *taking) archive(ctx context.Context) error {
	if err := os.MkdirAll(t.order.Archive, 0o700); err != nil {
		return fmt.Errorf("make the folder for archives: %w", err)
	}
	sources, err := t.sources(ctx)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(sources) {
		if _, err := archived(t.order.Archive, name); err == nil {
			continue
		}
		change := reconcilers.Change{Action: reconcilers.Run, Address: "archive of volume " + name, Reason: "it is going to be removed"}
		if err := t.progress.Begin(ctx, change); err != nil {
			return err
		}
		err := t.archiveVolume(ctx, t.order.Archive, name, sources[name])
		t.progress.End(change, err)
		if err != nil {
			return fmt.Errorf("archive volume %s, nothing was removed: %w", name, err)
		}
	}
	return nil
}

// sources finds a container for each volume of the project; for one that none mounts, such a container is made.
func (t *taking) sources(ctx context.Context) (map[string]source, error) {
	containers, err := t.list(ctx)
	if err != nil {
		return nil, err
	}
	list, err := t.engine.VolumeList(ctx, client.VolumeListOptions{Filters: projectFilter(t.order.Trace)})
	if err != nil {
		return nil, fmt.Errorf("list the volumes of project %s: %w", t.order.Trace, err)
	}
	found := map[string]source{}
	ours := func(name string) bool {
		return anonymous(name) || slices.ContainsFunc(list.Items, func(v volume.Volume) bool { return v.Name == name })
	}
	for _, c := range containers {
		for _, m := range c.Mounts {
			if m.Type == mount.TypeVolume && ours(m.Name) {
				found[m.Name] = source{c.ID, m.Destination}
			}
		}
	}
	for _, v := range list.Items {
		if _, there := found[v.Name]; there {
			continue
		}
		if _, err := archived(t.order.Archive, v.Name); err == nil { // its containers have gone already
			continue
		}
		if len(containers) == 0 {
			return nil, fmt.Errorf("volume %s is mounted by no container, and there is none whose image could read it: archive it by hand, and remove it", v.Name)
		}
		id, err := t.reader(ctx, containers[0].ImageID, containers[0].Labels, v.Name)
		if err != nil {
			return nil, err
		}
		found[v.Name] = source{id, "/volume"}
	}
	return found, nil
}

// anonymous says whether the engine made up the volume's name.
func anonymous(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// reader makes a container that mounts the volume and never runs. With the labels of a project it belongs to that, and goes with it.
func (r *Reconciler) reader(ctx context.Context, image string, labels map[string]string, name string) (string, error) {
	made, err := r.engine.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config:     &container.Config{Image: image, Cmd: []string{"true"}, Labels: labels},
		HostConfig: &container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: name, Target: "/volume", ReadOnly: true}}},
	})
	if err != nil {
		return "", fmt.Errorf("make a container that reads volume %s: %w", name, err)
	}
	return made.ID, nil
}

// archiveVolume writes what a volume holds into the folder, and its sum after it.
func (r *Reconciler) archiveVolume(ctx context.Context, folder, name string, from source) error {
	ctx, cancel := context.WithTimeout(ctx, archiveLimit)
	defer cancel()
	copied, err := r.engine.CopyFromContainer(ctx, from.container, client.CopyFromContainerOptions{SourcePath: from.path + "/."})
	if err != nil {
		return err
	}
	defer copied.Content.Close()
	file, sum := filepath.Join(folder, name+".tar.gz"), sha256.New()
	if err := os.Remove(file + ".sha256"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = atomicfile.Stream(file, func(w io.Writer) error {
		packed := gzip.NewWriter(io.MultiWriter(w, sum))
		if _, err := io.Copy(packed, copied.Content); err != nil {
			return err
		}
		return packed.Close()
	})
	if err != nil {
		return err
	}
	line := hex.EncodeToString(sum.Sum(nil)) + "  " + filepath.Base(file) + "\n"
	_, err = atomicfile.Write(file+".sha256", []byte(line), atomicfile.Options{})
	return err
}
