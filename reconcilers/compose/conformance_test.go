package compose

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
	"dive-agent/reconcilers/conformance"
)

const conformanceSecret = "conformance-hunter-2"

const conformingStack = `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    environment: {PASSWORD: "${PASSWORD}"}
    volumes: [data:/data, "./files:/files:ro"]
    secrets: [token]
    networks: [front, back]
    healthcheck: {test: [CMD, "true"], interval: 300ms}
volumes: {data: {}}
networks: {front: {}, back: {internal: true}}
secrets: {token: {environment: PASSWORD}}
`

func conformingWorld(t *testing.T, part string) *conformance.World {
	w := newWorld(t, conformingStack)
	w.write(map[string]string{"files/a.conf": "a"})
	w.secrets["PASSWORD"] = conformanceSecret
	w.spec.Environment["PASSWORD"] = w.expr("${PASSWORD}")
	if part != SharedPart {
		w.up()
	}
	return &conformance.World{
		Target:  w.target(part),
		Secrets: []string{conformanceSecret},
		State:   func(t *testing.T) string { return w.picture(t) },
		New: func(*testing.T) reconcilers.Reconciler {
			w.restart()
			return w.r
		},
	}
}

// picture describes the live state without what differs from run to run.
func (w *world) picture(t *testing.T) string {
	var lines []string
	ctx := t.Context()
	containers, err := w.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: projectFilter(w.project)})
	require.NoError(t, err)
	for _, item := range containers.Items {
		c, err := w.engine.ContainerInspect(ctx, item.ID, client.ContainerInspectOptions{})
		require.NoError(t, err)
		config, host := c.Container.Config, c.Container.HostConfig
		slices.Sort(config.Env)
		lines = append(lines, fmt.Sprintf("container %s %s %s %v %v %v memory %d restart %s",
			c.Container.Name, c.Container.State.Status, config.Image, config.Cmd, config.Env, config.Labels[contentLabel],
			host.Memory, host.RestartPolicy.Name))
		for name, endpoint := range c.Container.NetworkSettings.Networks {
			slices.Sort(endpoint.Aliases)
			aliases := slices.DeleteFunc(endpoint.Aliases, func(a string) bool { return a == item.ID[:12] })
			lines = append(lines, fmt.Sprintf("container %s in %s as %v", c.Container.Name, name, aliases))
		}
	}
	networks, err := w.engine.NetworkList(ctx, client.NetworkListOptions{Filters: projectFilter(w.project)})
	require.NoError(t, err)
	for _, n := range networks.Items {
		lines = append(lines, fmt.Sprintf("network %s %t", n.Name, n.Internal))
	}
	volumes, err := w.engine.VolumeList(ctx, client.VolumeListOptions{Filters: projectFilter(w.project)})
	require.NoError(t, err)
	for _, v := range volumes.Items {
		lines = append(lines, "volume "+v.Name)
	}
	slices.Sort(lines)
	return strings.ReplaceAll(strings.Join(lines, "\n"), w.project, "project")
}

func TestConformanceOfShared(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Subject{
		World: func(t *testing.T) *conformance.World { return conformingWorld(t, SharedPart) },
		Limit: time.Minute,
	})
}

func TestConformanceOfService(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Subject{
		World: func(t *testing.T) *conformance.World { return conformingWorld(t, "web") },
		Limit: time.Minute,
	})
}

// runConformance runs the suite over the part web of a world.
func runConformance(t *testing.T, world func(*testing.T) *world) {
	conformance.Run(t, conformance.Subject{Limit: time.Minute, World: func(t *testing.T) *conformance.World {
		w := world(t)
		return &conformance.World{
			Target: w.target("web"),
			State:  func(t *testing.T) string { return w.picture(t) },
			New: func(*testing.T) reconcilers.Reconciler {
				w.restart()
				return w.r
			},
		}
	}})
}
