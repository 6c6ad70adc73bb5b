package compose

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

// failing ends with 3 as long as its volume has a file named bad.
const failing = `trap 'exit 0' TERM; echo serving; while :; do [ -e /data/bad ] && { echo "cannot go on: hunter2"; exit 3; }; sleep 0.1 & wait $!; done`

const flappingStack = `
services:
  db: {image: "${IMAGE}", init: true, command: [bash, -c, "${SERVE}"]}
  web: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], volumes: [data:/data], restart: "${RESTART}", depends_on: [db], mem_limit: 64m}
volumes: {data: {}}
`

func flappingWorld(t *testing.T, restart string) (*world, *later) {
	w := newWorld(t, flappingStack)
	w.set("RUN", failing)
	w.set("SERVE", serve)
	w.set("RESTART", restart)
	w.secrets["PASSWORD"] = "hunter2"
	clock := &later{}
	w.r.clock = clock
	w.up("db", "web")
	w.spec.MaxRestarts = 5
	return w, clock
}

// later is a clock that a test puts forward.
type later struct {
	reconcilers.SystemClock
	by time.Duration
}

func (c *later) Now() time.Time { return c.SystemClock.Now().Add(c.by) }

// settled waits until the container has ended, or is between two of the engine's starts.
func (w *world) settled(service string) {
	w.eventually("its end", func() bool { return !w.inspect(service).State.Running })
}

// What the engine starts again and again is told in words that do not change, and stopped after maxRestarts.
func TestEngineRestartsAreGivenUp(t *testing.T) {
	t.Parallel()
	w, clock := flappingWorld(t, "always")
	w.exec(t, "web", "touch", "/data/bad")
	said := map[string]bool{}
	facts := map[reconcilers.ServiceFacts]bool{}
	var stop reconcilers.Change
	w.eventually("it is given up", func() bool {
		o := w.observe("web")
		p, err := w.r.Plan(w.target("web"), o)
		require.NoError(t, err)
		if flaps := w.flaps(t); flaps.flaps() {
			require.ErrorContains(t, o.Err, "service web keeps restarting, exit code 3")
			said[o.Err.Error()] = true
			facts[*o.Facts.Service] = true
		}
		if len(p.Changes) == 0 {
			return false
		}
		stop = p.Changes[0]
		return true
	})
	require.Len(t, said, 1, "it is said once")
	require.Len(t, facts, 1)
	for words := range said {
		require.Regexp(t, `^service web keeps restarting, exit code 3, [345] times in \d+s; its last words: "cannot go on: \(secret\)"$`, words)
	}
	require.Equal(t, reconcilers.Update, stop.Action)
	require.Regexp(t, `^stop it: it ended [567] times in a row \(maxRestarts\), exit code 3$`, stop.Reason)
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, w.try("web"), &blocked)
	require.False(t, w.inspect("web").State.Restarting)
	for range 2 {
		o := w.observe("web")
		require.ErrorAs(t, o.Err, &blocked)
		require.Equal(t, "KeepsRestarting", blocked.Reason)
		require.Contains(t, blocked.Do, "docker start "+w.project+"-web-1")
		require.Equal(t, "exited", o.Facts.Service.State)
		require.Empty(t, w.plan("web").Changes)
		w.restart()
		w.r.clock = clock
	}

	_, err := w.engine.ContainerStart(t.Context(), w.inspect("web").ID, client.ContainerStartOptions{})
	require.NoError(t, err)
	require.False(t, errors.As(w.observe("web").Err, &blocked), "somebody started it: it is counted anew")
	w.eventually("it flaps again", func() bool { w.observe("web"); return w.flaps(t).flaps() })
	w.clear(t)
	cleared := time.Now()
	w.eventually("it runs", func() bool { // started after the file went, or for so long that it cannot have seen it
		state := w.inspect("web").State
		at, err := time.Parse(time.RFC3339Nano, state.StartedAt)
		return err == nil && state.Running && (at.After(cleared) || time.Since(at) > 10*time.Second)
	})
	require.ErrorContains(t, w.observe("web").Err, "keeps restarting", "it must run steadily first")
	clock.by += calmLast + time.Second
	w.inSync("web")
	require.Zero(t, w.flaps(t).Ends)
}

// clear takes the file away that makes the service fail.
func (w *world) clear(t *testing.T) {
	t.Helper()
	made, err := w.engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: w.project + "-clear", Config: &container.Config{Image: w.image, Cmd: []string{"rm", "/data/bad"}, Labels: map[string]string{
			"com.docker.compose.project": w.project, "com.docker.compose.oneoff": "True",
		}}, HostConfig: &container.HostConfig{Binds: []string{w.project + "_data:/data"}},
	})
	require.NoError(t, err)
	_, err = w.engine.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
	require.NoError(t, err)
	w.eventually("the file is gone", func() bool {
		c, err := w.engine.ContainerInspect(t.Context(), made.ID, client.ContainerInspectOptions{})
		require.NoError(t, err)
		return c.Container.State.Status == container.StateExited
	})
	_, err = w.engine.ContainerRemove(t.Context(), made.ID, client.ContainerRemoveOptions{})
	require.NoError(t, err)
}

func (w *world) flaps(t *testing.T) *flapping {
	t.Helper()
	rec, err := readRecord(w.target("").Dir + "/web.json")
	require.NoError(t, err)
	if rec.Flaps == nil {
		return &flapping{}
	}
	return rec.Flaps
}

// What the agent has to start is started ever later, and given up; what it depends on, and a person, give it another try.
func TestAgentRestartsAreGivenUp(t *testing.T) {
	t.Parallel()
	w, clock := flappingWorld(t, "no")
	w.exec(t, "web", "touch", "/data/bad")
	w.settled("web")
	for ends := 1; ends <= 2; ends++ {
		require.Equal(t, "start: stopped with exit code 3", w.change("web").Reason)
		require.Equal(t, ends, w.flaps(t).Ends)
		require.ErrorContains(t, w.try("web"), "service web exited with 3")
		w.settled("web")
	}
	var words string
	for ends, pause := 3, pauseFirst; ends < 5; ends, pause = ends+1, 2*pause {
		o := w.observe("web")
		require.Equal(t, ends, w.flaps(t).Ends)
		require.ErrorContains(t, o.Err, "service web keeps restarting, exit code 3, 3 times")
		require.True(t, words == "" || words == o.Err.Error())
		words = o.Err.Error()
		require.Empty(t, w.plan("web").Changes, "it waits")
		clock.by += pause
		require.Equal(t, "start: stopped with exit code 3", w.change("web").Reason)
		require.EqualError(t, w.try("web"), words)
		w.settled("web")
	}
	givenUp := func() {
		t.Helper()
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, w.observe("web").Err, &blocked)
		require.Equal(t, "KeepsRestarting", blocked.Reason)
		require.Contains(t, blocked.Message, words)
		clock.by += 10 * time.Minute
		require.Empty(t, w.plan("web").Changes)
	}
	givenUp()
	_, err := w.engine.ContainerRestart(t.Context(), w.inspect("db").ID, client.ContainerRestartOptions{})
	require.NoError(t, err)
	require.Equal(t, "start: stopped with exit code 3", w.change("web").Reason, "what it depends on was started anew")
	for range 4 {
		require.Error(t, w.try("web"))
		w.settled("web")
		w.observe("web")
		clock.by += time.Minute
	}
	require.Error(t, w.try("web"))
	w.settled("web")
	words = "keeps restarting"
	givenUp()
	target := w.target("web")
	target.Retry = true
	o, err := w.r.Observe(t.Context(), target)
	require.NoError(t, err)
	p, err := w.r.Plan(target, o)
	require.NoError(t, err)
	require.Len(t, p.Changes, 1, "a person asked")
	w.clear(t)
	require.NoError(t, w.try("web"))
	w.inSync("web")
	w.set("RUN", serve)
	w.up("db", "web")
	require.Zero(t, w.flaps(t).Ends, "a new version has ended never")
}

// The kernel's end for lack of memory is named, also when the engine has started the container again since.
func TestOutOfMemoryIsNamed(t *testing.T) {
	t.Parallel()
	w, _ := flappingWorld(t, "always")
	w.spec.MaxRestarts = 0
	w.set("RUN", `trap 'exit 0' TERM; while :; do [ -e /data/bad ] && { rest=$(tail /dev/zero); exit 9; }; sleep 0.1 & wait $!; done`)
	require.NoError(t, w.try("web"))
	w.exec(t, "web", "touch", "/data/bad")
	w.eventually("it flaps, and why is told", func() bool { // the engine may hear of it an end later than of the end
		err := w.observe("web").Err
		return w.flaps(t).flaps() && err != nil && strings.Contains(err.Error(), "out of memory: it needs a higher limit")
	})
}
