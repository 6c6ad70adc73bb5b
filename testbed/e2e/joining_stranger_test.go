package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed/hub"
)

var preApproved = map[string]any{"partnerPreApproved": true, "partnerTrustLevel": "national", "partnerMaxClassification": "TOP_SECRET"}

// TestStrangersRegisterFirst: under the codes of two spokes, with another URL and with another key; under a third's, approved by
// themselves for TOP_SECRET; as nobody; and as the hub. Nothing is theirs; the true spokes are told who stands in their way, and
// join as they are told.
func TestStrangersRegisterFirst(t *testing.T) {
	t.Parallel()
	newJoining(t, "").strangersFirst()
}

func (j *joining) strangersFirst() {
	t := j.t
	j.begin()
	usa := j.hosts["usa"]
	deu, fra := j.register("deu", map[string]any{"apiUrl": "https://evil.test"}), j.register("fra", map[string]any{"publicKey": "ssh-ed25519 EVIL"})
	ctx, done := context.WithCancel(t.Context())
	defer done()
	beating := j.beatAll(ctx, "xxx")
	go func() { _, _, _ = j.call("POST", "/register", "", j.request("usa", preApproved)) }() // a slow hub does not answer
	go func() { _, _, _ = j.call("POST", "/register", "", j.request("gbr", preApproved)) }()
	j.enroll("deu", "fra", "gbr", "svn")
	j.mergeAll("Four spokes", j.spokeFiles("deu", handed), j.spokeFiles("fra", handed), j.spokeFiles("gbr", handed), j.spokeFiles("svn", handed))
	spokes := []string{"deu", "fra", "gbr", "svn"}
	for _, name := range spokes {
		j.hosts[name].Launch()
	}
	j.hosts["svn"].AwaitPhase(3*soon, "svn", report.Ready, "") // nobody is held up by them
	j.awaitBeat(soon, "svn")

	said := notes(t, usa.Await(3*soon, "usa", "tells of the strangers", func(s *report.Status) bool {
		said := notes(t, s)
		return strings.Contains(said, deu) && strings.Contains(said, fra) && strings.Count(said, " suspended spoke-") == 3
	}))
	require.Contains(t, said, `apiUrl: the hub has "https://evil.test", the manifest says "https://deu.test:4000"`)
	require.Contains(t, said, `publicKey: the hub has "ssh-ed25519 EVIL", the manifest says "ssh-ed25519 FRA"`)
	store := j.store()
	require.Equal(t, map[string]string{
		"DEU": hub.Pending, "FRA": hub.Pending, "GBR": hub.Suspended, "SVN": hub.Approved, "XXX": hub.Suspended, "USA": hub.Suspended,
	}, j.records(store))
	for code, alarm := range map[string]string{"GBR": "holds more than the manifest grants: trust national", "XXX": "no merged manifest declares it", "USA": "no merged manifest declares it"} {
		require.Contains(t, usa.Do("events"), "spoke "+code, alarm)
	}
	require.Equal(t, 1, j.hubSaid(j.record(store, "SVN").SpokeID, hub.Approved), "nothing is approved again blindly")
	taken, last := beating()
	require.NotZero(t, taken)
	require.Error(t, last, "the suspension holds against heartbeats")
	done()

	gbr := j.record(store, "GBR").SpokeID
	for name, id := range map[string]string{"deu": deu, "fra": fra, "gbr": gbr} {
		status := j.hosts[name].AwaitPhase(2*soon, name, report.Blocked, "")
		t.Logf("%s is told: %s; next: %s", name, strings.Join(status.Why, "; "), strings.Join(status.Next, "; "))
		require.Contains(t, why(status), "merge revoke: ["+id+"] in the hub's instance; this spoke registers anew by itself then")
	}
	j.usa = fmt.Sprintf("      revoke: [%s, %s, %s]\n", deu, fra, gbr)
	began := time.Now()
	commit := j.Merge("What the statuses say", j.hubFiles())
	for _, name := range spokes {
		j.hosts[name].AwaitPhase(4*soon, name, report.Ready, commit)
		j.awaitBeat(soon, name)
	}
	t.Logf("the true ones are in %.1f s after the merge", time.Since(began).Seconds())
	for _, name := range spokes {
		require.Equal(t, 1, j.hubSaid(j.record(store, strings.ToUpper(name)).SpokeID, hub.Approved))
	}
	require.Equal(t, map[string]string{
		"DEU": hub.Approved, "FRA": hub.Approved, "GBR": hub.Approved, "SVN": hub.Approved, "XXX": hub.Suspended, "USA": hub.Suspended,
	}, j.records(store))
}

// beatAll registers a spoke that approves itself, and sends a hundred heartbeats a second with its token, each of which writes its
// record back as it was. What it gives tells how many were taken, and how the last one went.
func (j *joining) beatAll(ctx context.Context, name string) (told func() (taken int, last error)) {
	var mu sync.Mutex
	taken, last := 0, errNotYet
	go func() { _, _, _ = j.call("POST", "/register", "", j.request(name, preApproved)) }()
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for token := ""; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if token == "" {
				_, answer, _ := j.call("GET", "/registration/"+name+"/status", "", nil)
				live, _ := answer["token"].(map[string]any)
				token, _ = live["token"].(string)
				continue
			}
			err := j.beat(token)
			mu.Lock()
			if last = err; err == nil {
				taken++
			}
			mu.Unlock()
		}
	}()
	return func() (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return taken, last
	}
}

// hubSaid counts how often the hub's backend says that a record came to a state.
func (j *joining) hubSaid(id, state string) (times int) {
	j.t.Helper()
	for line := range strings.Lines(j.logOf("backend")) {
		if strings.Contains(line, id) && strings.Contains(line, "status") && strings.Contains(line, state) {
			times++
		}
	}
	return times
}
