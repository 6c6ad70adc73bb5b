package compose

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// What DIVE's own Compose files use arrives in the container.
func TestFeaturesOfDIVE(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
name: ignored-${NAME:-x}
x-base: &base {init: true, restart: unless-stopped, extra_hosts: ["host.docker.internal:host-gateway"]}
services:
  web:
    <<: *base
    image: ${IMAGE}
    container_name: ${NAME}-web
    command: [bash, -c, "${RUN}"]
    env_file: [{path: ./web.env}, {path: ./none.env, required: false}]
    environment: {OWN: "${OWN:-default}", ESCAPED: "$$HOME"}
    cap_add: [NET_ADMIN]
    cap_drop: [MKNOD]
    ulimits: {nofile: {soft: 1000, hard: 2000}}
    deploy: {resources: {limits: {memory: 128M, cpus: "0.5", pids: 200}, reservations: {memory: 32M}}}
    labels: {dive.service.class: core, dive.owner: "${OWN:-team}"}
    logging: {driver: json-file, options: {max-size: 1m}}
    ports: ["127.0.0.1:${PORT}:80"]
    networks: {inside: {aliases: [www]}, outside: {}}
    tmpfs: ["/scratch:size=1m"]
    stop_grace_period: 3s
    read_only: true
    healthcheck: {test: [CMD-SHELL, "test -d /scratch"], interval: 300ms, start_period: 5s}
  debug: {image: "${IMAGE}", profiles: [debug], command: [bash, -c, "${RUN}"], init: true}
networks: {inside: {}, outside: {external: true, name: "${NAME}-outside"}}
`)
	w.write(map[string]string{"web.env": "FROM_FILE=yes\nOWN=file\n"})
	w.set("NAME", w.project)
	port := testbed.FreePort(t)
	w.set("PORT", strconv.Itoa(port))
	_, err := w.engine.NetworkCreate(t.Context(), w.project+"-outside", client.NetworkCreateOptions{})
	require.NoError(t, err)
	w.up("web")
	c := w.inspect("web")
	require.Equal(t, "/"+w.project+"-web", c.Name)
	require.Subset(t, c.Config.Env, []string{"FROM_FILE=yes", "OWN=default", "ESCAPED=$HOME"})
	require.Equal(t, []string{"CAP_NET_ADMIN"}, withPrefix(c.HostConfig.CapAdd))
	require.Equal(t, []string{"CAP_MKNOD"}, withPrefix(c.HostConfig.CapDrop))
	require.EqualValues(t, 1000, c.HostConfig.Ulimits[0].Soft)
	require.EqualValues(t, 128<<20, c.HostConfig.Memory)
	require.EqualValues(t, 32<<20, c.HostConfig.MemoryReservation)
	require.EqualValues(t, 5e8, c.HostConfig.NanoCPUs)
	require.EqualValues(t, 200, *c.HostConfig.PidsLimit)
	require.Equal(t, []string{"host.docker.internal:host-gateway"}, c.HostConfig.ExtraHosts)
	require.True(t, *c.HostConfig.Init)
	require.Equal(t, "core", c.Config.Labels["dive.service.class"])
	require.Equal(t, w.project, c.Config.Labels[api.ProjectLabel], "the manifest's name wins over the file's")
	require.Equal(t, "1m", c.HostConfig.LogConfig.Config["max-size"])
	require.Len(t, c.NetworkSettings.Networks, 2)
	require.True(t, c.HostConfig.ReadonlyRootfs)

	w.spec.Profiles = []desired.Expr{desired.Literal("debug"), desired.Literal("")}
	w.up("web", "debug")
	require.Equal(t, c.ID, w.inspect("web").ID)
	w.spec.Profiles = nil
	w.inSync(SharedPart) // turned off by its profile: left alone, as Compose does
}

func withPrefix(names []string) []string {
	var out []string
	for _, name := range names {
		if len(name) < 4 || name[:4] != "CAP_" {
			name = "CAP_" + name
		}
		out = append(out, name)
	}
	return out
}

// upByHand brings the stack up the way `docker compose up` does, in a folder of its own.
func (w *world) upByHand(t *testing.T) {
	t.Helper()
	compose, err := w.r.compose()
	require.NoError(t, err)
	s, err := w.r.stack(t.Context(), w.target(""))
	require.NoError(t, err)
	project, err := s.model.project.WithSelectedServices(nil)
	require.NoError(t, err)
	for name, service := range project.Services {
		service.CustomLabels = types.Labels{
			api.ProjectLabel: w.project, api.ServiceLabel: name, api.OneoffLabel: "False",
			api.WorkingDirLabel: "/home/someone/dive", api.ConfigFilesLabel: "/home/someone/dive/compose.yaml", api.VersionLabel: "2.40.0",
		}
		for name, value := range w.foreignLabels {
			service.CustomLabels[name] = value
		}
		if w.foreignHash {
			service.Extensions = types.Extensions{}
			service.EnvFiles = []types.EnvFile{{Path: "/home/someone/dive/" + name + ".env", Required: false}}
		}
		project.Services[name] = service
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, compose.Up(ctx, project, api.UpOptions{
		Create: api.CreateOptions{}, Start: api.StartOptions{Project: project, Wait: true, WaitTimeout: 30 * time.Second},
	}))
}

// What somebody else has put where a service binds, be it a file, stays as it is.
func TestBindOfAFileThatTheHostHas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], volumes: ["./made.conf:/made.conf:ro"]}
`)
	made := filepath.Join(w.dirs, "project", "made.conf")
	require.NoError(t, os.WriteFile(made, []byte("made"), 0o644))
	w.up("web")
	require.Equal(t, made, w.inspect("web").Mounts[0].Source)
	content, err := os.ReadFile(made)
	require.NoError(t, err)
	require.Equal(t, "made", string(content))
}

// A stack that was started by hand is taken over: what is equal is kept, what differs waits for approval.
func TestAdoption(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharingStack)
	w.upByHand(t)
	a := w.inspect("a").ID
	for _, part := range []string{SharedPart, "a", "b"} {
		w.inSync(part)
	}
	require.Equal(t, a, w.inspect("a").ID)

	// From now on it is ours: changes by hand are seen and undone without asking.
	_, err := w.engine.ContainerUpdate(t.Context(), a, client.ContainerUpdateOptions{Resources: &container.Resources{CPUShares: 100}})
	require.NoError(t, err)
	require.False(t, w.change("a").Destroys)

	// Another Compose stores another hash: what runs is looked at.
	again := newWorld(t, strings.Replace(sharingStack, "networks: [net], healthcheck", `networks: [net], env_file: [b.env], labels: {who: "${WHO:-me}"}, ports: ["127.0.0.1:${PORT}:80"], healthcheck`, 1))
	again.write(map[string]string{"b.env": "FROM=file\n"})
	again.set("PORT", strconv.Itoa(testbed.FreePort(t)))
	again.foreignHash = true
	again.upByHand(t)
	id := again.inspect("b").ID
	again.up("a", "b")
	again.restart()
	again.inSync("b")
	require.Equal(t, id, again.inspect("b").ID)
	again.set("RUN", "exit 3")
	require.Contains(t, rejected(t, again.try("b")).PutBack, "put back to", "what was taken over is the version to go back to")
	again.set("RUN", serve)
	again.inSync("b")
	again.set("WHO", "you")
	require.Equal(t, "label who changed", again.change("b").Reason)
	require.NoError(t, again.try("b"))
	again.inSync("b")

	caps := newWorld(t, strings.Replace(sharingStack, "networks: [net], healthcheck", `cap_add: ["${CAP}"], networks: [net], healthcheck`, 1))
	caps.r.allow = allowance{"cap:SYS_TIME"} // judged by the host
	caps.set("CAP", "NET_ADMIN")
	caps.foreignHash = true
	caps.upByHand(t)
	caps.set("CAP", "SYS_TIME")
	require.True(t, caps.change("b").Destroys, "as many capabilities, and other ones")
	caps.set("CAP", "CAP_NET_ADMIN")
	caps.up("a")
	caps.inSync("b")

	other := newWorld(t, sharingStack)
	other.upByHand(t)
	b := other.inspect("b").ID
	other.set("RUN", serve+" # newer")
	change := other.change("b")
	require.Equal(t, reconcilers.Replace, change.Action)
	require.True(t, change.Destroys, "what was started by hand is replaced only after approval")
	require.Contains(t, change.Reason, "not started by this agent")
	require.NoError(t, other.try("b"))
	other.inSync("b")
	require.NotEqual(t, b, other.inspect("b").ID)
	other.set("RUN", serve+" # newest")
	require.False(t, other.change("b").Destroys)
}

// What doco-cd deployed is taken over as it runs: its labels are no difference.
func TestAdoptionFromDocoCD(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharingStack)
	w.foreignHash = true
	w.foreignLabels = map[string]string{"cd.doco.metadata.manager": "doco-cd", "cd.doco.deployment.name": w.project, "cd.doco.deployment.timestamp": "2026-08-22T17:01:54Z"}
	w.upByHand(t)
	id := w.inspect("b").ID
	for _, part := range []string{SharedPart, "a", "b"} {
		w.inSync(part)
	}
	require.Equal(t, id, w.inspect("b").ID)
}
