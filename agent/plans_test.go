package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/report"
	"dive-agent/state"
)

func TestAPlanThatWaitsIsKeptForReview(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	w, _ := newHost(t, world)
	w.round(t.Context(), "test")
	plans := func() (kept []report.Plan) {
		require.NoError(t, w.Store.View(t.Context(), func(r state.Reader) (err error) {
			kept, err = report.Plans(r, w.name)
			return err
		}))
		return kept
	}
	require.Empty(t, plans())
	spec := world.instance.Components[0].Spec.(*entry)
	spec.Value, spec.Destroys = desired.Literal("two"), true
	w.round(t.Context(), "test")
	first := plans()
	require.Len(t, first, 1)
	require.Equal(t, "a", first[0].Node)
	require.Equal(t, "instances/deu.yaml", first[0].Manifest)
	require.Equal(t, []report.PlanChange{{Action: "update", Address: "a", Reason: "is one, wants two", Destroys: true}}, first[0].Changes)

	world.clock.move(time.Minute)
	w.round(t.Context(), "test")
	require.Equal(t, first, plans(), "the same plan waits since it was first seen")
	status, err := lastOf(t, w)
	require.NoError(t, err)
	require.Len(t, status.Plans, 1)
	require.Equal(t, "spec: {approve: {a: "+first[0].Digest+"}}", status.Plans[0].Approve)
	require.Equal(t, 1, status.Plans[0].Destroy)

	world.instance.Approve["a"] = first[0].Digest
	w.round(t.Context(), "test")
	require.Equal(t, "two", world.ledger.entries["a"])
	require.Equal(t, world.clock.Now().UTC(), plans()[0].Ended.UTC())
	status, err = lastOf(t, w)
	require.NoError(t, err)
	require.False(t, status.Plans[0].Waits)
	require.Empty(t, status.Plans[0].Approve)
}

func lastOf(t *testing.T, w *worker) (status *report.Status, err error) {
	t.Helper()
	require.NoError(t, w.Store.View(t.Context(), func(r state.Reader) error {
		status, err = lastStatus(r, w.name)
		return err
	}))
	return status, err
}
