//go:build soak

package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed/agenttest"
)

// TestSoakFiftySpokesAreMergedInOneCommit: the first pushes are refused, all of them come at once, and all are approved, no
// status is lost, and the hub's agent stays small. The agents are those that users get, since memory is measured.
func TestSoakFiftySpokesAreMergedInOneCommit(t *testing.T) {
	j := newJoiners(t, 50, 15*time.Minute, agenttest.HostOptions{Stripped: true, Interval: "10s", Resync: "5m"})
	j.join()
	require.Less(t, j.usa.PeakMemory(), int64(80e6), "bytes, of the hub's agent since its start")
}
