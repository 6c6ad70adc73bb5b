package sourcebench_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/source/sourcebench"
)

// TestCostStaysFlat: what a poll and a round cost does not grow with commits or other branches. FLAT_ROUNDS sets how many
// rounds lie between the two measurements.
func TestCostStaysFlat(t *testing.T) {
	rounds := 60
	if n, err := strconv.Atoi(os.Getenv("FLAT_ROUNDS")); err == nil {
		rounds = n
	}
	bed, err := sourcebench.New(t.Context(), t.TempDir(), 200)
	require.NoError(t, err)
	defer bed.Close()
	measure := func() (poll, round time.Duration) {
		t.Helper()
		_, err := bed.Rounds(t.Context(), 3)
		require.NoError(t, err)
		round, err = bed.Rounds(t.Context(), 21)
		require.NoError(t, err)
		poll, err = bed.Polls(t.Context(), 300)
		require.NoError(t, err)
		return poll, round
	}
	poll1, round1 := measure()
	_, err = bed.Rounds(t.Context(), rounds)
	require.NoError(t, err)
	require.NoError(t, bed.Branches(1000))
	poll2, round2 := measure()
	t.Logf("poll %s, then %s (%.2f); round %s, then %s (%.2f)", poll1, poll2, float64(poll2)/float64(poll1), round1, round2, float64(round2)/float64(round1))
	// The bars are the benchmark's to judge; here a growth that is no noise fails.
	require.Less(t, poll2, 2*poll1)
	require.Less(t, round2, 2*round1)
}

// TestManyStatusBranches: nothing new is found without a fetch.
func TestManyStatusBranches(t *testing.T) {
	bed, err := sourcebench.New(t.Context(), t.TempDir(), 20)
	require.NoError(t, err)
	defer bed.Close()
	all, err := bed.Statuses(t.Context(), 40)
	require.NoError(t, err)
	fresh, took, err := all.Read(t.Context())
	require.NoError(t, err)
	require.Zero(t, fresh)
	t.Log(took)
}
