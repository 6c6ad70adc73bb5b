package compose

import (
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

// The engine calls a container that was paused unhealthy until its next check, which nobody failed.
func TestUnpausedIsNotUnhealthyBeforeItsNextCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    healthcheck: {test: [CMD-SHELL, "while test -e /tmp/slow; do sleep 0.1; done"], interval: 300ms, timeout: 10m}
`)
	w.up("web")
	w.exec(t, "web", "touch", "/tmp/slow")
	id := w.inspect("web").ID
	_, err := w.engine.ContainerPause(t.Context(), id, client.ContainerPauseOptions{})
	require.NoError(t, err)
	_, err = w.engine.ContainerUnpause(t.Context(), id, client.ContainerUnpauseOptions{})
	require.NoError(t, err)
	require.Equal(t, container.Unhealthy, w.inspect("web").State.Health.Status)
	o := w.observe("web")
	var wait *reconcilers.WaitError
	require.ErrorAs(t, o.Err, &wait)
	require.Equal(t, "service web to become healthy", wait.For)
	require.Empty(t, w.plan("web").Changes)
	w.exec(t, "web", "rm", "/tmp/slow")
	w.eventually("the next check", func() bool { return w.observe("web").Err == nil })
	require.Equal(t, id, w.inspect("web").ID)
}
