// Package conformance holds the tests that every reconciler passes, on its real engine: observing changes nothing,
// plan equals apply, applying twice changes nothing, a cancelled context makes no change, a run that stops between any
// two changes is finished by the next one, and no secret is in anything that leaves the reconciler.
package conformance

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

// World is a piece of the real engine of its own, with a target that has something to do in it.
type World struct {
	Target reconcilers.Target
	// New gives a reconciler as after a restart of the process: it remembers nothing but Target.Dir and the engine.
	New func(t *testing.T) reconcilers.Reconciler
	// State is a canonical picture of the live state, without what differs from run to run (ids, times, random values).
	State func(t *testing.T) string
	// Help does what the world outside must do when the reconciler waits for it, such as an approval. May be nil.
	Help func(t *testing.T, wait *reconcilers.WaitError)
	// Secrets are values that may be in no error, plan, fact, log line or progress message.
	Secrets []string
	// NoChanges is set for kinds that only look, such as verification: their plan is always empty.
	NoChanges bool
}

// Subject is what a reconciler's own test hands over.
type Subject struct {
	// World makes a new world; it cleans up through t.Cleanup.
	World func(t *testing.T) *World
	// CrashPoints limits how many places of interruption are tried, spread evenly; 0: all.
	CrashPoints int
	// Limit bounds one drive to the desired state; default 2 minutes.
	Limit time.Duration
}

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	if s.Limit == 0 {
		s.Limit = 2 * time.Minute
	}
	var (
		end    string
		points int
	)
	t.Run("plan equals apply, twice changes nothing", func(t *testing.T) { end, points = s.planEqualsApply(t) })
	if t.Failed() {
		return
	}
	t.Run("a cancelled context changes nothing", s.cancelled)
	t.Run("a refused safe point changes nothing", s.refused)
	for _, point := range spread(points, s.CrashPoints) {
		t.Run(fmt.Sprintf("stops before change %d and resumes", point), func(t *testing.T) { s.resumes(t, point, end) })
	}
}

func (s Subject) planEqualsApply(t *testing.T) (end string, points int) {
	w, d := s.world(t)
	before := w.State(t)
	first := d.firstPlan(t)
	require.Equal(t, before, w.State(t), "observing and planning changed the live state")
	second := d.plan(t, d.observe(t))
	require.Equal(t, first.Changes, second.Changes, "two plans of one state differ")
	require.Equal(t, first.Content, second.Content, "the content of two plans of one state differs")
	points = d.drive(t)
	end = w.State(t)

	d.restart(t)
	observed := d.observe(t)
	require.NoError(t, observed.Err)
	again := d.plan(t, observed)
	require.Empty(t, again.Changes, "the plan after an apply is not empty")
	_, err := d.reconciler.Apply(d.ctx, w.Target, again, d.progress)
	require.NoError(t, err)
	require.Equal(t, end, w.State(t), "applying an empty plan changed the live state")
	for name, value := range d.outputs {
		live, ok := observed.Outputs[name]
		require.True(t, ok, "output %s is applied but not observed", name)
		require.True(t, value.Equal(live), "output %s differs between apply and observe", name)
		require.Equal(t, value.Secret(), live.Secret(), "output %s is secret only at times", name)
	}
	return end, points
}

func (s Subject) cancelled(t *testing.T) {
	w, d := s.world(t)
	plan := d.firstPlan(t)
	before := w.State(t)
	ctx, cancel := context.WithCancel(d.ctx)
	cancel()
	_, err := d.reconciler.Observe(ctx, w.Target)
	d.hear(err)
	_, err = d.reconciler.Apply(ctx, w.Target, plan, d.progress)
	d.hear(err)
	if !w.NoChanges {
		require.ErrorIs(t, err, context.Canceled, "apply under a cancelled context must say so")
	}
	require.Equal(t, before, w.State(t), "a cancelled context changed the live state")
}

func (s Subject) refused(t *testing.T) {
	w, d := s.world(t)
	if w.NoChanges {
		return
	}
	plan := d.firstPlan(t)
	before := w.State(t)
	d.progress.stopBefore = 0
	_, err := d.reconciler.Apply(d.ctx, w.Target, plan, d.progress)
	require.ErrorIs(t, err, errStopped, "apply must hand on the error of Begin")
	require.Equal(t, before, w.State(t), "a refused safe point changed the live state")
}

func (s Subject) resumes(t *testing.T, point int, end string) {
	w, d := s.world(t)
	d.progress.stopBefore = point
	d.drive(t)
	d.restart(t)
	d.drive(t)
	require.Equal(t, end, w.State(t), "the end differs from that of an undisturbed run")
}

func (s Subject) world(t *testing.T) (*World, *driver) {
	w := s.World(t)
	ctx, cancel := context.WithTimeout(t.Context(), s.Limit)
	t.Cleanup(cancel)
	d := &driver{world: w, ctx: ctx}
	w.Target.Log = d.logger()
	d.restart(t)
	t.Cleanup(func() { d.checkSecrets(t) })
	return w, d
}

// spread picks at most limit numbers from 0 to points-1, evenly, first and last among them.
func spread(points, limit int) []int {
	if limit <= 0 || limit > points {
		limit = points
	}
	var picked []int
	for i := range limit {
		n := 0
		if limit > 1 {
			n = i * (points - 1) / (limit - 1)
		}
		picked = append(picked, n)
	}
	return picked
}

func (d *driver) checkSecrets(t *testing.T) {
	said := d.said()
	for i, secret := range d.world.Secrets {
		require.NotEmpty(t, secret, "secret %d of the world is empty", i)
		require.False(t, strings.Contains(said, secret), "secret %d of the world is in what the reconciler said", i)
	}
}
