package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
)

// refusedIn gives what a status says of a revision that is not taken.
func refusedIn(t *testing.T, s *report.Status) report.Condition {
	t.Helper()
	for _, c := range s.Conditions {
		if c.Type == "RevisionAccepted" {
			return c
		}
	}
	t.Fatal("the status does not say whether the newest revision is accepted")
	return report.Condition{}
}

func refused(t *testing.T, a *Agent) *Refusal {
	t.Helper()
	o, err := a.Overview(t.Context())
	require.NoError(t, err)
	return o.Refused
}

// TestARefusedRevisionIsToldFromTheFirstStatusOn: a restart is no mending, neither for who reads the status nor for its webhooks.
func TestARefusedRevisionIsToldFromTheFirstStatusOn(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	w, _ := newHost(t, world)
	bad := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bad, "fleet.yaml"), []byte("kind: [\n"), 0o600))
	since := world.clock.Now()
	require.Error(t, w.Take(Revision{Commit: "3333333", Dir: bad}))

	world.clock.move(time.Hour)
	a := w.restarted(t, true)
	accepted := refusedIn(t, a.afterRound(t))
	require.False(t, accepted.Status)
	require.Contains(t, accepted.Message, "3333333 is refused as a whole, 2222222 stays in force:")
	require.Equal(t, since, accepted.Since)
	require.Error(t, a.Take(Revision{Commit: "3333333", Dir: bad}))
	require.Equal(t, since, refused(t, a).Since, "it is the same refusal")

	a.HeadIs("2222222")
	require.Nil(t, refused(t, w.restarted(t, true)), "the branch went back")

	require.Error(t, w.Take(Revision{Commit: "2222222", Dir: bad}))
	require.Nil(t, refused(t, w.restarted(t, true)), "this agent takes what the one before did not")
	require.NoFileExists(t, filepath.Join(w.Dir, refusalFile))

	require.NoError(t, os.WriteFile(filepath.Join(w.Dir, refusalFile), []byte("{"), 0o600))
	require.Nil(t, refused(t, w.restarted(t, true)), "a torn file keeps nobody from starting")
}
