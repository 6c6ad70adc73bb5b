package agent

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/state"
)

// What holds nothing up may fail: the pass failed, and the revision is applied all the same.
func TestMinorFailureHoldsNothingUp(t *testing.T) {
	w := newWorld(t, [2]string{"core", "1"}, [2]string{"small", "2"})
	w.ledger.errs["small"] = errors.New("exited with 3")
	w.run(t.Context()) // both are made
	p := w.run(t.Context())
	outcome, message := p.outcome(t.Context())
	require.Equal(t, state.Failed, outcome)
	require.Contains(t, message, "exited with 3")
	require.False(t, p.achieved(t.Context()))
	w.instance.Graph.Nodes[1].Minor = true
	p = w.run(t.Context())
	outcome, _ = p.outcome(t.Context())
	require.Equal(t, state.Failed, outcome)
	require.True(t, p.achieved(t.Context()))
	require.Equal(t, map[string]NodeState{"core": NodeDone, "small": NodeFailed}, states(p))
	w.ledger.errs["core"] = errors.New("ended")
	require.False(t, w.run(t.Context()).achieved(t.Context()))
}
