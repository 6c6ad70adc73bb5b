package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/federation"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

// joiners are spokes that are merged in one commit, each with a host and an agent of its own, and the hub whose agent approves
// them.
type joiners struct {
	*agenttest.Fleet
	t      *testing.T
	hub    *hubtest.Server
	usa    *agenttest.Host
	spokes map[string]*agenttest.Host // by instance
	limit  time.Duration
}

const usaManifest = `apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: usa}
spec:
  role: hub
  host: usa-01
  values: {code: USA, country: United States}
  secrets: {FEDERATION_ADMIN_KEY: {provide: true}}
  components:
    federation:
      kind: SpokeApprovals
      adminKey: ${FEDERATION_ADMIN_KEY}
      publish: [handover]
`

// newJoiners merges the hub, has its agent run, and starts those of n hosts on which nothing is to be done yet.
func newJoiners(t *testing.T, n int, limit time.Duration, o agenttest.HostOptions) *joiners {
	t.Helper()
	j := &joiners{Fleet: agenttest.NewFleet(t), t: t, spokes: map[string]*agenttest.Host{}, limit: limit}
	j.hub = hubtest.Start(t, hubtest.StartMongo(t, true).Database(t), hub.Config{})
	o.Name = "usa-01"
	j.usa = agenttest.NewHost(t, j.Fleet, o)
	for i := range n {
		name := federation.Name(i)
		o.Name = name + "-01"
		j.spokes[name] = agenttest.NewHost(t, j.Fleet, o)
	}
	files := map[string]string{
		"fleet.yaml": fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec:\n  hub: {instance: usa, url: %q, caFile: ca.pem}\n", j.hub.URL),
		"ca.pem":     string(j.hub.CA.PEM()), "hosts/usa-01.yaml": j.usa.Do("enroll"), "instances/usa.yaml": usaManifest,
	}
	federation.AddMember(files)
	j.Merge("The hub", files)
	j.usa.Provide("usa", "FEDERATION_ADMIN_KEY", hubtest.AdminKey)
	j.usa.Start()
	j.usa.AwaitPhase(limit, "usa", report.Ready, "")
	for _, h := range j.spokes {
		h.Launch()
	}
	return j
}

// merge adds all spokes and their hosts in one commit.
func (j *joiners) merge() (commit string) {
	j.t.Helper()
	files := map[string]string{}
	for name, h := range j.spokes {
		files["hosts/"+h.Name+".yaml"] = h.Do("enroll")
		federation.Joins(files, name, h.Name)
	}
	return j.Merge(fmt.Sprintf("Add %d spokes", len(j.spokes)), files)
}

func (j *joiners) names() []string { return slices.Sorted(maps.Keys(j.spokes)) }

// unsettled says what of a spoke is not as it is to be in the end: Ready, with the hub's word that is sealed to its host.
func unsettled(s *report.Status, commit string) error {
	verified := slices.ContainsFunc(s.Conditions, func(c report.Condition) bool { return c.Type == "ImportsVerified" && c.Status })
	if s.Phase != report.Ready || s.Applied != commit || !verified {
		return fmt.Errorf("%s is %s at %.7s, imports verified: %v: %s", s.Instance, s.Phase, s.Applied, verified, why(s))
	}
	return nil
}

// settle waits until all agents say that all is well.
func (j *joiners) settle(commit string) {
	j.t.Helper()
	left := j.names()
	testbed.Eventually(j.t, j.limit, "all spokes are Ready", func() (err error) {
		left = slices.DeleteFunc(left, func(name string) bool {
			s, problem := j.spokes[name].Status(name)
			if problem == nil {
				problem = unsettled(s, commit)
			}
			err = errors.Join(err, problem)
			return problem == nil
		})
		return err
	})
	j.usa.Await(j.limit, "usa", "has approved all", func(s *report.Status) bool {
		return s.Phase == report.Ready && strings.Contains(s.News+fmt.Sprint(s.Components), fmt.Sprintf("%d approved", len(j.spokes)))
	})
}

// published waits until every status branch, also the hub's, ends with a commit that its host signed, that verify-status
// accepts, and that says what the agent says.
func (j *joiners) published(commit string) {
	j.t.Helper()
	testbed.Eventually(j.t, j.limit, "all status branches are verified and tell the end", func() error {
		out, err := j.usa.Try("verify-status", "--output", "json")
		if err != nil {
			return err
		}
		var told struct {
			OK       bool
			Branches []verdict
		}
		if err := json.Unmarshal([]byte(out), &told); err != nil {
			return err
		}
		if len(told.Branches) != len(j.spokes)+1 || !told.OK {
			return fmt.Errorf("%d branches: %s", len(told.Branches), out)
		}
		for _, v := range told.Branches {
			if v.Verdict != "verified" || v.Phase != string(report.Ready) {
				err = errors.Join(err, fmt.Errorf("%+v", v))
			}
		}
		return err
	})
	for _, name := range j.names() {
		content, err := j.Repo.Git("show", "status/"+name+":status.yaml")
		require.NoError(j.t, err)
		require.Contains(j.t, content, "applied: "+commit, name)
	}
}

// approved asks the hub: one record each, approved once, with what its manifest grants, and a token that was handed over.
func (j *joiners) approved() {
	j.t.Helper()
	records, err := j.hub.Store.Spokes(j.t.Context(), "")
	require.NoError(j.t, err)
	require.Len(j.t, records, len(j.spokes))
	for _, r := range records {
		require.Contains(j.t, j.spokes, strings.ToLower(r.InstanceCode))
		require.Equal(j.t, hub.Approved, r.Status, r.InstanceCode)
		require.Equal(j.t, []string{"partner", "SECRET", "filtered", "policy:base policy:org"},
			[]string{r.TrustLevel, r.MaxClassification, r.DataIsolationLevel, strings.Join(r.AllowedPolicyScopes, " ")}, r.InstanceCode)
		require.Equal(j.t, 1, j.hub.Calls("POST /api/federation/spokes/"+r.SpokeID+"/approve"), r.InstanceCode)
		tokens, err := j.hub.Store.Tokens(j.t.Context(), r.SpokeID)
		require.NoError(j.t, err)
		require.NotEmpty(j.t, tokens, r.InstanceCode)
	}
	require.Equal(j.t, len(j.spokes), j.hub.Calls("POST /api/federation/register"), "nobody registers twice")
}

// join merges all at once, while Git refuses the first pushes and somebody else has written to some of the branches.
func (j *joiners) join() {
	j.t.Helper()
	strangers := 0
	for i, name := range j.names() {
		if i%4 == 0 {
			j.Repo.Commit(j.t, "status/"+name, name+": Ready", gitserver.Files{"status.yaml": "phase: Ready\n"})
			strangers++
		}
	}
	j.Server.SetFault(gitserver.Fault{Kind: gitserver.Status, Service: "git-receive-pack", Times: len(j.spokes)})
	begun := time.Now()
	commit := j.merge()
	j.settle(commit)
	j.t.Logf("%d spokes joined in %s, at load %.0f", len(j.spokes), time.Since(begun).Round(100*time.Millisecond), testbed.LoadAverage())
	j.published(commit)
	j.approved()
	refused := 0
	for _, r := range j.Server.Requests() {
		if r.Service == "git-receive-pack" && r.Status == 503 {
			refused++
		}
	}
	require.Equal(j.t, len(j.spokes), refused, "pushes that had to be made again")
	j.t.Logf("%d pushes were refused, %d branches were somebody else's; the hub's agent has had at most %.1f MB", refused, strangers, float64(j.usa.PeakMemory())/1e6)
}

// TestEightSpokesAreMergedInOneCommit is TestSoakFiftySpokesAreMergedInOneCommit, small.
func TestEightSpokesAreMergedInOneCommit(t *testing.T) {
	t.Parallel()
	newJoiners(t, 8, 3*soon, agenttest.HostOptions{Resync: "5m"}).join()
}
