package agent

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/report"
	"dive-agent/source"
	"dive-agent/state"
)

// TestPhases: what matters more hides what matters less, and nothing but a graph whose nodes are all done is Ready.
func TestPhases(t *testing.T) {
	nodes := func(states ...NodeState) (all []Node) {
		for _, s := range states {
			all = append(all, Node{ID: string(s), Component: string(s), State: s, Message: "is " + string(s)})
		}
		return all
	}
	minor := func(s NodeState) Node {
		return Node{ID: "small", Component: "small", Minor: true, State: s, Message: "is " + string(s)}
	}
	applied := state.Instance{Applied: "1111111"}
	rejected := state.Instance{Applied: "1111111", Rejected: &state.Rejection{Revision: "2222222", Reason: "exited with 3"}}
	suspended := rejected
	suspended.Suspended = &state.Suspension{By: "ann"}
	blocked := &reconcilers.BlockedError{Message: "a secret is lost"}
	for name, c := range map[string]struct {
		situation
		phase report.Phase
		news  string
	}{
		"nothing was looked at":          {situation{}, report.Pending, ""},
		"all is done":                    {situation{nodes: nodes(NodeDone, NodeDone)}, report.Ready, ""},
		"under way":                      {situation{nodes: nodes(NodeDone, NodeWorking), running: true}, report.Progressing, ""},
		"begun, and cut off":             {situation{nodes: nodes(NodeDone, NodePending)}, report.Progressing, "pending is pending"},
		"waits at first":                 {situation{nodes: nodes(NodeDone, NodeWaiting)}, report.Progressing, "waiting is waiting"},
		"waits again":                    {situation{nodes: nodes(NodeDone, NodeWaiting), known: applied}, report.Degraded, "waiting is waiting"},
		"waits for a person":             {situation{nodes: nodes(NodeWaiting, NodeBlocked)}, report.Blocked, "blocked: is blocked"},
		"failed":                         {situation{nodes: nodes(NodeBlocked, NodeFailed, NodeWaiting)}, report.Degraded, "failed: is failed"},
		"a minor one failed":             {situation{nodes: append(nodes(NodeDone), minor(NodeFailed)), known: applied}, report.Degraded, "small: is failed"},
		"a minor one waits for a person": {situation{nodes: append(nodes(NodeDone), minor(NodeBlocked)), known: applied}, report.Degraded, "small: is blocked"},
		"another one hides a minor one":  {situation{nodes: append(nodes(NodeBlocked), minor(NodeFailed)), known: applied}, report.Blocked, "blocked: is blocked"},
		"a minor one hides who waits for it": {situation{nodes: []Node{minor(NodeFailed), {
			ID: "big", Component: "big", State: NodeWaiting, Waits: "small", Message: "waits for small",
		}}, known: applied}, report.Degraded, "small: is failed"},
		"rejected":                       {situation{nodes: nodes(NodeDone), known: rejected}, report.Degraded, "exited with 3"},
		"rejected, and healing":          {situation{nodes: nodes(NodeWorking), known: rejected, running: true}, report.Degraded, "exited with 3"},
		"could not begin":                {situation{err: errors.New("no engine"), nodes: nodes(NodeDone)}, report.Degraded, "no engine"},
		"may not begin":                  {situation{err: blocked, known: rejected}, report.Blocked, "a secret is lost"},
		"its manifest is gone":           {situation{removed: true, known: rejected, nodes: nodes(NodeDone)}, report.Removed, "its manifest is gone, what runs was left running"},
		"suspended, whatever else is so": {situation{removed: true, known: suspended, err: blocked}, report.Suspended, "suspended by ann"},
	} {
		c.instance, c.redact, c.next = "deu", func(s string) string { return s }, &assignment{instance: &desired.Instance{}}
		status := statusOf(c.situation)
		require.Equal(t, c.phase, status.Phase, name)
		require.Equal(t, c.news, status.News, name)
		require.Equal(t, c.phase == report.Ready, status.Conditions[0].Status, name)
	}
}

// TestStatesHaveOneOrder: phase, component and outcome of a run tell of the same node.
func TestStatesHaveOneOrder(t *testing.T) {
	t.Parallel()
	require.Len(t, severity, 7, "all states")
	for i, worse := range severity {
		for _, less := range severity[:i] {
			nodes := []Node{{ID: "s/a", Component: "s", State: less, Message: "less"}, {ID: "s/b", Component: "s", State: worse, Message: "worse"}}
			s := situation{nodes: nodes, redact: func(text string) string { return text }}
			require.Equal(t, "s/b", s.worst().ID)
			require.Equal(t, string(worse), statusOf(s).Components[0].State)
			p := newPass(passOptions{clock: newWorld(t).clock, instance: &desired.Instance{Graph: graphOf(nodes)}})
			for id, n := range p.nodes {
				n.view = nodes[slices.IndexFunc(nodes, func(n Node) bool { return n.ID == id })]
			}
			outcome, message := p.outcome(t.Context())
			require.Equal(t, outcomeOf(worse), outcome)
			require.Equal(t, "s/b: worse", message)
		}
	}
}

func graphOf(nodes []Node) *desired.Graph {
	graph := &desired.Graph{}
	for _, n := range nodes {
		graph.Nodes = append(graph.Nodes, &desired.Node{ID: n.ID, Component: &desired.Component{Name: n.Component}})
	}
	return graph
}

// TestReadyIsSaidOnlyOfWhatWasLookedAt: while a new content is surveyed, what is known of the nodes is of the one before.
func TestReadyIsSaidOnlyOfWhatWasLookedAt(t *testing.T) {
	t.Parallel()
	s := situation{
		known:  state.Instance{Applied: "1111111", AppliedDigest: "old"},
		next:   &assignment{revision: source.Revision{Commit: "2222222"}, instance: &desired.Instance{Digest: "new"}},
		nodes:  []Node{{ID: "stack/backend", Component: "stack", State: NodeDone}},
		redact: func(text string) string { return text },
	}
	require.Equal(t, report.Progressing, statusOf(s).Phase)
	s.known.AppliedDigest = "new"
	require.Equal(t, report.Ready, statusOf(s).Phase)
}

// TestAPassThatOnlyLooksAgainIsNoNews: what is Blocked stays so, also while a pass looks whether it still is, until
// something is changed.
func TestAPassThatOnlyLooksAgainIsNoNews(t *testing.T) {
	t.Parallel()
	world := newWorld(t, [2]string{"a", "one"}, [2]string{"b", "after ${a.value}"})
	w, _ := newHost(t, world)
	w.workers[w.name] = w
	live := func() *report.Status {
		status, err := w.Status(t.Context(), w.name)
		require.NoError(t, err)
		return status
	}
	told := func() (phases []string) {
		events, _ := w.bus.after(0)
		for _, e := range events {
			if e.Kind == "phase" {
				phases = append(phases, e.State)
			}
		}
		return phases
	}
	world.ledger.entries["a"] = "one"
	world.ledger.errs["a"] = &reconcilers.BlockedError{Message: "the password is refused"}
	w.round(t.Context(), "test")
	blocked := live()
	require.Equal(t, report.Blocked, blocked.Phase)
	require.Equal(t, []string{"Progressing", "Blocked"}, told())

	var during []report.Phase
	world.ledger.looked = func(string, int) { during = append(during, live().Phase) }
	for range 3 {
		world.clock.move(w.resync())
		w.round(t.Context(), "schedule")
	}
	require.GreaterOrEqual(t, len(during), 6, "each pass looked, and looked again in its run")
	require.Equal(t, []report.Phase{report.Blocked}, slices.Compact(during))
	require.Equal(t, []string{"Progressing", "Blocked"}, told())
	require.Equal(t, blocked.Since, live().Since)
	require.Equal(t, blocked.Generation, live().Generation, "nothing for the status branch")

	delete(world.ledger.errs, "a")
	world.ledger.hook["b"] = func(context.Context, reconcilers.Progress) error {
		require.Equal(t, report.Progressing, live().Phase, "something is changed")
		return nil
	}
	w.round(t.Context(), "schedule")
	require.Equal(t, []string{"Progressing", "Blocked", "Progressing", "Ready"}, told())
}
