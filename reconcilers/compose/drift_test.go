package compose

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}

const driftingStack = `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    environment: {A: "1", B: "2"}
    labels: {team: blue}
    restart: unless-stopped
    mem_limit: 64m
    stop_grace_period: 5s
    volumes: [data:/data]
    networks: {default: {aliases: [www]}, back: {}}
    healthcheck: {test: [CMD, "true"], interval: 300ms}
volumes: {data: {}}
networks: {back: {}}
`

// byHand is what somebody does to the container of service web.
type byHand struct {
	name string
	do   func(w *world, id string) error
}

// runDrift does each thing, and checks that the event of it wakes the service at once, that the plan says it, and that one
// apply mends it. It gives the plans as lines for a golden file.
func runDrift(t *testing.T, w *world, cases []byHand) string {
	w.up("web")
	want := w.picture(t)
	woken := w.watching(t)
	var lines strings.Builder
	for _, c := range cases {
		id := w.inspect("web").ID
		for len(woken) > 0 {
			<-woken
		}
		require.NoError(t, c.do(w, id), c.name)
		hear(t, woken, "web")
		change := w.change("web")
		require.False(t, change.Destroys)
		_, err := fmt.Fprintf(&lines, "%-28s %-8s %s\n", c.name, change.Action, w.plain(change.Reason))
		require.NoError(t, err)
		for _, detail := range change.Details {
			_, err := fmt.Fprintf(&lines, "%-28s %-8s   %s\n", "", "", w.plain(detail))
			require.NoError(t, err)
		}
		require.NoError(t, w.try("web"), c.name)
		w.inSync("web")
		require.Equal(t, want, w.picture(t), c.name)
	}
	return lines.String()
}

// plain takes out of a text what differs from run to run.
func (w *world) plain(text string) string {
	for image, name := range map[string]string{w.image: "base:1", "sha256:": ""} {
		text = strings.ReplaceAll(text, image, name)
	}
	return strings.ReplaceAll(text, w.project, "project")
}

func TestDriftOfState(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingStack)
	golden(t, "drift-state.golden", runDrift(t, w, []byHand{
		{"removed", func(w *world, id string) error {
			_, err := w.engine.ContainerRemove(w.t.Context(), id, client.ContainerRemoveOptions{Force: true})
			return err
		}},
		{"stopped", func(w *world, id string) error {
			_, err := w.engine.ContainerStop(w.t.Context(), id, client.ContainerStopOptions{})
			return err
		}},
		{"killed", func(w *world, id string) error {
			_, err := w.engine.ContainerKill(w.t.Context(), id, client.ContainerKillOptions{Signal: "KILL"})
			return err
		}},
		{"paused", func(w *world, id string) error {
			_, err := w.engine.ContainerPause(w.t.Context(), id, client.ContainerPauseOptions{})
			return err
		}},
		{"renamed", func(w *world, id string) error {
			_, err := w.engine.ContainerRename(w.t.Context(), id, client.ContainerRenameOptions{NewName: w.project + "-other"})
			return err
		}},
		{"renamed and stopped", func(w *world, id string) error {
			if _, err := w.engine.ContainerRename(w.t.Context(), id, client.ContainerRenameOptions{NewName: w.project + "-other"}); err != nil {
				return err
			}
			_, err := w.engine.ContainerStop(w.t.Context(), id, client.ContainerStopOptions{})
			return err
		}},
	}))
}

// updated is `docker update`.
func updated(name string, resources container.Resources, policy *container.RestartPolicy) byHand {
	return byHand{name, func(w *world, id string) error {
		_, err := w.engine.ContainerUpdate(w.t.Context(), id, client.ContainerUpdateOptions{Resources: &resources, RestartPolicy: policy})
		return err
	}}
}

func disconnect(w *world, id, key string) error {
	_, err := w.engine.NetworkDisconnect(w.t.Context(), w.project+"_"+key, client.NetworkDisconnectOptions{Container: id})
	return err
}

func TestDriftOfFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingStack)
	pids := int64(100)
	foreign := w.project + "_foreign"
	_, err := w.engine.NetworkCreate(t.Context(), foreign, client.NetworkCreateOptions{})
	require.NoError(t, err)
	golden(t, "drift-fields.golden", runDrift(t, w, []byHand{
		updated("memory limit", container.Resources{Memory: 96 << 20, MemorySwap: 128 << 20}, nil),
		updated("memory reservation", container.Resources{MemoryReservation: 32 << 20}, nil),
		updated("CPU limit", container.Resources{NanoCPUs: 1_500_000_000}, nil),
		updated("CPU shares", container.Resources{CPUShares: 100}, nil),
		updated("CPU set", container.Resources{CpusetCpus: "0"}, nil),
		updated("processes", container.Resources{PidsLimit: &pids}, nil),
		updated("restart policy", container.Resources{}, &container.RestartPolicy{Name: container.RestartPolicyOnFailure, MaximumRetryCount: 3}),
		updated("four at once", container.Resources{Memory: 96 << 20, MemorySwap: 128 << 20, CPUShares: 100, PidsLimit: &pids},
			&container.RestartPolicy{Name: container.RestartPolicyAlways}),
		{"taken off a network", func(w *world, id string) error { return disconnect(w, id, "back") }},
		{"connected without aliases", func(w *world, id string) error {
			if err := disconnect(w, id, "default"); err != nil {
				return err
			}
			_, err := w.engine.NetworkConnect(w.t.Context(), w.project+"_default", client.NetworkConnectOptions{Container: id})
			return err
		}},
		{"put on another network", func(w *world, id string) error {
			_, err := w.engine.NetworkConnect(w.t.Context(), foreign, client.NetworkConnectOptions{Container: id})
			return err
		}},
	}))
}

// shape is how a container is made.
type shape struct {
	config   *container.Config
	host     *container.HostConfig
	networks map[string]*network.EndpointSettings
}

// replaced removes the container and runs one of the same name, made as it was but for what change does.
func replaced(name string, change func(w *world, s *shape)) byHand {
	return byHand{name, func(w *world, id string) error {
		ctx := w.t.Context()
		c, err := w.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		if _, err = w.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true}); err != nil {
			return err
		}
		s := &shape{config: c.Container.Config, host: c.Container.HostConfig, networks: map[string]*network.EndpointSettings{
			w.project + "_default": {Aliases: []string{w.project + "-web-1", "web", "www"}},
			w.project + "_back":    {Aliases: []string{w.project + "-web-1", "web"}},
		}}
		s.config.Hostname = ""
		change(w, s)
		first := string(s.host.NetworkMode)
		made, err := w.engine.ContainerCreate(ctx, client.ContainerCreateOptions{
			Name: w.project + "-web-1", Config: s.config, HostConfig: s.host,
			NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{first: s.networks[first]}},
		})
		if err != nil {
			return err
		}
		for other, endpoint := range s.networks {
			if other == first {
				continue
			}
			if _, err := w.engine.NetworkConnect(ctx, other, client.NetworkConnectOptions{Container: made.ID, EndpointConfig: endpoint}); err != nil {
				return err
			}
		}
		if _, err = w.engine.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
			return err
		}
		w.eventually("healthy", func() bool {
			state := w.inspect("web").State
			return state.Health == nil || state.Health.Status == container.Healthy
		})
		return nil
	}}
}

func TestDriftByReplacement(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingStack)
	other := w.commit("other", "ENV C=3")
	env := func(s *shape, pair, to string) {
		i := slices.Index(s.config.Env, pair)
		require.GreaterOrEqual(t, i, 0)
		s.config.Env = slices.Delete(s.config.Env, i, i+1)
		if to != "" {
			s.config.Env = append(s.config.Env, to)
		}
	}
	lines := runDrift(t, w, []byHand{
		replaced("another image", func(_ *world, s *shape) { s.config.Image = other }),
		replaced("another command", func(_ *world, s *shape) { s.config.Cmd = append(slices.Clone(s.config.Cmd), "more") }),
		replaced("another variable", func(_ *world, s *shape) { env(s, "A=1", "A=2") }),
		replaced("a variable less", func(_ *world, s *shape) { env(s, "B=2", "") }),
		replaced("a variable more", func(_ *world, s *shape) { s.config.Env = append(s.config.Env, "DEBUG=hunter2") }),
		replaced("another label", func(_ *world, s *shape) { s.config.Labels["team"] = "red" }),
		replaced("another volume", func(w *world, s *shape) { s.host.Binds, s.host.Mounts = []string{w.project + "_mine:/data"}, nil }),
		replaced("no volume", func(_ *world, s *shape) { s.host.Binds, s.host.Mounts = nil, nil }),
		replaced("a mount more", func(_ *world, s *shape) {
			s.host.Mounts = append(s.host.Mounts, mount.Mount{Type: mount.TypeBind, Source: "/tmp", Target: "/host", ReadOnly: true})
		}),
		replaced("a tmpfs more", func(_ *world, s *shape) { s.host.Tmpfs = map[string]string{"/scratch": "size=1m"} }),
		replaced("a network less", func(w *world, s *shape) { delete(s.networks, w.project+"_default") }),
		replaced("another restart policy", func(_ *world, s *shape) { s.host.RestartPolicy.Name = container.RestartPolicyAlways }),
		replaced("no memory limit", func(_ *world, s *shape) { s.host.Memory, s.host.MemorySwap = 0, 0 }),
		replaced("a published port", func(_ *world, s *shape) {
			port := network.MustParsePort("80/tcp")
			s.config.ExposedPorts = network.PortSet{port: {}}
			s.host.PortBindings = network.PortMap{port: {{HostIP: netip.MustParseAddr("127.0.0.1")}}}
		}),
		replaced("more rights", func(_ *world, s *shape) { s.host.CapAdd = []string{"NET_ADMIN"}; s.host.ReadonlyRootfs = true }),
		replaced("another user, folder", func(_ *world, s *shape) { s.config.User, s.config.WorkingDir = "1000", "/tmp" }),
		replaced("no health check", func(_ *world, s *shape) { s.config.Healthcheck = nil }),
		replaced("another init, stop signal", func(_ *world, s *shape) { s.host.Init = nil; s.config.StopSignal = "SIGINT" }),
		replaced("Compose's labels changed", func(_ *world, s *shape) {
			s.config.Labels["com.docker.compose.config-hash"] = "0"
			delete(s.config.Labels, contentLabel)
		}),
	})
	require.NotContains(t, lines, "hunter2")
	golden(t, "drift-replaced.golden", lines)

	t.Run("by an equal one", func(t *testing.T) {
		same := replaced("by an equal one", func(*world, *shape) {})
		require.NoError(t, same.do(w, w.inspect("web").ID))
		id := w.inspect("web").ID
		w.inSync("web")
		w.restart()
		w.inSync("web")
		require.Equal(t, id, w.inspect("web").ID)
	})
	t.Run("by one of nobody's", func(t *testing.T) {
		woken := w.watching(t)
		_, err := w.engine.ContainerRemove(t.Context(), w.inspect("web").ID, client.ContainerRemoveOptions{Force: true})
		require.NoError(t, err)
		made, err := w.engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: w.project + "-web-1", Config: &container.Config{Image: w.image}})
		require.NoError(t, err)
		hear(t, woken, "web")
		o := w.observe("web")
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, o.Err, &blocked)
		require.Equal(t, "ContainerNameTaken", blocked.Reason)
		require.Empty(t, w.plan("web").Changes)
		for len(woken) > 0 {
			<-woken
		}
		_, err = w.engine.ContainerRemove(t.Context(), made.ID, client.ContainerRemoveOptions{Force: true})
		require.NoError(t, err)
		hear(t, woken, "web")
		require.NoError(t, w.try("web"), "the name is free again, and the service is back")
		w.inSync("web")
	})
	t.Run("by one of nobody's, and renamed", func(t *testing.T) {
		c := w.inspect("web")
		_, err := w.engine.ContainerRename(t.Context(), c.ID, client.ContainerRenameOptions{NewName: w.project + "-other"})
		require.NoError(t, err)
		made, err := w.engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: w.project + "-web-1", Config: &container.Config{Image: w.image}})
		require.NoError(t, err)
		w.set("RUN", serve+" # newer")
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, w.observe("web").Err, &blocked)
		require.Equal(t, "ContainerNameTaken", blocked.Reason)
		require.Empty(t, w.plan("web").Changes, "a new container could not have the name either")
		_, err = w.engine.ContainerRemove(t.Context(), made.ID, client.ContainerRemoveOptions{Force: true})
		require.NoError(t, err)
		require.NoError(t, w.try("web"))
		w.inSync("web")
		require.Equal(t, "/"+w.project+"-web-1", w.inspect("web").Name)
	})
}
