package compose

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

// leavers are two services, the second of which keeps data: in a volume, in one without a name, and one that nothing mounts.
const leavers = `services:
  first:
    image: ${IMAGE}
    command: [sh, -c, "${RUN}"]
    restart: always
    stop_grace_period: 2s
  second:
    image: ${IMAGE}
    command: [sh, -c, "echo kept > /data/file; echo unnamed > /cache/file; ${RUN}"]
    restart: unless-stopped
    stop_grace_period: 2s
    volumes: ["data:/data", "/cache"]
volumes:
  data: {}
`

func (w *world) removal(destroy bool, archive string) reconcilers.Removal {
	trace, err := w.r.Trace(w.target(""))
	require.NoError(w.t, err)
	return reconcilers.Removal{Instance: "deu", Component: "stack", Trace: trace, Parts: []string{SharedPart, "first", "second"}, Destroy: destroy, Archive: archive}
}

// bystander is a project of somebody else that shares a network with nobody and must be left alone.
func (w *world) bystander() string {
	made, err := w.engine.ContainerCreate(w.t.Context(), client.ContainerCreateOptions{
		Name:       w.project + "-bystander",
		Config:     &container.Config{Image: w.image, Cmd: []string{"sh", "-c", serve}, Labels: map[string]string{"com.docker.compose.project": w.project + "x"}},
		HostConfig: &container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: w.project + "x_data", Target: "/data"}}},
	})
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		ctx := context.WithoutCancel(w.t.Context())
		_, _ = w.engine.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true})
		_, _ = w.engine.VolumeRemove(ctx, w.project+"x_data", client.VolumeRemoveOptions{Force: true})
	})
	_, err = w.engine.ContainerStart(w.t.Context(), made.ID, client.ContainerStartOptions{})
	require.NoError(w.t, err)
	return made.ID
}

func TestAStackIsStoppedAndComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, leavers)
	w.up("first", "second")
	said := &heard{t: t}
	require.NoError(t, w.r.Remove(t.Context(), w.removal(false, ""), said))
	require.Equal(t, []string{"container " + w.project + "-second-1", "container " + w.project + "-first-1"}, addresses(said), "the last one first")
	for _, service := range []string{"first", "second"} {
		c := w.inspect(service)
		require.Equal(t, container.StateExited, c.State.Status)
		require.Equal(t, container.RestartPolicyDisabled, c.HostConfig.RestartPolicy.Name, "no engine starts it again")
	}
	again := &heard{t: t}
	require.NoError(t, w.r.Remove(t.Context(), w.removal(false, ""), again))
	require.Empty(t, again.begun)
	w.up("first", "second") // its manifest was merged again
	require.Equal(t, container.RestartPolicyAlways, w.inspect("first").HostConfig.RestartPolicy.Name)
}

func addresses(h *heard) (all []string) {
	for _, c := range h.begun {
		all = append(all, c.Address)
	}
	return all
}

func TestAStackIsDestroyedAndItsVolumesAreLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, leavers)
	w.up("first", "second")
	other := w.bystander()
	require.NoError(t, w.r.Remove(t.Context(), w.removal(true, ""), &heard{t: t}))
	containers, networks, volumes := w.left()
	require.Zero(t, containers+networks)
	require.Equal(t, 1, volumes)
	c, err := w.engine.ContainerInspect(t.Context(), other, client.ContainerInspectOptions{})
	require.NoError(t, err)
	require.True(t, c.Container.State.Running)
	w.up("first", "second") // its manifest was merged again: the data is there
	require.Equal(t, "kept\n", w.archiveOf(w.inspect("second").ID, "/data/file"))
}

// left counts what the engine has of the project.
func (w *world) left() (containers, networks, volumes int) {
	ctx, filters := w.t.Context(), projectFilter(w.project)
	c, err := w.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	require.NoError(w.t, err)
	n, err := w.engine.NetworkList(ctx, client.NetworkListOptions{Filters: filters})
	require.NoError(w.t, err)
	v, err := w.engine.VolumeList(ctx, client.VolumeListOptions{Filters: filters})
	require.NoError(w.t, err)
	return len(c.Items), len(n.Items), len(v.Items)
}

// archiveOf reads a file of a container.
func (w *world) archiveOf(id, path string) string {
	copied, err := w.engine.CopyFromContainer(w.t.Context(), id, client.CopyFromContainerOptions{SourcePath: path})
	require.NoError(w.t, err)
	defer copied.Content.Close()
	packed := tar.NewReader(copied.Content)
	_, err = packed.Next()
	require.NoError(w.t, err)
	text, err := io.ReadAll(packed)
	require.NoError(w.t, err)
	return string(text)
}

func TestVolumesAreArchivedBeforeTheyGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, leavers)
	w.up("first", "second")
	_, err := w.engine.VolumeCreate(t.Context(), client.VolumeCreateOptions{Name: w.project + "_unused", Labels: map[string]string{"com.docker.compose.project": w.project}})
	require.NoError(t, err)
	unnamed := ""
	for _, m := range w.inspect("second").Mounts {
		if m.Destination == "/cache" {
			unnamed = m.Name
		}
	}
	folder := filepath.Join(t.TempDir(), "archives", "deu")

	// Where an archive cannot be written nothing is removed.
	file := filepath.Join(t.TempDir(), "no-folder")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.Error(t, w.r.Remove(t.Context(), w.removal(true, file), &heard{t: t}))
	containers, _, volumes := w.left()
	require.Equal(t, []int{2, 2}, []int{containers, volumes})

	// Cut off before each of its changes, and gone on with.
	for cut := 0; ; cut++ {
		require.Less(t, cut, 20)
		progress := &cutOff{heard: &heard{t: t}, before: cut}
		err := w.r.Remove(t.Context(), w.removal(true, folder), progress)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, errCut)
		if len(progress.begun) > 0 {
			cut = -1 // something was done: the next try begins there
		}
	}
	containers, networks, volumes := w.left()
	require.Zero(t, containers+networks+volumes)
	_, err = w.engine.VolumeInspect(t.Context(), unnamed, client.VolumeInspectOptions{})
	require.Error(t, err, "what has no name is archived, and gone")
	for name, want := range map[string]string{w.project + "_data": "kept\n", unnamed: "unnamed\n", w.project + "_unused": ""} {
		require.Equal(t, want, unpack(t, filepath.Join(folder, name+".tar.gz")), name)
	}
}

var errCut = errors.New("cut off")

// cutOff refuses a change, and all after it.
type cutOff struct {
	*heard
	before int
}

func (c *cutOff) Begin(ctx context.Context, changes ...reconcilers.Change) error {
	if len(c.begun) >= c.before {
		return errCut
	}
	return c.heard.Begin(ctx, changes...)
}

// unpack gives the content of the file named file in an archive whose sum is right; empty when there is none.
func unpack(t *testing.T, name string) (content string) {
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	sum, err := os.ReadFile(name + ".sha256")
	require.NoError(t, err)
	is := sha256.Sum256(data)
	require.Equal(t, hex.EncodeToString(is[:])+"  "+filepath.Base(name)+"\n", string(sum))
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	packed, err := gzip.NewReader(strings.NewReader(string(data)))
	require.NoError(t, err)
	for archive := tar.NewReader(packed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return content
		}
		require.NoError(t, err)
		if filepath.Base(header.Name) == "file" {
			text, err := io.ReadAll(archive)
			require.NoError(t, err)
			content = string(text)
		}
	}
}
