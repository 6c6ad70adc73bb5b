package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/report"
	"dive-agent/source"
	"dive-agent/state"
)

// troubled is a graph of a spoke: db, the set on it, an application on that, and checks on everything.
func troubled(errs map[string]error) situation {
	s := situation{instance: "deu", host: "deu-01", now: at, redact: func(text string) string { return text }}
	s.known.Applied, s.known.Attempted = "1a2b3c4d", "1a2b3c4d"
	for _, id := range []string{"stack/db", "database", "stack/web", "checks"} {
		n := Node{ID: id, Component: id, State: stateOf(errs[id])}
		if len(s.nodes) > 0 {
			n.Needs = []desired.Edge{{On: s.nodes[len(s.nodes)-1].ID}}
		}
		if id == "stack/db" || id == "stack/web" {
			n.Component, n.Part = "stack", id[len("stack/"):]
		}
		n.explain(errs[id])
		s.nodes = append(s.nodes, n)
	}
	return s
}

var at = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

func TestACauseHidesWhatFollowsFromIt(t *testing.T) {
	away := &reconcilers.AwayError{What: "the Docker Engine at unix:///e.sock", Do: "Start it", Err: errors.New("list: refused")}
	failed := errors.New("2 of 4 checks failed: web: 503")
	again := "it is tried again by itself, and at once with: dive-agent sync deu"
	for name, c := range map[string]struct {
		errs      map[string]error
		phase     report.Phase
		news      string
		why, next []string
	}{
		"the engine is away": {
			map[string]error{"stack/db": away, "database": away, "stack/web": &reconcilers.RejectedError{Message: "web", Err: away}, "checks": failed},
			report.Degraded, "the Docker Engine at unix:///e.sock does not answer",
			[]string{"the Docker Engine at unix:///e.sock does not answer", "what builds on it fails too: checks"},
			[]string{"Start it"},
		},
		"a wrong password under a failing service": {
			map[string]error{
				"database":  &reconcilers.BlockedError{Reason: "WrongPassword", Message: "db:27017 refuses the password of user admin", Do: "Put it back"},
				"stack/web": errors.New("service web is unhealthy"), "checks": failed,
			},
			report.Blocked, "database: db:27017 refuses the password of user admin",
			[]string{"database: db:27017 refuses the password of user admin", "what builds on it fails too: stack/web, checks"},
			[]string{"Put it back", "more on this: docs/blocked.md#wrongpassword"},
		},
		"an approval hides nothing": {
			map[string]error{
				"database": &reconcilers.BlockedError{Reason: reasonApproval, Message: "waits for approval of 1 destroy (8c1f)", Do: "merge"}, "checks": failed,
			},
			report.Degraded, "checks: 2 of 4 checks failed: web: 503",
			[]string{"database: waits for approval of 1 destroy (8c1f)", "checks: 2 of 4 checks failed: web: 503"},
			[]string{"merge"},
		},
		"an approval alone": {
			map[string]error{"database": &reconcilers.BlockedError{Reason: reasonApproval, Message: "waits for approval of 1 destroy (8c1f)", Do: "merge"}},
			report.Blocked, "waits for approval of 1 destroy (8c1f)",
			[]string{"database: waits for approval of 1 destroy (8c1f)"},
			[]string{"merge"},
		},
		"a service": {
			map[string]error{"stack/web": errors.New("service web is unhealthy: its check exits with 1: it says nothing")},
			report.Degraded, "service web is unhealthy: its check exits with 1: it says nothing",
			[]string{"service web is unhealthy: its check exits with 1: it says nothing"},
			[]string{again},
		},
		"something outside": {
			map[string]error{"database": &reconcilers.WaitError{For: "the hub", Err: errors.New("connection refused")}},
			report.Degraded, "database waits for the hub: connection refused",
			[]string{"database waits for the hub: connection refused"},
			[]string{again},
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := statusOf(troubled(c.errs))
			require.Equal(t, c.phase, st.Phase)
			require.Equal(t, c.news, st.News)
			require.Equal(t, c.why, st.Why)
			require.Equal(t, c.next, st.Next)
		})
	}
}

func TestARoundAtWorkSaysWhatItWaitsFor(t *testing.T) {
	s := troubled(map[string]error{"database": &reconcilers.WaitError{For: "the hub", Err: errors.New("connection refused")}})
	s.running = true
	st := statusOf(s)
	require.Equal(t, report.Progressing, st.Phase)
	require.Equal(t, []string{"database waits for the hub: connection refused"}, st.Why)
}

func TestARefusedRevisionListsEveryProblem(t *testing.T) {
	s := troubled(nil)
	s.refused = &Refusal{Revision: Revision{Commit: "5d6e7f8091a2"}, Message: "instances/deu.yaml:5:3: unknown field\ninstances/svn.yaml:8:16: port taken", Since: at}
	st := statusOf(s)
	require.Equal(t, report.Ready, st.Phase)
	require.Contains(t, st.Headline(), "deu: Ready at 1a2b3c4, 5d6e7f8 is refused")
	require.Equal(t, []string{
		"5d6e7f8 is refused as a whole, 1a2b3c4 stays in force:", "instances/deu.yaml:5:3: unknown field", "instances/svn.yaml:8:16: port taken",
	}, st.Why)
	require.Contains(t, st.Next[0], "merge")
}

func TestARewrittenBranchWaitsForAPerson(t *testing.T) {
	require.Equal(t, "Git"+string(source.Rewritten), reasonRewritten)
	s := troubled(nil)
	s.source = SourceHealth{Err: "branch main was rewritten", Reason: reasonRewritten, Since: at}
	require.Equal(t, []string{"what runs keeps running; nothing new is taken until somebody mends the branch"}, statusOf(s).Next)
}

func TestWhoSuspendedAndSinceWhen(t *testing.T) {
	s := troubled(nil)
	s.known.Suspended = &state.Suspension{By: "ada", Reason: "the rack", Since: at}
	st := statusOf(s)
	require.Equal(t, []string{"suspended by ada since 2026-03-01 03:00 UTC", "the rack"}, st.Why)
}

// TestAnApprovalSaysWhatIsAskedFor: the way out that the plan knows stands beside the digest, not in the component's plan alone.
func TestAnApprovalSaysWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	lost := reconcilers.Change{Action: reconcilers.Create, Address: "volume x", Reason: "put it back, or approve to begin empty", Destroys: true}
	status := statusOf(situation{
		instance: "deu", redact: func(text string) string { return text }, next: &assignment{instance: &desired.Instance{}},
		nodes: []Node{{
			ID: "stack/@shared", Component: "stack", State: NodeBlocked, Reason: reasonApproval, Message: "waits", Do: "merge",
			Plan: []reconcilers.Change{{Action: reconcilers.Run, Address: "image y"}, lost},
		}},
	})
	require.Equal(t, []string{"stack/@shared: waits", "create volume x: put it back, or approve to begin empty (destroys)"}, status.Why)
}
