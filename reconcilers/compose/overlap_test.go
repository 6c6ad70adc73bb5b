package compose

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const overlappingStack = `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    environment: {COLOUR: "${COLOUR:-red}"}
    networks: {default: {aliases: [www]}, back: {}}
    healthcheck: {test: [CMD-SHELL, "${CHECK:-true}"], interval: 300ms, retries: 2}
    stop_grace_period: 1s
    deploy: {update_config: {order: start-first}}
  client: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], healthcheck: {test: [CMD, "true"], interval: 300ms}}
networks: {back: {}}
`

// history hears what happens to the containers of a service until it is asked.
func (w *world) history(t *testing.T) func() []events.Message {
	ctx, cancel := context.WithCancel(t.Context())
	stream := w.engine.Events(ctx, client.EventsListOptions{Filters: make(client.Filters).
		Add("type", string(events.ContainerEventType)).Add("label", "com.docker.compose.project="+w.project, "com.docker.compose.service=web").
		Add("event", "start", "die", "destroy", "kill", "health_status")})
	all := make(chan []events.Message, 1)
	go func() {
		var heard []events.Message
		for {
			select {
			case m := <-stream.Messages:
				heard = append(heard, m)
			case <-ctx.Done():
				all <- heard
				return
			}
		}
	}()
	return func() []events.Message {
		cancel()
		return <-all
	}
}

// TestStartFirst: the old container serves until the new one is healthy, and not a name of it leads to the new one before.
func TestStartFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(overlappingStack, "retries: 2", "retries: 100", 1))
	w.up("web", "client")
	before := w.holds("web", "COLOUR=red", "web-1")
	want := w.picture(t)
	w.set("COLOUR", "blue")
	w.set("CHECK", "test -e /tmp/ready")
	change := w.change("web")
	require.Equal(t, reconcilers.Replace, change.Action)
	require.False(t, change.Interrupts)
	require.Equal(t, []string{"environment COLOUR changed", "healthcheck changed", "start-first: the old container serves until the new one is healthy"}, change.Details)

	done := make(chan error, 1)
	p := w.plan("web")
	heard := w.history(t)
	go func() {
		_, err := w.r.Apply(t.Context(), w.target("web"), p, &quiet{t: t})
		done <- err
	}()
	var made string
	w.eventually("two containers run", func() bool {
		running := 0
		for _, c := range w.all("web") {
			if c.State.Running {
				running++
				if c.ID != before["web-1"] {
					made = c.ID
				}
			}
		}
		return running == 2
	})
	require.Equal(t, "1\n1\n", w.exec(t, "client", "bash", "-c", "for n in web www; do getent ahostsv4 $n | grep -c STREAM; done"), "the new one has no names yet")
	c, err := w.r.Services(w.target("")).Find(t.Context(), "web")
	require.NoError(t, err)
	require.Equal(t, before["web-1"], c.ID, "who asks for the service's container gets the one that serves")

	created, err := w.engine.ExecCreate(t.Context(), made, client.ExecCreateOptions{Cmd: []string{"touch", "/tmp/ready"}})
	require.NoError(t, err)
	_, err = w.engine.ExecStart(t.Context(), created.ID, client.ExecStartOptions{Detach: true})
	require.NoError(t, err)
	require.NoError(t, <-done)
	w.inSync("web")
	after := w.holds("web", "COLOUR=blue", "web-1")
	require.Equal(t, made, after["web-1"])
	require.Equal(t, want, strings.Replace(w.picture(t), "COLOUR=blue", "COLOUR=red", 1))

	var order []string
	for _, e := range heard() {
		which := "new "
		if e.Actor.ID == before["web-1"] {
			which = "old "
		}
		word := which + string(e.Action)
		if e.Action != "health_status: unhealthy" && (len(order) == 0 || order[len(order)-1] != word) {
			order = append(order, word)
		}
	}
	require.Equal(t, []string{"new start", "new health_status: healthy", "old kill", "old die", "old destroy"}, order)
	w.restart()
	w.inSync("web")
}

// quiet is heard, for an apply that goes on while the test looks.
type quiet struct{ t *testing.T }

func (h *quiet) Begin(ctx context.Context, _ ...reconcilers.Change) error { return ctx.Err() }
func (h *quiet) End(reconcilers.Change, error)                            {}
func (h *quiet) Say(format string, args ...any)                           { h.t.Logf("  "+format, args...) }
func (h *quiet) Started()                                                 {}

// TestStartFirstThatDoesNotWork: the old container is never touched, whatever is wrong with the new one.
func TestStartFirstThatDoesNotWork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, variable, value, says string }{
		{"exits", "RUN", "sleep 0.2; exit 3", "service web exited with 3"},
		{"never healthy", "CHECK", "false", "service web is unhealthy"},
		{"gets unhealthy later", "CHECK", `test $$(date +%s) -lt $$(($$(stat -c %Y /proc/1) + 3))`, "service web got unhealthy within 10s of being ready (monitor)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, overlappingStack)
			w.spec.Update = map[string]Update{"web": {Monitor: duration(10 * time.Second)}}
			w.up("web")
			before := w.inspect("web")
			picture := w.picture(t)
			w.set(c.variable, strings.ReplaceAll(c.value, "$$", "$"))
			r := rejected(t, w.try("web"))
			require.Contains(t, r.Message, c.says)
			require.Equal(t, "put back to "+w.image, r.PutBack)
			after := w.inspect("web")
			require.Equal(t, before.ID, after.ID)
			require.Equal(t, before.State.StartedAt, after.State.StartedAt)
			require.Equal(t, picture, w.picture(t))
			w.set(c.variable, map[string]string{"RUN": serve, "CHECK": "true"}[c.variable])
			w.inSync("web")
		})
	}
}

// TestBackToTheNetworksOfBefore: the old container goes back to its names on the networks of its own version, and to no other one.
func TestBackToTheNetworksOfBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, overlappingStack)
	w.up("web")
	picture := w.picture(t)
	more := strings.NewReplacer("back: {}}\n    health", "more: {}}\n    health", "networks: {back: {}}", "networks: {more: {}}").Replace(overlappingStack)
	w.write(map[string]string{"compose.yaml": more})
	w.set("CHECK", "false")
	require.NoError(t, w.try(SharedPart))
	require.Equal(t, "put back to "+w.image, rejected(t, w.try("web")).PutBack)
	require.Equal(t, picture+"\nnetwork project_more false", w.picture(t))
	w.write(map[string]string{"compose.yaml": overlappingStack})
	w.set("CHECK", "true")
	w.up("web")
	require.Equal(t, picture, w.picture(t))
}

// TestPickAddresses: an address that a container is to have once it is started is not free.
func TestPickAddresses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, overlappingStack)
	require.NoError(t, w.try(SharedPart))
	st := w.observe("web").State.(*serviceState)
	name := w.project + "_back"
	base := st.reserved[name].Addr()
	st.reserved = map[string]netip.Prefix{name: netip.PrefixFrom(base, 30)} // of four, the last one is for broadcasts
	for _, free := range []netip.Addr{base, base.Next(), base.Next().Next()} {
		for range 5 {
			picked, err := w.r.pickAddresses(t.Context(), st)
			require.NoError(t, err)
			require.Contains(t, []netip.Addr{base, base.Next(), base.Next().Next()}, picked[name])
			require.False(t, picked[name].Less(free), "%s is to be another one's", picked[name])
		}
		_, err := w.engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{
			Config:     &container.Config{Image: w.image, Labels: map[string]string{"com.docker.compose.project": w.project}},
			HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(name)},
			NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
				name: {IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: free}},
			}},
		})
		require.NoError(t, err)
	}
	_, err := w.r.pickAddresses(t.Context(), st)
	require.ErrorContains(t, err, "no address of "+base.String()+"/30 is free on network "+name)
}

func duration(d time.Duration) *desired.Duration {
	out := desired.Duration(d)
	return &out
}

// TestWhatStandsAgainstStartFirst: it is said in the plan, and the old container ends first.
func TestWhatStandsAgainstStartFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    environment: {COLOUR: "${COLOUR:-red}"}
    volumes: [data:/data]
    deploy: {update_config: {order: start-first}}
volumes: {data: {}}
`)
	w.up("web")
	w.set("COLOUR", "blue")
	change := w.change("web")
	require.True(t, change.Interrupts)
	require.Equal(t, []string{"environment COLOUR changed", "stop-first, not start-first as declared: it writes to volume data"}, change.Details)
	heard := w.history(t)
	w.up("web")
	actions := []string{}
	for _, e := range heard() {
		if e.Action == events.ActionStart || e.Action == events.ActionDie || e.Action == events.ActionDestroy {
			actions = append(actions, string(e.Action))
		}
	}
	require.Equal(t, []string{"die", "start", "destroy"}, actions, "the old one has ended before the new one starts, and goes after that")
	require.Equal(t, container.StateRunning, w.inspect("web").State.Status)
}

func TestConformanceOfStartFirst(t *testing.T) {
	t.Parallel()
	runConformance(t, func(t *testing.T) *world {
		w := newWorld(t, overlappingStack)
		w.up("web")
		w.set("COLOUR", "blue")
		return w
	})
}
