//go:build soak

package compose

import "testing"

// TestSoakWalk is the long random walk: some ten minutes on a quiet machine. Give each run another DIVE_SEED.
func TestSoakWalk(t *testing.T) { walkAtRandom(t, 300) }
