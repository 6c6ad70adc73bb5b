package report_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/state"
)

func aPlan(digest string) report.Plan {
	return report.Plan{
		Node: "identity", Digest: digest, Manifest: "instances/deu.yaml", Revision: attempted,
		Changes: []report.PlanChange{
			{Action: "delete", Address: `keycloak_user.test["deu-5"]`, Reason: "the module has it no longer", Destroys: true},
			{Action: "update", Address: "keycloak_realm.this", Reason: "display_name", Sets: []report.PlanSet{{Path: "display_name", Before: "Germany", After: "[x](http://evil) | `hush`"}}},
		},
	}
}

func keepPlans(t *testing.T, store state.Store, at time.Time, waiting ...report.Plan) (plans []report.Plan) {
	t.Helper()
	require.NoError(t, store.Update(t.Context(), func(tx state.Tx) (err error) {
		plans, err = report.KeepPlans(tx, "deu", waiting, at)
		return err
	}))
	return plans
}

func TestPlansAreKeptAndPruned(t *testing.T) {
	store := openStore(t, newClock())
	for i := range 9 {
		keepPlans(t, store, t0.Add(time.Duration(i)*time.Minute), aPlan(fmt.Sprintf("%016d", i)))
	}
	plans := keepPlans(t, store, t0.Add(time.Hour), aPlan(fmt.Sprintf("%016d", 8)))
	require.Len(t, plans, 6, "what waits, and five that did")
	require.Equal(t, t0.Add(8*time.Minute), plans[0].Since.UTC())
	require.Zero(t, plans[0].Ended)
	require.Equal(t, []string{"0000000000000007", "0000000000000003"}, []string{plans[1].Digest, plans[5].Digest})
	require.Equal(t, t0.Add(8*time.Minute), plans[1].Ended.UTC())
	back := keepPlans(t, store, t0.Add(2*time.Hour), aPlan(fmt.Sprintf("%016d", 7)))
	require.Equal(t, t0.Add(2*time.Hour), back[0].Since, "one that comes back waits anew")
	require.Len(t, keepPlans(t, store, t0), 5)
}

func TestThePageOfAPlan(t *testing.T) {
	p := aPlan("8c1f02b7d9e4a610")
	p.Since = t0
	golden(t, "plan.md", p.Page("deu"))
	p.Ended = t0.Add(time.Hour)
	require.NotContains(t, string(p.Page("deu")), "approve:")
	for range 12 {
		p.Changes = append(p.Changes, p.Changes...)
	}
	require.LessOrEqual(t, len(p.Page("deu")), 64<<10)
	require.Contains(t, string(p.Page("deu")), "more\n")
}

func TestThePageOfAPlanStandsBesideTheStatus(t *testing.T) {
	repo := newRepository(t)
	f := newFixture(t, func(o *report.Options) {
		toBranches(newRemote(t, repo))(o)
		o.Redact = strings.NewReplacer("hush", "(secret)").Replace
	})
	push := func(waiting ...report.Plan) {
		f.clock.advance(10 * time.Second)
		s := degraded()
		for _, p := range keepPlans(t, f.store, f.clock.Now(), waiting...) {
			s.Plans = append(s.Plans, p.Link())
		}
		f.publish(s)
		require.NoError(t, f.Flush(t.Context()))
	}
	push(aPlan("8c1f02b7d9e4a610"))
	readme := repo.git("show", "status/deu:README.md")
	require.Contains(t, readme, "[8c1f02b7d9e4a610](plans/8c1f02b7d9e4a610.md) of identity, 2 changes, 1 of them destroys")
	require.Contains(t, readme, "merge into `instances/deu.yaml`:\n\n```yaml\nspec: {approve: {identity: 8c1f02b7d9e4a610}}\n```\n")
	page := repo.git("show", "status/deu:plans/8c1f02b7d9e4a610.md")
	require.Contains(t, page, "Waits for approval since")
	require.Contains(t, page, "(secret)")
	require.NotContains(t, page, "hush")
	require.Contains(t, repo.git("show", "status/deu:status.yaml"), "approve: 'spec: {approve: {identity: 8c1f02b7d9e4a610}}'")

	push()
	require.Contains(t, repo.git("show", "status/deu:README.md"), "Plans that waited before: [8c1f02b7d9e4a610](plans/8c1f02b7d9e4a610.md) of identity\n")
	require.Contains(t, repo.git("show", "status/deu:plans/8c1f02b7d9e4a610.md"), "it does no longer")
	for i := range 7 {
		push(aPlan(fmt.Sprintf("%016d", i)))
	}
	require.Len(t, strings.Split(repo.git("ls-tree", "--name-only", "status/deu:plans"), "\n"), 6)
}
