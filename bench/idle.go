package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"dive-agent/testbed"
)

// An agent with nothing to do.
const (
	idleMemory = "idle-memory"
	idleCPU    = "idle-cpu"
)

// idleWindow is how long the agent is watched; it polls each 10 s.
const idleWindow = time.Minute

// measureIdle starts the agent anew as a host has it by default, without a listener, and watches it do nothing for a minute.
func measureIdle(ctx context.Context, r *run) error {
	w := r.world
	if err := w.needSpoke(ctx); err != nil {
		return err
	}
	before, err := resident(w.spoke.cmd.Process.Pid)
	if err != nil {
		return err
	}
	if err := w.restart(ctx, false); err != nil {
		return err
	}
	pid := w.spoke.cmd.Process.Pid
	used, err := cpuOf(pid)
	if err != nil {
		return err
	}
	begun := time.Now()
	select {
	case <-time.After(idleWindow):
	case <-ctx.Done():
		return ctx.Err()
	}
	took := time.Since(begun)
	now, err := cpuOf(pid)
	if err != nil {
		return err
	}
	rss, err := resident(pid)
	if err != nil {
		return err
	}
	r.record(idleMemory, float64(rss)/1e6, "MB", 45, "resident, one spoke with nine services, %s after its start and %s", round(idleWindow), anonymous(pid))
	r.record(idleCPU, 100*float64(now-used)/float64(took), "%", 0.1, "of a core, polling each 10 s; %s in %s; resident after bringing the spoke up: %.1f MB",
		round(now-used), round(took), float64(before)/1e6)
	return w.restart(ctx, true)
}

// restart starts the spoke's agent anew and waits until it looked at everything twice: once as it is new, once more for what
// its watches may have missed.
func (w *world) restart(ctx context.Context, listening bool) error {
	if err := w.spoke.stop(ctx); err != nil {
		return err
	}
	if err := w.spoke.start(ctx, listening); err != nil {
		return err
	}
	commit, err := w.head()
	if err != nil {
		return err
	}
	if err := w.spoke.awaitReady(ctx, time.Minute, spoke, commit); err != nil { // its first answers come before its first revision
		return err
	}
	for range 2 {
		if err := w.spoke.sync(ctx, spoke); err != nil {
			return err
		}
	}
	return nil
}

// cpuOf is what all threads of a process have used, as the scheduler counts it: a tick of /proc/PID/stat would be a sixth of
// the bar. Threads of a Go program do not end.
func cpuOf(pid int) (total time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("process %d has no threads, or this kernel keeps no schedstat", pid)
	}
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		first, _, _ := bytes.Cut(text, []byte(" "))
		nanoseconds, err := strconv.ParseInt(string(first), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		total += time.Duration(nanoseconds)
	}
	return total, nil
}

// resident is the memory of a process that is in the machine's, in bytes.
func resident(pid int) (int64, error) { return testbed.Memory(pid, testbed.Resident) }

// anonymous tells how much of it is the process's own, beside the pages of its program that it touched.
func anonymous(pid int) string {
	own, err := testbed.Memory(pid, testbed.OwnResident)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%.1f MB of it anonymous", float64(own)/1e6)
}
