package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed/agenttest"
)

// TestAPersonRollsBack: what works, and is wrong all the same, is taken back by one command, and stays so over a restart.
func TestAPersonRollsBack(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	first := s.Merge("Begin", s.files(""))
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{})
	h.Start()
	h.AwaitPhase(2*soon, "one", report.Ready, first)
	label := func() string {
		_, value := s.environment(t.Context(), "front", "LABEL")
		return value
	}
	store := s.running()["store"]
	second := s.Merge("Another label", map[string]string{"instances/one.yaml": s.instance(", label: second", "")})
	h.AwaitPhase(soon, "one", report.Ready, second)
	require.Equal(t, "second", label())

	said := h.Do("rollback", "one", "--reason", "a wrong label")
	require.Contains(t, said, "one goes back to "+first[:7]+"; "+second[:7]+" is not tried again until something new is merged, or: dive-agent sync --retry one")
	back := func(status *report.Status) bool {
		return status.Phase == report.Degraded && status.Applied == first && len(status.Services) == 2 && status.Services[1].Health == "healthy" && label() == "first"
	}
	status := h.Await(soon, "one", "it went back", back)
	require.Contains(t, status.Why[0], ": a wrong label")
	require.Equal(t, store, s.running()["store"], "what did not change is left alone")
	_, err := h.Try("rollback", "one")
	require.ErrorContains(t, err, "was rejected already")

	h.Stop()
	h.Start()
	h.Await(soon, "one", "it stays", back)
	h.Do("sync", "one", "--retry", "--wait")
	h.AwaitPhase(soon, "one", report.Ready, second)
	require.Equal(t, "second", label())
}
