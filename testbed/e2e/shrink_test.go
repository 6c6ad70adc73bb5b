package e2e

import (
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

// TestAReplicaSetShrinksToOneMember: the containers of the services that leave the stack go after the set has let their
// members go, not before; with them gone first the set would have lost its majority. Their volumes stay.
func TestAReplicaSetShrinksToOneMember(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	wants := replicas{members: numbered(3), image: testbed.Image(t, testbed.Mongod605), users: true}
	h, commit := s.readyWith(s.replicas(wants), 3*soon, agenttest.HostOptions{})
	w := &crashWalk{small: s, host: h, wants: wants, commit: commit}
	w.begins()
	wants.members = numbered(1)
	w.wants = wants
	commit = s.Merge("One is enough", s.replicas(wants))
	h.AwaitPhase(2*soon, "one", report.Ready, commit)
	w.holds()
	w.lostNothing()
	for _, gone := range numbered(3)[1:] {
		_, err := s.engine.VolumeInspect(t.Context(), s.project+"_data-"+gone[len("mongodb-"):], client.VolumeInspectOptions{})
		require.NoError(t, err)
	}
	log := h.Do("events", "one")
	require.Regexp(t, `(?s)delete member mongodb-2:27017.*delete container \S+mongodb-2-1`, log)
	require.Regexp(t, `(?s)delete member mongodb-3:27017.*delete container \S+mongodb-3-1`, log)
}
