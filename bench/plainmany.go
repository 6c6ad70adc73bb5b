package bench

import (
	"context"
	"fmt"
	"time"

	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

// Fifty stacks on one host, on which there is nothing to do.
const (
	manyMemory = "stacks-50-memory"
	manyCPU    = "stacks-50-cpu"
)

const (
	manyStacks   = 50
	manyServices = 2 // of each stack
	resyncEvery  = 5 // minutes: how often each instance is looked at though nothing was heard
)

func manyName(i int) string    { return fmt.Sprintf("many-%02d", i) }
func manyProject(i int) string { return "dive-bench-" + manyName(i) }

// measureMany watches an agent with fifty stacks, as a host has it by default, for a minute in which it hears nothing; the
// round that each stack has every five minutes is ordered afterwards, and its share counted in.
func measureMany(ctx context.Context, r *run) error {
	w := r.world
	a, err := w.launch(ctx, "many-01")
	if err != nil {
		return err
	}
	files := gitserver.Files{}
	for i := range manyStacks {
		plainStack(files, manyName(i), a.name, manyProject(i), manyServices, "first", "first")
	}
	commit, err := w.merge("Add fifty stacks", files)
	if err != nil {
		return err
	}
	if _, err := a.order(ctx, "/v1/poll"); err != nil {
		return err
	}
	if err := a.awaitMany(ctx, 6*time.Minute, commit); err != nil {
		return err
	}
	if err := a.stop(ctx); err != nil {
		return err
	}
	if err := a.start(ctx, false); err != nil {
		return err
	}
	if err := a.awaitMany(ctx, 2*time.Minute, commit); err != nil {
		return err
	}
	if err := a.syncMany(ctx); err != nil { // for what their watches may have missed
		return err
	}
	if err := r.recordMany(ctx, a); err != nil {
		return err
	}
	if err := a.stop(ctx); err != nil {
		return err
	}
	for i := range manyStacks {
		if err := testbed.RemoveProject(ctx, w.engine, manyProject(i)); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) recordMany(ctx context.Context, a *agentProcess) error {
	pid := a.cmd.Process.Pid
	before, err := cpuOf(pid)
	if err != nil {
		return err
	}
	begun := time.Now()
	select {
	case <-time.After(idleWindow):
	case <-ctx.Done():
		return ctx.Err()
	}
	window := time.Since(begun)
	idle, err := cpuOf(pid)
	if err != nil {
		return err
	}
	rss, err := resident(pid)
	if err != nil {
		return err
	}
	if err := a.syncMany(ctx); err != nil {
		return err
	}
	after, err := cpuOf(pid)
	if err != nil {
		return err
	}
	later, err := resident(pid)
	if err != nil {
		return err
	}
	polls, err := a.pollsOf(ctx, pid)
	if err != nil {
		return err
	}
	after -= polls // that came with the orders
	rounds := time.Duration(float64(after-idle) * float64(window) / float64(resyncEvery*time.Minute))
	r.record(manyCPU, 100*float64(idle-before+rounds)/float64(window), "%", 0.2, "of a core, %d stacks of %d services; %s in %s, and a fifth of the %s that a round of each takes",
		manyStacks, manyServices, round(idle-before), round(window), round(after-idle))
	r.record(manyMemory, float64(max(rss, later))/1e6, "MB", 60, "resident, %d stacks of %d services; %.1f MB before those rounds, %s", manyStacks, manyServices, float64(rss)/1e6, anonymous(pid))
	return nil
}

// pollsOf is what as many polls take as there are stacks.
func (a *agentProcess) pollsOf(ctx context.Context, pid int) (time.Duration, error) {
	before, err := cpuOf(pid)
	if err != nil {
		return 0, err
	}
	for range manyStacks {
		if _, err := a.order(ctx, "/v1/poll"); err != nil {
			return 0, err
		}
	}
	after, err := cpuOf(pid)
	return after - before, err
}

func (a *agentProcess) awaitMany(ctx context.Context, limit time.Duration, commit string) error {
	for i := range manyStacks {
		if err := a.awaitReady(ctx, limit, manyName(i), commit); err != nil {
			return err
		}
	}
	return nil
}

func (a *agentProcess) syncMany(ctx context.Context) error {
	for i := range manyStacks {
		if err := a.sync(ctx, manyName(i)); err != nil {
			return err
		}
	}
	return nil
}
