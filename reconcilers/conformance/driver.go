package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

var errStopped = errors.New("stopped by the conformance suite")

// driver does what the agent does: observe, plan, apply, again when told to wait. It keeps everything that was said.
type driver struct {
	world      *World
	ctx        context.Context
	reconciler reconcilers.Reconciler
	progress   *progress
	outputs    map[string]desired.Value

	mu    sync.Mutex
	heard bytes.Buffer
}

func (d *driver) restart(t *testing.T) {
	if closer, ok := d.reconciler.(io.Closer); ok {
		require.NoError(t, closer.Close())
	}
	d.reconciler = d.world.New(t)
	d.progress = &progress{driver: d, stopBefore: -1}
	if closer, ok := d.reconciler.(io.Closer); ok {
		t.Cleanup(func() { _ = closer.Close() })
	}
}

func (d *driver) observe(t *testing.T) reconcilers.Observed {
	t.Helper()
	observed, err := d.reconciler.Observe(d.ctx, d.world.Target)
	d.hear(err)
	require.NoError(t, err)
	d.hear(observed.Err)
	d.hear(observed.Facts)
	return observed
}

func (d *driver) plan(t *testing.T, observed reconcilers.Observed) reconcilers.Plan {
	t.Helper()
	plan, err := d.reconciler.Plan(d.world.Target, observed)
	d.hear(err)
	require.NoError(t, err)
	d.hear(plan.Changes)
	d.hear(plan.Content)
	seen := map[string]bool{}
	for _, change := range plan.Changes {
		require.False(t, seen[name(change)], "%s is twice in one plan", name(change))
		seen[name(change)] = true
	}
	return plan
}

// firstPlan is the plan for a new world. It waits for a world that is still starting: there is something to do in it.
func (d *driver) firstPlan(t *testing.T) reconcilers.Plan {
	t.Helper()
	for {
		observed := d.observe(t)
		plan := d.plan(t, observed)
		var wait *reconcilers.WaitError
		if d.world.NoChanges || len(plan.Changes) > 0 || !errors.As(observed.Err, &wait) {
			require.Equal(t, d.world.NoChanges, len(plan.Changes) == 0, "the world must give the reconciler something to do: %v", observed.Err)
			return plan
		}
		d.pause(t, wait)
	}
}

// drive goes on until the plan is empty and nothing keeps the target from being ready, or until the test's stop. It gives
// the number of changes.
func (d *driver) drive(t *testing.T) int {
	t.Helper()
	for round := 0; ; round++ {
		require.Less(t, round, 50, "not in the desired state after 50 rounds")
		err := d.try(t)
		if err == nil || errors.Is(err, errStopped) {
			return d.progress.begun
		}
		var wait *reconcilers.WaitError
		require.ErrorAs(t, err, &wait, "neither done nor waiting: %v", err)
		d.pause(t, wait)
	}
}

// pause gives the world time for what is waited for, and does what it must do for it.
func (d *driver) pause(t *testing.T, wait *reconcilers.WaitError) {
	t.Helper()
	if d.world.Help != nil {
		d.world.Help(t, wait)
	}
	select {
	case <-time.After(max(wait.Again, 100*time.Millisecond)):
	case <-d.ctx.Done():
		require.NoError(t, d.ctx.Err(), "still %v", wait)
	}
}

// try is one pass. It fails the test where plan and apply differ.
func (d *driver) try(t *testing.T) error {
	t.Helper()
	observed, err := d.reconciler.Observe(d.ctx, d.world.Target)
	d.hear(err)
	if err != nil {
		return err
	}
	plan := d.plan(t, observed)
	if len(plan.Changes) == 0 {
		d.hear(observed.Err)
		return observed.Err
	}
	d.progress.expect(plan)
	applied, err := d.reconciler.Apply(d.ctx, d.world.Target, plan, d.progress)
	d.hear(err)
	require.Empty(t, d.progress.problems(), "progress does not follow the plan")
	if err != nil {
		return err
	}
	require.Empty(t, d.progress.missing(), "apply succeeded without these changes of its plan")
	d.hear(applied.Facts)
	d.outputs = maps.Clone(applied.Outputs)
	return nil
}

// hear keeps what the reconciler said, for the search for secrets.
func (d *driver) hear(what any) {
	if what == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err, ok := what.(error); ok {
		fmt.Fprintf(&d.heard, "%v\n%+v\n", err, err)
		return
	}
	text, err := json.Marshal(what)
	if err != nil {
		text = fmt.Appendf(nil, "%+v", what)
	}
	d.heard.Write(text)
	fmt.Fprintf(&d.heard, "\n%+v\n", what)
}

func (d *driver) said() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.heard.String()
}

func (d *driver) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(listener{d}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type listener struct{ driver *driver }

func (l listener) Write(p []byte) (int, error) {
	l.driver.mu.Lock()
	defer l.driver.mu.Unlock()
	return l.driver.heard.Write(p)
}
