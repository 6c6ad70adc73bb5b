package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/report"
	"dive-agent/state"
)

func TestTheGateTellsAllThatItWaitsFor(t *testing.T) {
	change := func(address string, destroys bool, asks string) reconcilers.Change {
		return reconcilers.Change{Action: reconcilers.Update, Address: address, Destroys: destroys, Asks: asks}
	}
	closed := &reconcilers.WaitError{For: "its window", Until: time.Unix(9, 0)}
	const protected = "keycloak_realm is protected"
	for name, c := range map[string]struct {
		plan reconcilers.Plan
		want string // after "waits for approval of "; empty: needs none
	}{
		"nothing":        {reconcilers.Plan{Changes: []reconcilers.Change{change("a", false, "")}}, ""},
		"a destroy":      {reconcilers.Plan{Changes: []reconcilers.Change{change("a", true, ""), change("b", false, "")}}, "1 destroy (DIGEST): a"},
		"asked":          {reconcilers.Plan{Changes: []reconcilers.Change{change("a", false, protected)}}, "1 change (DIGEST): a"},
		"both":           {reconcilers.Plan{Changes: []reconcilers.Change{change("a", false, protected), change("b", true, "x"), change("c", false, protected), change("d", false, protected)}}, "1 destroy and 3 changes (DIGEST): b, a, c and 1 more"},
		"the whole plan": {reconcilers.Plan{Changes: []reconcilers.Change{change("a", false, "")}, Asks: []string{"9 changes, and maxChanges is 8"}}, "the plan (DIGEST); 9 changes, and maxChanges is 8"},
		"held too":       {reconcilers.Plan{Changes: []reconcilers.Change{change("a", true, "")}, Held: closed}, "1 destroy (DIGEST): a; once approved, it waits for its window"},
	} {
		t.Run(name, func(t *testing.T) {
			inst := &desired.Instance{Position: desired.Position{File: "instances/deu.yaml"}, Approve: map[string]string{}}
			digest, err := gate(inst, "identity", c.plan)
			if c.want == "" {
				require.NoError(t, err)
				require.Empty(t, digest)
				return
			}
			var blocked *reconcilers.BlockedError
			require.ErrorAs(t, err, &blocked)
			require.Equal(t, "waits for approval of "+c.want, strings.Replace(blocked.Message, digest, "DIGEST", 1))
			require.Equal(t, "To let exactly this plan through, merge into instances/deu.yaml: spec: {approve: {identity: DIGEST}}", strings.Replace(blocked.Do, digest, "DIGEST", 1))
			inst.Approve["identity"] = digest
			_, err = gate(inst, "identity", c.plan)
			require.Equal(t, c.plan.Held, err, "an approval opens no window")
			c.plan.Changes[0].Address = "other"
			_, err = gate(inst, "identity", c.plan)
			require.ErrorAs(t, err, &blocked, "it is for that plan alone")
		})
	}
}

// A plan that waits for its window changes nothing, takes up no pass, and is no trouble.
func TestAHeldPlanWaitsForItsTime(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"}, [2]string{"b", "two"})
	w, _ := newHost(t, world)
	w.round(t.Context(), "test")
	require.Equal(t, "Ready", w.stored(t).Phase)

	world.instance.Components[0].Spec.(*entry).Value = desired.Literal("three")
	opens := world.clock.Now().Add(time.Hour)
	world.ledger.held["a"] = &reconcilers.WaitError{For: "its window, which opens Sun 02:00", Until: opens, Do: "To have it applied before, merge that"}
	require.Equal(t, w.resync(), w.round(t.Context(), "test"), "others are looked at meanwhile")
	require.Len(t, world.ledger.made(), 2)
	status := statusOf(w.situation(w.stored(t), w.assigned, nil))
	require.Equal(t, report.Progressing, status.Phase)
	require.Equal(t, []string{"a waits for its window, which opens Sun 02:00"}, status.Why)
	require.Equal(t, []string{"To have it applied before, merge that"}, status.Next)
	require.NoError(t, w.Store.View(t.Context(), func(r state.Reader) error {
		runs, err := r.Runs("deu", 0)
		require.Len(t, runs, 1, "only what applies something is a run")
		return err
	}))

	world.clock.move(time.Hour - time.Minute)
	require.Equal(t, time.Minute, w.round(t.Context(), "test"), "it is there when the window opens")
	delete(world.ledger.held, "a")
	world.clock.move(time.Minute)
	w.round(t.Context(), "test")
	require.Equal(t, "three", world.ledger.entries["a"])
}

func TestAPlanOfWhatWaitsSaysWhatToMerge(t *testing.T) {
	w := newWorld(t, [2]string{"a", "one"})
	w.ledger.asks["a"] = "a is protected"
	w.ledger.held["a"] = &reconcilers.BlockedError{Reason: "PlanOnly", Message: "1 to update", Do: "merge mode: apply"}
	p := newPass(w.options)
	require.False(t, p.survey(t.Context()), "there is nothing that a pass could do")
	told := p.previewNode(p.nodes["a"])
	require.Equal(t, "1 to update", told.Held)
	require.Equal(t, "merge mode: apply", told.Do)
	require.Equal(t, "spec: {approve: {a: "+told.Digest+"}}", told.Approve)
	w.instance.Approve["a"] = told.Digest
	p = w.run(t.Context())
	require.Empty(t, w.ledger.made())
	view := p.views()[0]
	require.Equal(t, NodeBlocked, view.State)
	require.Equal(t, "PlanOnly", view.Reason)
	require.Equal(t, told.Digest, view.Digest)
}
