//go:build soak

package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
)

// TestSoakATokenEndsUnderLoad is TestATokenRotatesUnderLoad with tokens that live so short that three of them end while the
// backend is asked. A machine that is overrun has the last third of a life, half a minute, to bring the next one into the service.
func TestSoakATokenEndsUnderLoad(t *testing.T) {
	const life = 90 * time.Second
	c := newCallers(t, life)
	c.usa.Start()
	c.deu.Start()
	c.deu.AwaitPhase(3*soon, "deu", report.Ready, "")
	var end time.Time
	for range 3 {
		var container string
		container, end = c.serves()
		require.False(t, end.IsZero())
		c.awaitNext(2*life, container, end)
		t.Logf("the next token was in use %s before the end of the one before", time.Until(end).Round(time.Second))
	}
	over := time.NewTimer(time.Until(end) + 3*time.Second)
	defer over.Stop()
	select {
	case <-over.C:
	case <-t.Context().Done():
	}
	c.counts(10_000)
}
