//go:build soak

package e2e

import (
	"testing"

	"dive-agent/testbed"
)

// TestSoakReplicaSetKilledAtEveryRecordedChange is TestAReplicaSetWhoseAgentIsKilled at every place of a set's whole life.
func TestSoakReplicaSetKilledAtEveryRecordedChange(t *testing.T) {
	w := newCrashWalk(t, "")
	for n, sc := range scenes(t) {
		w.play(n, sc)
		if n == 0 {
			w.begins()
		}
	}
	w.lostNothing()
}

// TestSoakThreeFoundersKilledAtEveryRecordedChange begins with three members at once, and goes to a patch release.
func TestSoakThreeFoundersKilledAtEveryRecordedChange(t *testing.T) {
	w := newCrashWalk(t, "")
	w.play(0, scene{name: "initiate three", change: members(3)})
	w.begins()
	image := testbed.Image(t, testbed.Mongod6027)
	w.play(1, scene{name: "upgrade", change: func(r *replicas) { r.image = image }})
	w.lostNothing()
}
