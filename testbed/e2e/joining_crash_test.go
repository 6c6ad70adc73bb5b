package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/hub"
)

// killings has the agents of a hub and of its spokes killed while spokes join and leave.
type killings struct {
	*joining
	sample string
	scene  int
	kills  int
	tokens []string // all that were ever seen at the hub
	also   func()   // what else holds after each scene; nil: nothing

	disturb func(h *agenttest.Host) (kills int) // in place of kills at each change; nil: those
}

// newKillings brings up the hub, if with a realm then as change has it.
func newKillings(t *testing.T, sample string, change func(k *killings)) *killings {
	k := &killings{joining: newJoining(t, "", "failpoint"), sample: sample}
	if change != nil {
		change(k)
	}
	k.begin()
	return k
}

// play merges something while the agent of one instance is killed before and after each change that it records, once at each
// place, until what is to come about has.
func (k *killings) play(name, victim string, files map[string]string, through func(commit string) error) {
	k.t.Helper()
	k.scene++
	h := k.hosts[victim]
	h.Kill()
	points := agenttest.Failpoints{File: filepath.Join(h.Dir, fmt.Sprintf("failpoints-%d", k.scene)), Sample: k.sample}
	began := time.Now()
	commit := k.Merge(name, files)
	kills := 0
	if k.disturb != nil {
		kills = k.disturb(h)
	} else {
		h.Env = points.Env()
	}
	kills += agenttest.UntilThrough(k.t, 3*time.Minute, func() <-chan struct{} {
		h.Launch()
		return h.Ended()
	}, func() error { return through(commit) })
	h.Kill()
	h.Env = nil
	h.Start()
	testbed.Eventually(k.t, 2*soon, name+", with an agent that nobody kills", func() error { return through(commit) })
	k.kills += kills
	k.t.Logf("%s: the agent of %s killed %d times, %.1f s; at %q", name, victim, kills, time.Since(began).Seconds(), points.Places(k.t))
}

// joins has a spoke merged, and holds what comes of it to what an undisturbed joining makes.
func (k *killings) joins(spoke, victim string) {
	k.t.Helper()
	if k.hosts[spoke] == nil {
		k.enroll(spoke)
		k.hosts[spoke].Launch()
	}
	k.play(spoke+" joins", victim, k.spokeFilesOn(spoke, "destroy", handed), func(commit string) error {
		return errors.Join(k.isReady("usa", commit), k.isReady(spoke, commit), k.beats(spoke))
	})
	k.holds(spoke, hub.Approved)
}

// leaves has a spoke's manifest removed.
func (k *killings) leaves(spoke, victim string) {
	k.t.Helper()
	k.see()
	gone := k.spokeFiles(spoke, "")
	for name := range gone {
		gone[name] = gitserver.Remove
	}
	k.play(spoke+" leaves", victim, gone, func(commit string) error {
		s, err := k.hosts[spoke].Status(spoke)
		if err == nil && (s.Phase != report.Removed || len(s.Nodes) > 0) {
			err = fmt.Errorf("%s is %s: %s", spoke, s.Phase, s.News)
		}
		left, listed := testbed.Running(k.t.Context(), k.engine, k.projectOf(spoke))
		if len(left) > 0 {
			err = errors.Join(err, fmt.Errorf("%d containers of %s run", len(left), spoke))
		}
		return errors.Join(err, listed, k.isReady("usa", commit))
	})
	k.holds(spoke, hub.Revoked)
}

func (k *killings) isReady(instance, commit string) error {
	s, err := k.hosts[instance].Status(instance)
	if err == nil && (s.Phase != report.Ready || s.Attempted != commit || s.Applied != commit) {
		err = fmt.Errorf("%s is %s at %.7s: %s; why: %s", instance, s.Phase, s.Attempted, s.News, why(s))
	}
	return err
}

// holds: one record of the spoke, in the state that the hub's status tells too, and of an approved one the id that the spoke has,
// with exactly what the manifest grants; one that left has no token.
func (k *killings) holds(spoke, state string) {
	k.t.Helper()
	k.see()
	store, code := k.store(), strings.ToUpper(spoke)
	require.Equal(k.t, state, k.records(store)[code], "there is one record of a code, or this fails")
	r := k.record(store, code)
	tokens, err := store.Tokens(k.t.Context(), r.SpokeID)
	require.NoError(k.t, err)
	if state == hub.Approved {
		require.Equal(k.t, r.SpokeID, k.shownID(spoke))
		require.Equal(k.t, "partner SECRET filtered [policy:base policy:org]",
			fmt.Sprint(r.TrustLevel, " ", r.MaxClassification, " ", r.DataIsolationLevel, " ", r.AllowedPolicyScopes))
	} else {
		require.Empty(k.t, tokens)
	}
	status, err := k.hosts["usa"].Status("usa")
	require.NoError(k.t, err)
	i := slices.IndexFunc(status.Spokes, func(s report.Spoke) bool { return s.Code == code })
	require.GreaterOrEqual(k.t, i, 0)
	require.Equal(k.t, state, status.Spokes[i].State)
	k.keptSecret()
	if k.also != nil {
		k.also()
	}
}

// see remembers the tokens that the hub has now.
func (k *killings) see() {
	k.t.Helper()
	store := k.store()
	all, err := store.Spokes(k.t.Context(), "")
	require.NoError(k.t, err)
	for _, r := range all {
		tokens, err := store.Tokens(k.t.Context(), r.SpokeID)
		require.NoError(k.t, err)
		for _, token := range tokens {
			k.tokens = append(k.tokens, token.Token)
		}
	}
}

// keptSecret looks for the tokens wherever people and other hosts read.
func (k *killings) keptSecret() {
	k.t.Helper()
	history, err := k.Repo.Git("log", "--all", "-p")
	require.NoError(k.t, err)
	places := map[string]string{"the fleet repository": history}
	for name, h := range k.hosts {
		places["the log of "+name] = h.Log()
		if said, err := h.Try("status", name, "--output", "json"); err == nil {
			places["the status of "+name] = said
			places["the events of "+name] = h.Do("events")
		}
	}
	require.NotEmpty(k.t, k.tokens)
	for _, token := range k.tokens {
		for place, text := range places {
			if strings.Contains(text, token) {
				k.t.Errorf("a token stands in %s", place)
			}
		}
	}
}

// goThrough has one spoke join and leave under the hands of whoever kills its own agent, and another one while the hub's is.
func (k *killings) goThrough() {
	k.t.Helper()
	k.joins("deu", "deu")
	k.joins("fra", "usa")
	k.leaves("deu", "deu")
	k.leaves("fra", "usa")
	k.t.Logf("killed %d times", k.kills)
}

// TestAgentsAreKilledWhileSpokesJoinAndLeave at a few of the places where either records a change: all ends as if they had not been.
func TestAgentsAreKilledWhileSpokesJoinAndLeave(t *testing.T) {
	t.Parallel()
	k := newKillings(t, "3/20", nil) // a third, most of the registration's among them
	k.goThrough()
	require.NotZero(t, k.kills)
}
