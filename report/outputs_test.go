package report_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/state"
)

// TestOutputsStandBesideTheStatus in one commit, and a change of them is news though the status is the same.
func TestOutputsStandBesideTheStatus(t *testing.T) {
	t.Parallel()
	repo := newRepository(t)
	f := newFixture(t, func(o *report.Options) {
		toBranches(newRemote(t, repo))(o)
		o.Redact = func(string) string { return "redacted" }
	})
	push := func(outputs string) {
		t.Helper()
		f.clock.advance(time.Second)
		if outputs != "" {
			require.NoError(t, f.store.Update(t.Context(), func(tx state.Tx) error { return report.KeepOutputs(tx, "deu", []byte(outputs)) }))
		}
		f.publish(ready())
		require.NoError(t, f.Flush(t.Context()))
	}
	push("")
	require.Len(t, repo.log("status/deu"), 1)
	push("first")
	require.Len(t, repo.log("status/deu"), 2)
	require.Equal(t, "first", repo.git("show", "status/deu:outputs.yaml"), "what is sealed is not touched")
	require.Equal(t, "redacted", repo.git("show", "status/deu:status.yaml"))
	push("first")
	push("")
	require.Len(t, repo.log("status/deu"), 2, "nothing new")
	push("second")
	require.Len(t, repo.log("status/deu"), 3)
	f.clock.advance(15 * time.Minute)
	push("")
	require.Equal(t, "second", repo.git("show", "status/deu:outputs.yaml"), "the heartbeat carries it too")
}
