package compose

import (
	"context"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

const hookedStack = `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    volumes: ["log:/log"]
    environment: {V: "${V:-1}"}
    security_opt: ["seccomp:./profile.json"]
    healthcheck: {test: [CMD, "true"], interval: 300ms}
    post_start:
      - {command: [bash, -c, "echo start $$V $$HOOK $$PWD >> /log/said; ${AFTER:-true}"], environment: {HOOK: given}, working_dir: /log, user: root}
    pre_stop:
      - {command: [bash, -c, "echo stop $$V >> /log/said; ${BEFORE:-true}"]}
volumes: {log: {}}
`

// Commands after a start and before a stop are run in each container of the service, once for each start and stop.
func TestHooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hookedStack)
	w.write(map[string]string{"profile.json": `{"defaultAction": "SCMP_ACT_ALLOW"}`})
	said := func() string {
		return strings.ReplaceAll(strings.TrimSpace(w.exec(t, "web", "cat", "/log/said")), "\n", ", ")
	}
	w.up("web")
	require.Equal(t, "start 1 given /log", said())
	require.Contains(t, strings.Join(w.inspect("web").HostConfig.SecurityOpt, " "), "SCMP_ACT_ALLOW")
	w.set("V", "2")
	w.up("web")
	require.Equal(t, "start 1 given /log, stop 1, start 2 given /log", said(), "what goes is stopped in its own way")

	// A command that fails after the start is a fault of the new version.
	w.set("V", "3")
	w.set("AFTER", "echo no such peer >&2; exit 4")
	err := w.try("web")
	require.Contains(t, rejected(t, err).Error(), "post_start of service web: bash exits with 4: no such peer")
	require.Contains(t, rejected(t, err).PutBack, "put back to")
	require.Equal(t, "start 1 given /log, stop 1, start 2 given /log, stop 2, start 3 given /log, stop 3, start 2 given /log", said())

	// One that fails before the stop keeps what runs running, until it does not fail any more.
	w.set("AFTER", "true")
	w.set("BEFORE", "test -e /log/drained")
	w.set("V", "4")
	w.up("web")
	id := w.inspect("web").ID
	w.set("V", "5")
	err = w.try("web")
	require.ErrorContains(t, err, "pre_stop of container "+w.project+"-web-1, which goes on: bash exits with 1")
	require.Equal(t, id, w.inspect("web").ID)
	require.True(t, w.inspect("web").State.Running)
	w.exec(t, "web", "touch", "/log/drained")
	w.up("web")
	require.True(t, strings.HasSuffix(said(), "stop 4, start 5 given /log"), said())

	// Changed commands alone are a change too.
	w.set("BEFORE", "true")
	require.Equal(t, "pre_stop changed", w.change("web").Reason)
}

// An agent that is killed between the start and the commands runs them when it is back.
func TestHooksAfterACrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hookedStack)
	w.write(map[string]string{"profile.json": `{"defaultAction": "SCMP_ACT_ALLOW"}`})
	w.up("web")
	id := w.inspect("web").ID
	_, err := w.engine.ContainerStop(t.Context(), id, client.ContainerStopOptions{})
	require.NoError(t, err)
	s, err := w.r.stack(t.Context(), w.target("web"))
	require.NoError(t, err)
	o, err := w.r.observeService(t.Context(), s)
	require.NoError(t, err)
	require.NoError(t, o.State.(*serviceState).starts(id)) // and then
	_, err = w.engine.ContainerStart(context.WithoutCancel(t.Context()), id, client.ContainerStartOptions{})
	require.NoError(t, err)
	w.restart()
	change := w.change("web")
	require.Equal(t, reconcilers.Run, change.Action)
	require.Equal(t, "run its post_start commands, which were cut off", change.Reason)
	w.up("web")
	require.Equal(t, 2, strings.Count(w.exec(t, "web", "cat", "/log/said"), "start 1"))
}

// A version that starts beside the old one runs its commands before the old one runs those of its end.
func TestHooksStartFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.NewReplacer(
		"    volumes: [\"log:/log\"]\n", "    volumes_from: [sink]\n    deploy: {update_config: {order: start-first}}\n",
		"volumes: {log: {}}", "  sink: {image: \"${IMAGE}\", init: true, command: [bash, -c, \"${RUN}\"], volumes: [\"log:/log\"]}\nvolumes: {log: {}}",
	).Replace(hookedStack))
	w.write(map[string]string{"profile.json": `{"defaultAction": "SCMP_ACT_ALLOW"}`})
	w.up("sink")
	w.up("web")
	w.set("V", "2")
	w.up("web")
	require.Equal(t, "start 1 given /log\nstart 2 given /log\nstop 1\n", w.exec(t, "web", "cat", "/log/said"))
	require.NoError(t, w.r.Remove(t.Context(), w.removal(false, ""), &heard{t: t}))
	w.up("sink", "web")
	require.Equal(t, "start 1 given /log\nstart 2 given /log\nstop 1\nstop 2\nstart 2 given /log\n", w.exec(t, "web", "cat", "/log/said"))
}
