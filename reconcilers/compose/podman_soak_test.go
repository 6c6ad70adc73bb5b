//go:build soak

package compose

import (
	"path/filepath"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
)

const podmanStack = `services:
  first:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    environment: {COLOUR: "${COLOUR:-red}"}
    networks: {default: {aliases: [www]}}
    stop_grace_period: 1s
    healthcheck: {test: [CMD-SHELL, "${CHECK:-true}"], interval: 300ms, retries: 2}
  second:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "echo kept > /data/file; ${RUN}"]
    depends_on: {first: {condition: service_started}}
    restart: always
    stop_grace_period: 1s
    volumes: [data:/data]
volumes: {data: {}}
`

// onPodman gives a stack on a Podman of the test's own.
func onPodman(t *testing.T) *world {
	w := newWorld(t, podmanStack)
	podman, shared := testbed.NewPodman(t), w.engine
	podman.Load(testbed.Base)
	w.engine = podman.Client()
	w.restart()
	t.Cleanup(func() { // while Podman runs
		w.clean()
		w.engine = shared
	})
	return w
}

// TestSoakStackOnPodman is a stack's life on Debian's Podman, as docs/compose.md tells of it.
func TestSoakStackOnPodman(t *testing.T) {
	w := onPodman(t)
	w.up("first", "second")
	require.Equal(t, "running, healthy", w.observe("first").Facts.Summary)
	require.Contains(t, w.exec(t, "second", "getent", "ahostsv4", "www"), "STREAM", "names of services and aliases resolve")

	t.Run("change", func(t *testing.T) {
		before := w.inspect("second").ID
		w.set("COLOUR", "blue")
		require.Equal(t, "environment COLOUR changed", w.change("first").Reason)
		w.up("first", "second")
		require.Contains(t, w.inspect("first").Config.Env, "COLOUR=blue")
		require.Equal(t, before, w.inspect("second").ID, "what did not change is left alone")
	})
	t.Run("drift", func(t *testing.T) {
		for _, c := range []byHand{
			{"removed", func(w *world, id string) error {
				_, err := w.engine.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{Force: true})
				return err
			}},
			{"stopped", func(w *world, id string) error {
				_, err := w.engine.ContainerStop(t.Context(), id, client.ContainerStopOptions{})
				return err
			}},
			{"killed", func(w *world, id string) error {
				_, err := w.engine.ContainerKill(t.Context(), id, client.ContainerKillOptions{Signal: "KILL"})
				return err
			}},
			{"paused", func(w *world, id string) error {
				_, err := w.engine.ContainerPause(t.Context(), id, client.ContainerPauseOptions{})
				return err
			}},
			{"renamed", func(w *world, id string) error {
				_, err := w.engine.ContainerRename(t.Context(), id, client.ContainerRenameOptions{NewName: w.project + "-other"})
				return err
			}},
			{"taken off its network", func(w *world, id string) error { return disconnect(w, id, "default") }},
		} {
			require.NoError(t, c.do(w, w.inspect("first").ID), c.name)
			w.eventually(c.name+" is seen", func() bool { return len(w.plan("first").Changes) == 1 })
			require.NoError(t, w.try("first"), c.name)
			w.inSync("first")
		}
		require.Error(t, updated("", container.Resources{CPUShares: 100}, nil).do(w, w.inspect("first").ID), "there is no docker update")
	})
	t.Run("a version that does not work", func(t *testing.T) {
		for variable, value := range map[string]string{"RUN": "exit 3", "CHECK": "false"} {
			before, good := w.picture(t), w.spec.Environment
			w.set(variable, value)
			r := rejected(t, w.try("first"))
			t.Log(r)
			require.Contains(t, r.PutBack, "put back to")
			require.Equal(t, before, w.picture(t))
			w.spec.Environment = good
			w.inSync("first")
		}
	})
	t.Run("stop, destroy", func(t *testing.T) {
		require.NoError(t, w.r.Remove(t.Context(), w.removal(false, ""), &heard{t: t}))
		stopped := w.inspect("second")
		require.Equal(t, container.StateExited, stopped.State.Status)
		require.Equal(t, container.RestartPolicyAlways, stopped.HostConfig.RestartPolicy.Name, "what cannot be taken from it")
		w.up("first", "second")
		folder := filepath.Join(t.TempDir(), "archives")
		require.NoError(t, w.r.Remove(t.Context(), w.removal(true, folder), &heard{t: t}))
		containers, networks, volumes := w.left()
		require.Zero(t, containers+networks+volumes)
		require.Equal(t, "kept\n", unpack(t, filepath.Join(folder, w.project+"_data.tar.gz")))
	})
}
