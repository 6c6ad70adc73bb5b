//go:build soak

package e2e

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSoakReplicaSetKilledAtEveryRecordedChange is TestAReplicaSetWhoseAgentIsKilled at every place of a set's whole life.
func TestSoakReplicaSetKilledAtEveryRecordedChange(t *testing.T) {
	newCrashWalk(t, "").goThrough(scenes(t))
}

// TestSoakThreeFoundersKilledAtEveryRecordedChange begins with three members at once, and goes to a patch release.
func TestSoakThreeFoundersKilledAtEveryRecordedChange(t *testing.T) {
	newCrashWalk(t, "").goThrough(append([]scene{{name: "initiate three", change: members(3)}}, scenesNamed(t, "upgrade")...))
}

// TestSoakReplicaSetKilledAtRandomMoments kills the agent five times in each scene of a set's life, after 0.1 to 4 s each.
// DIVE_SEED repeats a run.
func TestSoakReplicaSetKilledAtRandomMoments(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv("DIVE_SEED"), 10, 64)
	require.NoError(t, err, "make soak sets DIVE_SEED")
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	w := newCrashWalk(t, "")
	w.disturb = func() {
		for range 5 {
			w.host.Launch()
			select {
			case <-time.After(100*time.Millisecond + time.Duration(random.Int64N(int64(3900*time.Millisecond)))):
			case <-w.host.Ended():
				t.Fatal("the agent ended by itself")
			}
			w.host.Kill()
			w.kills++
		}
	}
	w.goThrough(scenes(t))
}
