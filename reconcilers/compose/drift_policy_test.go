package compose

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

func notes(o reconcilers.Observed) string { return strings.Join(o.Facts.Notes, "\n") }

// drift: report tells what differs and since when, and corrects nothing, until the service changes in the manifest.
func TestDriftIsReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingStack)
	w.up("web")
	id := w.inspect("web").ID
	w.spec.Services = map[string]Settings{"web": {Drift: driftReport}}
	require.NoError(t, updated("", container.Resources{Memory: 96 << 20, MemorySwap: 128 << 20, CPUShares: 100}, nil).do(w, id))
	w.inSync("web")
	o := w.observe("web")
	require.True(t, o.Started)
	require.Len(t, o.Facts.Notes, 2)
	require.Regexp(t, `^service web was changed by hand: CPU shares 100 instead of none, first seen \d.* UTC; left as it is \(drift: report\)$`, o.Facts.Notes[0])
	require.Contains(t, o.Facts.Notes[1], "memory limit 96 MiB instead of 64 MiB")
	w.restart()
	require.Equal(t, o.Facts.Notes, w.observe("web").Facts.Notes, "since when outlives the agent")

	_, err := w.engine.ContainerRename(t.Context(), id, client.ContainerRenameOptions{NewName: w.project + "-other"})
	require.NoError(t, err)
	w.inSync("web")
	require.Contains(t, notes(w.observe("web")), "renamed to "+w.project+"-other")

	left := func(what string) {
		t.Helper()
		o := w.observe("web")
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, o.Err, &blocked)
		require.Equal(t, "LeftByDrift", blocked.Reason)
		require.Contains(t, blocked.Message, what+" by hand, and drift: "+w.spec.Services["web"].Drift+" leaves it so")
		require.Empty(t, w.plan("web").Changes)
	}
	_, err = w.engine.ContainerPause(t.Context(), id, client.ContainerPauseOptions{})
	require.NoError(t, err)
	left("paused")
	_, err = w.engine.ContainerUnpause(t.Context(), id, client.ContainerUnpauseOptions{})
	require.NoError(t, err)
	_, err = w.engine.ContainerStop(t.Context(), id, client.ContainerStopOptions{})
	require.NoError(t, err)
	left("stopped with exit code 0")
	require.Contains(t, notes(w.observe("web")), "stopped with exit code 0")
	w.spec.Services = map[string]Settings{"web": {Drift: driftIgnore}}
	left("stopped with exit code 0")
	require.Empty(t, notes(w.observe("web")))
	_, err = w.engine.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{Force: true})
	require.NoError(t, err)
	left("removed")

	w.set("RUN", serve+" # newer")
	require.Equal(t, reconcilers.Create, w.change("web").Action, "a change of the manifest is made")
	require.NoError(t, w.try("web"))
	w.inSync("web")
	require.Empty(t, notes(w.observe("web")))

	w.spec.Services = map[string]Settings{"web": {Drift: driftReport}}
	require.NoError(t, updated("", container.Resources{CPUShares: 100}, nil).do(w, w.inspect("web").ID))
	w.inSync("web")
	w.set("RUN", serve+" # newest")
	require.Equal(t, "command changed", w.change("web").Reason)
	require.NoError(t, w.try("web"))
	w.inSync("web")
	require.Empty(t, notes(w.observe("web")), "the container is a new one")
	w.spec.Services = nil
	w.inSync("web")
}

// One that was put in the place of the container is reported too, and never taken for what is wanted.
func TestReplacementIsReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingStack)
	w.up("web")
	w.spec.Drift = driftReport
	another := replaced("", func(_ *world, s *shape) { s.config.Cmd = append(s.config.Cmd, "more") })
	require.NoError(t, another.do(w, w.inspect("web").ID))
	for range 2 {
		w.inSync("web")
		require.Contains(t, notes(w.observe("web")), "service web was changed by hand: command changed")
	}
	w.spec.Drift = ""
	require.Equal(t, "replaced by hand: command changed", w.change("web").Reason)
	w.up("web")
}

// Fields that the manifest leaves alone are no difference; others still are.
func TestFieldsThatMayDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingStack)
	w.up("web")
	w.spec.Ignore = []string{"CPU shares", "network"}
	w.spec.Services = map[string]Settings{"web": {Ignore: []string{"environment A", "label"}}}
	foreign := w.project + "_foreign"
	_, err := w.engine.NetworkCreate(t.Context(), foreign, client.NetworkCreateOptions{})
	require.NoError(t, err)
	id := w.inspect("web").ID
	require.NoError(t, updated("", container.Resources{CPUShares: 100}, nil).do(w, id))
	_, err = w.engine.NetworkConnect(t.Context(), foreign, client.NetworkConnectOptions{Container: id})
	require.NoError(t, err)
	w.inSync("web")
	require.NoError(t, updated("", container.Resources{CPUShares: 100, CpusetCpus: "0"}, nil).do(w, id))
	require.Equal(t, "changed by hand: cpuset 0 instead of none", w.change("web").Reason)
	require.NoError(t, w.try("web"))
	w.inSync("web")
	another := replaced("", func(_ *world, s *shape) {
		s.config.Env = append(s.config.Env, "A=3")
		s.config.Labels["team"], s.config.Labels["more"] = "red", "1"
	})
	require.NoError(t, another.do(w, w.inspect("web").ID))
	id = w.inspect("web").ID
	w.inSync("web")
	another = replaced("", func(_ *world, s *shape) { s.config.Env = append(s.config.Env, "C=3") })
	require.NoError(t, another.do(w, id))
	require.Equal(t, "replaced by hand: environment C added", w.change("web").Reason)
}

// A change of which no event was heard is found by the scan, within a minute.
func TestScanFindsWhatNoEventTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharingStack)
	w.up("a", "b")
	s, err := w.r.stack(t.Context(), w.target(""))
	require.NoError(t, err)
	scan := func() map[string]string {
		t.Helper()
		seen, err := w.r.scan(t.Context(), s)
		require.NoError(t, err)
		return seen
	}
	before := scan()
	require.Empty(t, changedParts(nil, before))
	require.Empty(t, changedParts(before, scan()), "what is as it was wakes nobody")
	a := w.inspect("a").ID
	for _, c := range []struct {
		name, part string
		do         func() error
	}{
		{"updated", "a", func() error { return updated("", container.Resources{CPUShares: 100}, nil).do(w, a) }},
		{"taken off", "a", func() error { return disconnect(w, a, "net") }},
		{"paused", "a", func() error {
			_, err := w.engine.ContainerPause(t.Context(), a, client.ContainerPauseOptions{})
			return err
		}},
		{"removed", "a", func() error {
			_, err := w.engine.ContainerRemove(t.Context(), a, client.ContainerRemoveOptions{Force: true})
			return err
		}},
		{"network removed", SharedPart, func() error {
			if err := disconnect(w, w.inspect("b").ID, "net"); err != nil {
				return err
			}
			_, err := w.engine.NetworkRemove(t.Context(), w.project+"_net", client.NetworkRemoveOptions{})
			return err
		}},
		{"volume removed", SharedPart, func() error {
			_, err := w.engine.VolumeRemove(t.Context(), w.project+"_data", client.VolumeRemoveOptions{})
			return err
		}},
	} {
		require.NoError(t, c.do(), c.name)
		now := scan()
		require.Contains(t, changedParts(before, now), c.part, c.name)
		require.NotContains(t, changedParts(before, now), "", c.name)
		before = now
	}
}

// turns is a clock whose minutes pass when a test says so.
type turns struct {
	reconcilers.SystemClock
	due chan time.Time
}

func (c *turns) After(time.Duration) <-chan time.Time { return c.due }

// Watch scans each minute, beside the events.
func TestWatchScans(t *testing.T) {
	t.Parallel()
	w := newWorld(t, oneService)
	w.up("web")
	clock := &turns{due: make(chan time.Time)}
	w.r.clock = clock
	ctx, cancel := context.WithCancel(t.Context())
	woken, done := make(chan string, 100), make(chan error, 1)
	go func() { done <- w.r.Watch(ctx, w.target(""), func(part string) { woken <- part }) }()
	hear(t, woken, "")
	pass := func() {
		select {
		case clock.due <- time.Now():
		case <-time.After(10 * time.Second):
			t.Error("nobody scans")
		}
	}
	w.scanned(1)
	_, err := w.engine.ContainerUpdate(t.Context(), w.inspect("web").ID, client.ContainerUpdateOptions{Resources: &container.Resources{CPUShares: 100}})
	require.NoError(t, err)
	hear(t, woken, "web") // by the event
	pass()
	hear(t, woken, "web") // and by the scan
	pass()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Empty(t, woken, "what is as it was wakes nobody")
}
