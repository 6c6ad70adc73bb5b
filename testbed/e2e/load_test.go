package e2e

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
)

// stretched is a bar for a machine that is not overrun: one with more than four tasks waiting for each core gets in
// proportion more time.
func stretched(t *testing.T, bar time.Duration) time.Duration {
	t.Helper()
	load := testbed.LoadAverage()
	require.NotZero(t, load)
	return time.Duration(float64(bar) * max(1, load/float64(4*runtime.NumCPU())))
}
