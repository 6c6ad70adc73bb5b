//go:build soak

package compose

import (
	"fmt"
	"testing"
)

// TestSoakKilledWithinAnUpdate kills the agent at each change to the engine, before it is sent and right after.
func TestSoakKilledWithinAnUpdate(t *testing.T) {
	for _, c := range killedUpdates() {
		for _, asked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, asked %t", c.name, asked), func(t *testing.T) {
				t.Parallel()
				c.everywhere(t, func(int) bool { return asked })
			})
		}
	}
}
