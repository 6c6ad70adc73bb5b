package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed/agenttest"
)

// TestAnOptionalServiceHoldsNothingUp: its new version is put back and degrades the instance; the revision is applied for all else.
func TestAnOptionalServiceHoldsNothingUp(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	optional := strings.Replace(smallCompose, "  front:\n", "  front:\n    labels: {dive.service.class: optional}\n", 1)
	with := func(compose, values string) map[string]string {
		files := s.files(values)
		files["blueprints/small/compose.yaml"] = compose
		return files
	}
	good := s.Merge("Begin", with(optional, ""))
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{})
	h.Start()
	h.AwaitPhase(soon, "one", report.Ready, good)
	before := s.running()

	store := strings.Replace(optional, `REDISCLI_AUTH: "${PASSWORD}"`, `REDISCLI_AUTH: "${PASSWORD}", NEWER: "1"`, 1)
	bad := s.Merge("The store changes, and front is never healthy", with(store, `healthy: "false"`))
	status := h.Await(2*soon, "one", "is applied without front", func(status *report.Status) bool {
		return status.Applied == bad && status.Phase == report.Degraded && strings.Contains(why(status), "put back")
	})
	require.Contains(t, why(status), "or try it again: dive-agent sync one --retry")
	require.Contains(t, why(status), "nothing else is held up by stack/front")
	for _, c := range status.Conditions {
		require.True(t, c.Status || c.Type != "RevisionWorks", "the revision is not rejected")
	}
	now := s.running()
	require.NotEqual(t, before["store"], now["store"])
	require.NotEmpty(t, now["front"])
	h.Do("sync", "one")
	runs := len(status.Runs)
	status = h.AwaitPhase(soon, "one", report.Degraded, bad)
	require.Len(t, status.Runs, runs, "it is not tried again")
	require.Equal(t, now, s.running())

	fixed := s.Merge("Healthy", with(store, "label: second"))
	h.AwaitPhase(soon, "one", report.Ready, fixed)
}
