package registration_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
	"dive-agent/reconcilers/conformance"
	"dive-agent/reconcilers/registration"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

func TestSpokeConformance(t *testing.T) {
	t.Parallel()
	mongod := hubtest.StartMongo(t, true)
	conformance.Run(t, conformance.Subject{World: func(t *testing.T) *conformance.World {
		w := newWorld(t, mongod, hub.Config{})
		s := w.spoke("deu", "Germany")
		world := &conformance.World{
			Target: s.target,
			New:    func(*testing.T) reconcilers.Reconciler { return registration.NewSpoke(w.deps()) },
			State:  func(*testing.T) string { return w.records() },
		}
		world.Help = func(t *testing.T, wait *reconcilers.WaitError) {
			require.Equal(t, "approval by the hub", wait.For)
			w.approve("DEU")
			world.Secrets = w.tokens("DEU")
		}
		return world
	}})
}

func TestApprovalsConformance(t *testing.T) {
	t.Parallel()
	mongod := hubtest.StartMongo(t, true)
	conformance.Run(t, conformance.Subject{World: func(t *testing.T) *conformance.World {
		w := newWorld(t, mongod, hub.Config{})
		s := w.approvals("unknownSpokes: suspend")
		for _, spoke := range [][2]string{{"deu", "Germany"}, {"fra", "France"}, {"gbr", "United Kingdom"}} {
			_, _, err := w.spoke(spoke[0], spoke[1]).pass()
			require.ErrorContains(t, err, "approval by the hub")
		}
		w.spoke("est", "Estonia")
		w.register("EST", map[string]any{"name": "Not Estonia"})
		w.register("XXX", map[string]any{"partnerPreApproved": true, "partnerTrustLevel": "national"})
		return &conformance.World{
			Target:  s.target,
			New:     func(*testing.T) reconcilers.Reconciler { return registration.NewApprovals(w.deps()) },
			State:   func(*testing.T) string { return w.records() },
			Secrets: []string{hubtest.AdminKey},
		}
	}})
}
