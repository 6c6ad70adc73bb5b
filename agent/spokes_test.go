package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

// TestTheTableOfSpokesHasTheirRevisions: those of which the table tells are read, whether anything is imported from them or not; a
// revision that changes rouses the hub, and is known after a restart with Git away.
func TestTheTableOfSpokesHasTheirRevisions(t *testing.T) {
	p := newPair(t)
	p.instance("deu", "spoke", "b: {kind: Ledger, value: alone}")
	p.merge()
	p.deu.round(t.Context(), "test")
	spokes := reconcilers.Facts{Spokes: []reconcilers.SpokeFacts{{Code: "USA", Instance: "usa", State: "approved"}, {Code: "XXX"}, {Code: "DEU", Instance: "deu"}}}
	until := p.deu.Clock.Now().Add(time.Hour).UTC()
	spokes.Certificates = map[string]time.Time{"usa": until, "": until, "gbr": until}
	p.deu.see(func(v *view) { v.Nodes[0].Facts = spokes })
	told := func() string {
		status, err := p.deu.Status(t.Context(), "deu")
		require.NoError(t, err)
		require.Empty(t, status.Spokes[1].Revision)
		require.Equal(t, until, status.Spokes[0].Certificate)
		require.Zero(t, status.Spokes[2].Certificate)
		return status.Spokes[0].Revision
	}
	read := func() string {
		p.deu.take()
		require.NoError(t, p.deu.ReadStatuses(t.Context()))
		return p.deu.take()
	}
	require.Empty(t, told())
	p.applied = strings.Repeat("1a2b3c4d", 5)
	require.Equal(t, "spokes", read())
	require.Equal(t, p.applied, told())
	require.Empty(t, read(), "nothing new")
	before := p.applied
	p.applied = strings.Repeat("5d6e7f80", 5)
	require.Equal(t, "spokes", read())
	require.Equal(t, p.applied, told())

	p.deu.peers.known = nil // as after a restart
	require.NoError(t, p.deu.recallPeers(t.Context()))
	require.Equal(t, p.applied, told())
	require.NotEqual(t, before, told())

	p.deu.see(func(v *view) { v.Nodes[0].Facts = reconcilers.Facts{} })
	require.Empty(t, p.deu.importedFrom(), "nobody is read of whom nothing is told")
}
