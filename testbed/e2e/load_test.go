package e2e

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stretched is a bar for a machine that is not overrun: one with more than four tasks waiting for each core gets in
// proportion more time.
func stretched(t *testing.T, bar time.Duration) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	require.NoError(t, err)
	var load float64
	_, err = fmt.Sscan(string(text), &load)
	require.NoError(t, err)
	return time.Duration(float64(bar) * max(1, load/float64(4*runtime.NumCPU())))
}
