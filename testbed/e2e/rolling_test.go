package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/replicaset"
)

// upgrade is a merge on the way from 4.4 to 6.0.27: the data of a release series is kept by the servers of the next one
// until a merge of its own lets it go there.
type upgrade struct {
	image testbed.ImageName
	fcv   string
	rolls bool // the members are changed
}

var upgrades = []upgrade{
	{testbed.Mongod504, "4.4", true},
	{testbed.Mongod504, "5.0", false},
	{testbed.Mongod605, "5.0", true},
	{testbed.Mongod605, "6.0", false},
	{testbed.Mongod6027, "6.0", true},
}

// longestStall is the most that a majority writer may wait for one write.
const longestStall = 2500 * time.Millisecond

// TestAReplicaSetIsUpgradedOneMemberAtATime: merged images go through the members from 4.4.2 to 6.0.27, secondaries first,
// while a writer loses nothing that a majority acknowledged. What the data does not take is refused before anything is
// touched.
func TestAReplicaSetIsUpgradedOneMemberAtATime(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.readyWith(s.trio(testbed.Image(t, testbed.Mongod442), "4.4"), 3*soon, agenttest.HostOptions{})
	db := s.connect(t, secretOf(t, h, "MONGO_PASSWORD"))
	s.refuses(h, testbed.Mongod605, "4.4", "from which only 5.0 is one step")

	w := replicaset.StartWriter(t.Context(), db)
	for _, to := range upgrades {
		before, elections := s.running(), term(t, db)
		commit := s.Merge("Upgrade to "+string(to.image)+" with "+to.fcv, s.trio(testbed.Image(t, to.image), to.fcv))
		h.AwaitPhase(6*soon, "one", report.Ready, commit)
		stall := w.Stall()
		t.Logf("to %s with %s: longest stall %s", to.image, to.fcv, stall.Round(time.Millisecond))
		require.LessOrEqual(t, stall, longestStall*slack)
		if !to.rolls {
			require.Equal(t, before, s.running(), "a feature compatibility version restarts nobody")
			require.Equal(t, elections, term(t, db))
			continue
		}
		for service, id := range s.running() {
			require.NotEqual(t, before[service], id, "%s was not changed", service)
		}
		require.Equal(t, elections+1, term(t, db), "one step-down, and no election beside")
	}
	lostNothing(t, w, db)
	require.Contains(t, h.Do("events", "one"), "step down before it is restarted")
	s.refuses(h, testbed.Mongod504, "6.0", "a server of 5.0 does not open")
}

// slack is for a machine that has more to do than this test; the figure is measured by the benchmark.
const slack = 4

// refuses merges an image that the data does not take: it is Blocked, and nothing is touched.
func (s *small) refuses(h *agenttest.Host, image testbed.ImageName, fcv, says string) {
	s.t.Helper()
	before := s.running()
	commit := s.Merge("Skip or go back", s.trio(testbed.Image(s.t, image), fcv))
	status := h.AwaitPhase(soon, "one", report.Blocked, commit)
	require.Contains(s.t, why(status), says)
	require.Equal(s.t, before, s.running(), "something was touched")
}
