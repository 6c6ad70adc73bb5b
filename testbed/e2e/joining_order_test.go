package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
)

// TestHubAndSpokesJoinInAnyOrder: three spokes are merged before there is a hub, then the hub; then its whole host goes away for
// longer than a token lives. All is well in the end with no hand, and each status names what is waited for.
func TestHubAndSpokesJoinInAnyOrder(t *testing.T) {
	t.Parallel()
	const life = 20 * time.Second
	j := newJoining(t, fmt.Sprintf("SPOKE_TOKEN_TTL: %s\n", life))
	spokes := []string{"deu", "fra", "gbr"}
	j.enroll(spokes...)
	var without, with []map[string]string
	for _, name := range spokes {
		without, with = append(without, j.spokeFiles(name, "")), append(with, j.spokeFiles(name, handed))
	}
	j.mergeAll("Three spokes, and no hub", without...)
	away := func(name string, phase report.Phase) *report.Status {
		return j.hosts[name].Await(2*soon, name, "waits for the hub", func(s *report.Status) bool {
			return s.Phase == phase && strings.Contains(why(s), "waits for the hub at "+j.url)
		})
	}
	for _, name := range spokes {
		j.hosts[name].Launch()
	}
	for _, name := range spokes {
		status := away(name, report.Progressing)
		require.Contains(t, fmt.Sprint(status.Nodes), "registration.token")
	}

	j.enroll("usa")
	commit := j.mergeAll("The hub, which hands over to them", append(with, j.hubFiles())...)
	j.hosts["usa"].Launch()
	began := time.Now()
	allReady := func() {
		t.Helper()
		for _, name := range append([]string{"usa"}, spokes...) {
			j.hosts[name].AwaitPhase(3*soon, name, report.Ready, commit)
		}
		for _, name := range spokes {
			j.awaitBeat(soon, name)
		}
	}
	allReady()
	t.Logf("a hub and three spokes that waited for it: %.1f s from the hub's start", time.Since(began).Seconds())
	store := j.store()
	approved := map[string]string{"DEU": "approved", "FRA": "approved", "GBR": "approved"}
	require.Equal(t, approved, j.records(store))
	ids := map[string]string{}
	for _, name := range spokes {
		ids[name] = j.record(store, strings.ToUpper(name)).SpokeID
	}

	t.Log("the hub's host goes away")
	j.hosts["usa"].Kill()
	for _, id := range j.running() {
		_, err := j.engine.ContainerKill(t.Context(), id, client.ContainerKillOptions{Signal: "KILL"})
		require.NoError(t, err)
		_, err = j.engine.ContainerStop(t.Context(), id, client.ContainerStopOptions{}) // else its restart policy starts it
		require.NoError(t, err)
	}
	gone := time.Now()
	for _, name := range spokes {
		away(name, report.Degraded)
		require.NotEmpty(t, j.held(name), "what runs keeps running")
	}
	testbed.Eventually(t, 2*life, "every token has ended", func() error {
		if time.Since(gone) < life+time.Second {
			return errNotYet
		}
		return nil
	})
	j.hosts["usa"].Launch()
	back := time.Now()
	allReady()
	t.Logf("away for %.0f s, tokens of %s; all is well %.1f s after the agent of the hub is back", back.Sub(gone).Seconds(), life, time.Since(back).Seconds())
	require.Equal(t, approved, j.records(store))
	for _, name := range spokes {
		require.Equal(t, ids[name], j.record(store, strings.ToUpper(name)).SpokeID, "nobody registered anew")
	}
}
