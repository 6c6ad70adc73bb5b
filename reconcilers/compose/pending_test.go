package compose

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
)

// What somebody does to a container between an agent that was cut off and the next one is seen, although nobody has found the
// container good yet.
func TestDriftWhileAChangeIsPending(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]struct {
		byHand func(w *world, c container.InspectResponse)
		reason string
	}{
		"updated": {func(w *world, c container.InspectResponse) {
			_, err := w.engine.ContainerUpdate(w.t.Context(), c.ID, client.ContainerUpdateOptions{Resources: &container.Resources{Memory: 200 << 20, MemorySwap: 400 << 20}})
			require.NoError(w.t, err)
		}, "changed by hand: memory and swap limit 400 MiB instead of none; memory limit 200 MiB instead of none"},
		"replaced": {func(w *world, c container.InspectResponse) {
			_, err := w.engine.ContainerRemove(w.t.Context(), c.ID, client.ContainerRemoveOptions{Force: true})
			require.NoError(w.t, err)
			config := *c.Config
			config.Hostname, config.Env = "", append(config.Env, "BY=hand")
			made, err := w.engine.ContainerCreate(w.t.Context(), client.ContainerCreateOptions{Name: c.Name, Config: &config, HostConfig: c.HostConfig})
			require.NoError(w.t, err)
			_, err = w.engine.ContainerStart(w.t.Context(), made.ID, client.ContainerStartOptions{})
			require.NoError(w.t, err)
		}, "replaced by hand: environment BY added"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, oneService)
			w.up("web")
			w.set("RUN", serve+" # newer")
			ctx, cancel := cancellable(t)
			_, err := w.r.Apply(ctx, w.target("web"), w.plan("web"), &stopper{heard: &heard{t: t}, cancel: cancel})
			require.ErrorContains(t, err, "context canceled")
			w.restart()
			require.Contains(t, w.change("web").Reason, "see whether the new version becomes healthy, after an interruption")
			do.byHand(w, w.inspect("web"))
			require.Equal(t, do.reason, w.change("web").Reason)
			w.up("web")
			c := w.inspect("web")
			require.Zero(t, c.HostConfig.Memory)
			require.NotContains(t, c.Config.Env, "BY=hand")
		})
	}
}

// What was done to a container that was made and not noted yet cannot be known: it is made again.
func TestKilledWhileAContainerIsMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, oneService)
	w.up("web")
	w.set("RUN", serve+" # newer")
	at := ""
	for n := 1; !strings.Contains(at, "/stop"); n++ { // of the old one
		require.Less(t, n, 10)
		at = w.applyDoomed(n, false)
	}
	list := w.everything("web")
	require.Len(t, list, 2, "the old one, and a new one that was never started")
	for _, c := range list {
		if c.State == container.StateCreated {
			_, err := w.engine.ContainerUpdate(t.Context(), c.ID, client.ContainerUpdateOptions{Resources: &container.Resources{Memory: 200 << 20, MemorySwap: 400 << 20}})
			require.NoError(t, err)
		}
	}
	w.up("web")
	require.Zero(t, w.inspect("web").HostConfig.Memory)
}

// A record that is lost while a version is tried does not make that version the one to stay.
func TestARecordIsLostWhileAChangeIsPending(t *testing.T) {
	t.Parallel()
	w := newWorld(t, oneService)
	w.up("web")
	w.inSync("web")
	before := w.picture(t)
	w.set("CHECK", "false")
	ctx, cancel := cancellable(t)
	_, err := w.r.Apply(ctx, w.target("web"), w.plan("web"), &stopper{heard: &heard{t: t}, cancel: cancel})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, os.Truncate(filepath.Join(w.dirs, "state", "web.json"), 20))
	w.restart()
	r := rejected(t, w.try("web"))
	require.Contains(t, r.Message, "service web is unhealthy")
	require.Equal(t, "put back to "+w.image, r.PutBack)
	require.Equal(t, before, w.picture(t))
	w.set("CHECK", "true")
	w.inSync("web")
}

func (w *world) everything(service string) []container.Summary {
	w.t.Helper()
	list, err := w.engine.ContainerList(w.t.Context(), client.ContainerListOptions{All: true, Filters: projectFilter(w.project, "com.docker.compose.service="+service)})
	require.NoError(w.t, err)
	return list.Items
}
