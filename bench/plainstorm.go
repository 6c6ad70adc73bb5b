package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dive-agent/testbed"
)

// Two thousand events of containers within ten seconds.
const (
	stormMissed = "storm-missed"
	stormMemory = "storm-memory"
)

const (
	stormEvents  = 2000
	stormTime    = 10 * time.Second
	stormLimit   = 40 * time.Second // on a machine that is busy with other things
	stormWorkers = 4
	stormMends   = 30 * time.Second // shorter than the minute after which a scan sees what no event told
	strayName    = "dive-bench-stray"
)

// measureStorm has four clients pause, unpause and rename containers of a stack and of nobody's, about two hundred times a second, and
// leaves some services broken at the end: what the agent does not mend was missed.
func measureStorm(ctx context.Context, r *run) error {
	w := r.world
	a, err := w.launch(ctx, "plain-04")
	if err != nil {
		return err
	}
	if err := w.bringPlain(ctx, a, "stormy", plainProject, changeStack); err != nil {
		return err
	}
	stray, err := w.stray(ctx)
	if err != nil {
		return err
	}
	defer func() {
		_, _ = w.engine.ContainerRemove(context.WithoutCancel(ctx), stray, client.ContainerRemoveOptions{Force: true})
	}()
	storms := []*storm{}
	for range 3 { // the first shows what the agent needs to be in a storm at all, the others whether it grows
		s := &storm{world: w, stray: stray, agent: a}
		if err := s.rage(ctx); err != nil {
			return fmt.Errorf("%w\n%s", err, a.lastWords())
		}
		storms = append(storms, s)
	}
	first, last := storms[0], storms[2]
	missed := 0
	for _, s := range storms {
		missed += s.wrong
	}
	r.record(stormMissed, float64(missed), "services", 0, "of %d left broken in each of three storms of %s, %s and %s; right again %s after the last one's end",
		len(doneByHand), storms[0], storms[1], storms[2], round(last.mended))
	r.record(stormMemory, float64(last.after)/float64(first.after), "x", 1.1, "resident after the third storm, against after the first: %.1f MB and %.1f MB; before all %.1f MB, at most %.1f MB within one",
		float64(last.after)/1e6, float64(first.after)/1e6, float64(first.before)/1e6, float64(max(first.most, storms[1].most, last.most))/1e6)
	if err := a.stop(ctx); err != nil {
		return err
	}
	return testbed.RemoveProject(ctx, w.engine, plainProject)
}

// stray is a container of nobody's stack.
func (w *world) stray(ctx context.Context) (id string, err error) {
	_, _ = w.engine.ContainerRemove(ctx, strayName, client.ContainerRemoveOptions{Force: true}) // of a run that was cut off
	_, _ = w.engine.ContainerRemove(ctx, strayName+"-2", client.ContainerRemoveOptions{Force: true})
	made, err := w.engine.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: strayName, Config: &container.Config{Image: string(testbed.Base), Cmd: []string{"sleep", "36000"}},
	})
	return made.ID, err
}

// storm is one of them.
type storm struct {
	*world
	stray string
	agent *agentProcess

	events              int64
	took, mended        time.Duration
	before, most, after int64 // resident memory
	wrong               int
}

func (s *storm) String() string { return fmt.Sprintf("%d events in %s", s.events, round(s.took)) }

func (s *storm) rage(ctx context.Context) (err error) {
	pid := s.agent.cmd.Process.Pid
	if s.before, err = resident(pid); err != nil {
		return err
	}
	raging, cancel := context.WithTimeout(ctx, stormLimit)
	defer cancel()
	count := s.count(raging)
	begun := time.Now()
	var all sync.WaitGroup
	for i := range stormWorkers {
		all.Go(func() { s.work(raging, i, count) })
	}
	for count.Load() < stormEvents && raging.Err() == nil {
		now, err := resident(pid)
		if err != nil {
			return err
		}
		s.most = max(s.most, now)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-raging.Done():
		}
	}
	s.took, s.events = time.Since(begun), count.Load()
	all.Wait()
	if s.events < stormEvents {
		return fmt.Errorf("only %d events in %s", s.events, round(s.took))
	}
	if err := s.breakSome(ctx); err != nil {
		return err
	}
	ended := time.Now()
	err = testbed.Until(ctx, stormMends, 50*time.Millisecond, "all services are as declared", func() error { return s.right(ctx) })
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err != nil {
		s.run.say("%v\n%s", err, s.agent.lastWords())
	}
	s.mended = time.Since(ended)
	if err := s.agent.sync(ctx, "stormy"); err != nil {
		return err
	}
	s.after, err = resident(pid)
	return err
}

// count counts the events of containers that the engine tells.
func (s *storm) count(ctx context.Context) *atomic.Int64 {
	count := &atomic.Int64{}
	stream := s.engine.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.Add("type", "container")})
	go func() {
		for {
			select {
			case <-stream.Messages:
				count.Add(1)
			case err := <-stream.Err:
				_ = err // it ends with the storm
				return
			}
		}
	}()
	return count
}

// work is one client, which does its part of what makes so many events in the time. Where it meets the agent, the engine refuses one of
// them.
func (s *storm) work(ctx context.Context, number int, count *atomic.Int64) {
	tick := time.NewTicker(stormTime * stormWorkers / stormEvents)
	defer tick.Stop()
	for i := number; count.Load() < stormEvents; i += stormWorkers {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		own := fmt.Sprintf("%s-s%d-1", plainProject, i/stormWorkers%changeStack)
		switch {
		case number == 0 && i/stormWorkers%2 == 0:
			_, _ = s.engine.ContainerRename(ctx, s.stray, client.ContainerRenameOptions{NewName: strayName + "-2"})
		case number == 0:
			_, _ = s.engine.ContainerRename(ctx, s.stray, client.ContainerRenameOptions{NewName: strayName})
		case number%2 == 1:
			_, _ = s.engine.ContainerPause(ctx, own, client.ContainerPauseOptions{})
		default:
			_, _ = s.engine.ContainerUnpause(ctx, own, client.ContainerUnpauseOptions{})
		}
	}
}

// breakSome does each thing that somebody may do to a service of its own.
func (s *storm) breakSome(ctx context.Context) error {
	for i, what := range doneByHand {
		name := fmt.Sprintf("%s-s%d-1", plainProject, i)
		_, _ = s.engine.ContainerUnpause(ctx, name, client.ContainerUnpauseOptions{}) // it may be paused still
		c, err := s.engine.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		if err := what.do(ctx, s.engine, c.Container.ID, name); err != nil && !strings.Contains(err.Error(), "already paused") {
			return fmt.Errorf("%s: %w", what.name, err)
		}
	}
	return nil
}

// right says what is not as declared, and counts it.
func (s *storm) right(ctx context.Context) error {
	s.wrong = 0
	var wrong []error
	for i := range changeStack {
		name := fmt.Sprintf("%s-s%d-1", plainProject, i)
		c, err := s.engine.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
		if err == nil {
			state := c.Container.State
			_, connected := c.Container.NetworkSettings.Networks[plainProject+"_default"]
			if !state.Running || state.Paused || c.Container.HostConfig.CPUShares != 0 || !connected {
				err = fmt.Errorf("%s is %s, with %d CPU shares, on its network: %v", name, state.Status, c.Container.HostConfig.CPUShares, connected)
			}
		}
		if err != nil {
			s.wrong++
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}
