package mongo_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

// Agents start in any order; one initiates, the one beside the primary goes on, and all come to tell the same.
func TestSetOverSeveralHosts(t *testing.T) {
	t.Parallel()
	all := onSites(t, "a", "b", "c")
	a, b, c := all.list[0], all.list[1], all.list[2]
	for _, s := range all.list {
		s.withContent()
	}
	all.declare("a", "b")
	all.run(b)
	testbed.Eventually(t, time.Minute, "b's agent waits for a's", func() error {
		if waits := b.waits(); waits != "mongo-usa-a.example:27017 on host-a to accept connections" {
			return errors.New(waits)
		}
		return nil
	})
	all.run(a)
	testbed.Eventually(t, time.Minute, "b's agent waits for a's", func() error {
		if waits := b.waits(); waits != "the agent on host-a to initiate rs0, beside mongo-usa-a.example:27017" {
			return errors.New(waits)
		}
		return nil
	})
	seen := all.settle(a, b)
	require.Equal(t, "rs0 PRIMARY, 2 members", seen[1].Facts.Summary)

	// Grown by a member on a third host, by the agent beside the primary; the others say whose matter it is.
	all.declare("a", "b", "c")
	all.run(c)
	testbed.Eventually(t, time.Minute, "c's agent waits for a's", func() error {
		want := "the agent on host-a, beside the primary mongo-usa-a.example:27017: create member mongo-usa-c.example:27017 (add to rs0, without a vote until it has caught up) and 1 more"
		if waits := c.waits(); waits != want {
			return errors.New(waits)
		}
		return nil
	})
	require.Contains(t, b.waits(), "the agent on host-a, beside the primary")
	seen = all.settle(a, b, c)
	for _, o := range seen {
		require.Equal(t, seen[0].Outputs, o.Outputs)
		require.Contains(t, o.Outputs["uri"].Text(), "@mongo-usa-a.example:27017,mongo-usa-b.example:27017,mongo-usa-c.example:27017/dive?")
		require.Equal(t, "rs0 PRIMARY, 3 members", o.Facts.Summary)
	}
	places := map[string]string{}
	for _, m := range seen[0].Facts.Members {
		places[m.Host] = m.On
	}
	require.Equal(t, map[string]string{a.host(): "", b.host(): "host-b", c.host(): "host-c"}, places)
}

// The primary's host goes with its agent: the next primary's agent carries on with what is declared, and once only one
// host is left nothing is changed.
func TestTheNextPrimarysAgentGoesOn(t *testing.T) {
	t.Parallel()
	all := onSites(t, "a", "b", "c")
	a, b, c := all.list[0], all.list[1], all.list[2]
	all.run(all.list...)
	all.settle(all.list...) // until then another member may be the first one that is SECONDARY
	for _, s := range all.list {
		s.spec.Backup = &mongo.Backup{Folder: desired.Literal(t.TempDir()), Databases: []string{"dive"}, Position: desired.Position{}}
	}
	all.settle(all.list...)
	for i, s := range all.list {
		files, err := os.ReadDir(s.spec.Backup.Folder.Source())
		require.NoError(t, err)
		require.Len(t, files, map[bool]int{true: 1}[i == 1], "only the agent beside the first secondary makes a backup")
	}
	w := all.write()
	all.lab.Kill(a.service)
	all.lab.Detach(all.wide, a.service)
	for _, s := range []*site{b, c} {
		s.withContent()
		s.spec.Settings.HeartbeatIntervalMillis = 350
	}
	var left *site
	testbed.Eventually(t, time.Minute, "users and settings by the next primary's agent", func() error {
		var errs []error
		for _, s := range []*site{b, c} {
			o, _, err := s.pass(s.r)
			if o.Facts.Summary != "rs0 PRIMARY, 2 of 3 members" || strings.Contains(fmt.Sprint(err), "the agent on") || len(o.Outputs) == 0 {
				errs = append(errs, fmt.Errorf("%s: %s: %w", s.service, o.Facts.Summary, err))
			} else if left = all.primary(o); strings.Contains(s.picture(left.service), "350") && strings.Contains(s.picture(left.service), "22 documents") {
				continue
			}
			errs = append(errs, fmt.Errorf("%s: not as declared", s.service))
		}
		return errors.Join(errs...)
	})
	o, _, err := left.pass(left.r)
	require.ErrorContains(t, err, "mongo-usa-a.example:27017 on host-a")
	require.NotEmpty(t, o.Outputs)

	// The host comes back; its agent finds all done by others.
	a.spec.Users, a.spec.Seed, a.target.SourceDir = left.spec.Users, left.spec.Seed, left.target.SourceDir
	a.spec.Settings.HeartbeatIntervalMillis = 350
	all.lab.Start(a.service)
	all.lab.Attach(all.wide, a.service, a.name())
	all.settle(all.list...)
	require.Empty(t, w.lost(left.service))
}

// A host that is cut off from the others changes nothing, and its agent says why; the others go on.
func TestTheSmallerSideOfAPartitionChangesNothing(t *testing.T) {
	t.Parallel()
	all := onSites(t, "a", "b", "c")
	a, b, c := all.list[0], all.list[1], all.list[2]
	all.run(all.list...)
	all.settle(all.list...)
	w := all.write()
	all.lab.Detach(all.wide, a.service)
	a.cut.Store(true)
	for _, s := range all.list {
		s.spec.Settings.HeartbeatIntervalMillis = 350
	}
	a.spec.Settings.CatchUpTimeoutMillis = 1000
	testbed.Eventually(t, time.Minute, "the minority says that it is one", func() error {
		o, err := a.r.Observe(t.Context(), a.target)
		a.clock.ahead += 5 * time.Second
		if err == nil {
			err = o.Err
		}
		var blocked *reconcilers.BlockedError
		if !errors.As(err, &blocked) {
			return fmt.Errorf("not blocked: %w", err)
		}
		require.Equal(t, "LostMajority", blocked.Reason)
		require.Contains(t, blocked.Message, "1 of the 2 votes")
		plan, err := a.r.Plan(a.target, o)
		require.NoError(t, err)
		require.Empty(t, plan.Changes)
		return nil
	})
	var wait *reconcilers.WaitError
	require.ErrorAs(t, a.r.(reconcilers.Roller).Turn(t.Context(), a.target, reconcilers.Turn{Part: "mongodb"}, &progress{t: t}), &wait, "nothing is restarted")
	var left *site
	testbed.Eventually(t, time.Minute, "the majority goes on", func() error {
		o, _, err := b.pass(b.r)
		if len(o.Outputs) == 0 || strings.Contains(fmt.Sprint(err), "the agent on") {
			_, _, cErr := c.pass(c.r)
			return errors.Join(errors.New("no agent is done"), err, cErr)
		}
		left = all.primary(o)
		return nil
	})
	require.Contains(t, left.picture(left.service), "350")
	a.spec.Settings.CatchUpTimeoutMillis = 0
	a.cut.Store(false)
	all.lab.Attach(all.wide, a.service, a.name())
	a.clock.ahead = 0
	all.settle(all.list...)
	require.Empty(t, w.lost(left.service))
}

// Manifests that say different things for a moment: each agent would change the set, and at each version only one does.
func TestTwoAgentsReconfigureAtOnce(t *testing.T) {
	t.Parallel()
	all := onSites(t, "a", "b")
	a, b := all.list[0], all.list[1]
	all.run(a, b)
	all.settle(a, b)
	before, _ := a.configVersion(a.service)

	// Both take the primary's side: to b's agent its own member is the primary's.
	b.spec.Members = slices.Clone(b.spec.Members)
	b.target.Services = local{all.lab, a.service}
	b.target.Instance = a.target.Instance
	const rounds = 3
	ended := make(chan error)
	for i, s := range []*site{a, b} {
		go func() {
			for n := range rounds {
				s.spec.Members = slices.Clone(s.spec.Members)
				s.spec.Members[i].Tags = map[string]string{"round": fmt.Sprint(n)}
				s.spec.Members[1-i].Tags = nil
				o, err := s.r.Observe(t.Context(), s.target)
				if err != nil {
					ended <- err
					return
				}
				plan, err := s.r.Plan(s.target, o)
				if err == nil && len(plan.Changes) > 0 {
					_, err = s.r.Apply(t.Context(), s.target, plan, &progress{t: t})
				}
				var wait *reconcilers.WaitError
				if err != nil && !errors.As(err, &wait) {
					ended <- err
					return
				}
			}
			ended <- nil
		}()
	}
	for range 2 {
		require.NoError(t, <-ended)
	}
	after, term := a.configVersion(a.service)
	require.Greater(t, after, before)
	require.Less(t, after, before+1000, "nothing was forced")
	require.NotZero(t, term)
	b.restart()
	b.target.Services, b.target.Instance = local{all.lab, b.service}, &desired.Instance{Name: "usa-b", Host: "host-b"}
	all.declare("a", "b")
	for _, o := range all.settle(a, b) {
		require.Equal(t, "rs0 PRIMARY, 2 members", o.Facts.Summary)
	}
}
