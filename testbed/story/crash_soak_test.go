//go:build soak

package story

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSoakKilledAtEveryRecordedChange is TestKilledAtEveryChangeOfASpoke at every resource of the realm too.
func TestSoakKilledAtEveryRecordedChange(t *testing.T) {
	walk(t, 45*time.Minute, func(ctx context.Context, w *world) {
		t.Logf("killed %d times", w.killEverywhere(ctx, t, 1))
	})
}

// TestSoakKilledAtRandomMoments kills the agent 40 times after 0.1 to 5 s. DIVE_SEED repeats a run.
func TestSoakKilledAtRandomMoments(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv("DIVE_SEED"), 10, 64)
	require.NoError(t, err, "make soak sets DIVE_SEED")
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	walk(t, 30*time.Minute, func(ctx context.Context, w *world) {
		for range 40 {
			require.NoError(t, w.startAgent("fra-01"))
			select {
			case <-time.After(100*time.Millisecond + time.Duration(random.Int64N(int64(4900*time.Millisecond)))):
			case <-ctx.Done():
				require.NoError(t, ctx.Err())
			}
			require.NoError(t, w.stop(ctx, "fra-01", syscall.SIGKILL))
		}
		require.NoError(t, w.startAgent("fra-01"))
	})
}
