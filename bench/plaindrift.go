package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dive-agent/testbed"
)

// driftMended is what somebody does by hand until it is mended, by the engine's own events.
const driftMended = "drift-mended"

// byHand is one thing that somebody does to a container, and the event that says it is mended.
type byHand struct {
	name  string
	mends string
	do    func(ctx context.Context, engine *client.Client, id, name string) error
}

var doneByHand = []byHand{
	{"paused", "unpause", func(ctx context.Context, engine *client.Client, id, _ string) error {
		_, err := engine.ContainerPause(ctx, id, client.ContainerPauseOptions{})
		return err
	}},
	{"killed", "start", func(ctx context.Context, engine *client.Client, id, _ string) error {
		_, err := engine.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "KILL"})
		return err
	}},
	{"renamed", "rename", func(ctx context.Context, engine *client.Client, id, name string) error {
		_, err := engine.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: name + "-by-hand"})
		return err
	}},
	{"removed", "start", func(ctx context.Context, engine *client.Client, id, _ string) error {
		_, err := engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
		return err
	}},
	{"CPU shares", "start", func(ctx context.Context, engine *client.Client, id, _ string) error {
		_, err := engine.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{Resources: &container.Resources{CPUShares: 512}})
		return err
	}},
	{"network", "start", func(ctx context.Context, engine *client.Client, id, _ string) error {
		_, err := engine.NetworkDisconnect(ctx, plainProject+"_default", client.NetworkDisconnectOptions{Container: id})
		return err
	}},
}

const driftTimes = 5

// measureDrift does each thing to a service by hand, and times from the end of that to the event that mends it.
func measureDrift(ctx context.Context, r *run) error {
	w := r.world
	a, err := w.launch(ctx, "plain-03")
	if err != nil {
		return err
	}
	if err := w.bringPlain(ctx, a, "drifting", plainProject, changeStack); err != nil {
		return err
	}
	commit, err := w.head()
	if err != nil {
		return err
	}
	log := w.listen(ctx)
	baseline, err := w.startsByHand(ctx)
	if err != nil {
		return err
	}
	var worst time.Duration
	var told []string
	for _, what := range doneByHand {
		var took []time.Duration
		for range driftTimes {
			one, err := w.mend(ctx, log, what)
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", what.name, err, a.lastWords())
			}
			took = append(took, one)
			if err := a.sync(ctx, "drifting"); err != nil {
				return err
			}
			if err := a.awaitReady(ctx, time.Minute, "drifting", commit); err != nil {
				return err
			}
		}
		worst = max(worst, median(took))
		told = append(told, fmt.Sprintf("%s %s", what.name, round(median(took))))
	}
	r.record(driftMended, worst.Seconds(), "s", 0.5, "the slowest of what was done by hand to a service, until it is mended, medians of %d: %s; the engine alone takes %s to start a container", driftTimes, strings.Join(told, ", "), round(baseline))
	if err := a.stop(ctx); err != nil {
		return err
	}
	return testbed.RemoveProject(ctx, w.engine, plainProject)
}

// startsByHand is how long the engine takes to start a container when it is told to.
func (w *world) startsByHand(ctx context.Context) (time.Duration, error) {
	stray, err := w.stray(ctx)
	if err != nil {
		return 0, err
	}
	defer func() {
		_, _ = w.engine.ContainerRemove(context.WithoutCancel(ctx), stray, client.ContainerRemoveOptions{Force: true})
	}()
	var took []time.Duration
	for range driftTimes {
		begun := time.Now()
		if _, err := w.engine.ContainerStart(ctx, stray, client.ContainerStartOptions{}); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begun))
		if _, err := w.engine.ContainerKill(ctx, stray, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
			return 0, err
		}
		wait := w.engine.ContainerWait(ctx, stray, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
		select {
		case <-wait.Result:
		case err := <-wait.Error:
			return 0, err
		}
	}
	return median(took), nil
}

// mend does something to a service, and gives the time from then to the event that mends it.
func (w *world) mend(ctx context.Context, log *engineLog, what byHand) (time.Duration, error) {
	const service = "s0"
	running, err := testbed.Running(ctx, w.engine, plainProject)
	if err != nil {
		return 0, err
	}
	c := running[service]
	begun := time.Now()
	if err := what.do(ctx, w.engine, c.ID, strings.TrimPrefix(c.Names[0], "/")); err != nil {
		return 0, err
	}
	done := time.Now()
	if what.name == "renamed" { // its own event is none that mends
		first, err := log.await(ctx, plainProject, service, what.mends, begun)
		if err != nil {
			return 0, err
		}
		begun = first.at
	}
	mended, err := log.await(ctx, plainProject, service, what.mends, begun)
	if err != nil {
		return 0, err
	}
	return max(0, mended.at.Sub(done)), nil // the engine's own answer may come after
}
