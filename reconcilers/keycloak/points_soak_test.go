//go:build soak

package keycloak

import "testing"

// TestSoakApplyKilledAtThirtyPoints is "killed at six points" of TestKeycloak at thirty. Give each run another DIVE_SEED.
func TestSoakApplyKilledAtThirtyPoints(t *testing.T) { killedAtPoints(t, newBed(t), 30) }
