package registration_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

func suspendedByManifest(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s, h := w.spoke("deu", "Germany"), w.approvals("")
	s.waits("approval by the hub")
	h.ready()
	before, _ := s.ready()
	suspend := w.spoke("deu", "Germany", "poll: 200ms", "poll: 200ms\nstanding: suspended")
	suspend.target.Dir = s.target.Dir
	suspend.waits("the hub to have it suspended")
	require.Equal(t, "the manifest of deu says suspended", h.plan().Changes[0].Reason)
	h.ready()
	require.Empty(t, w.tokens("DEU"))
	_, facts := suspend.ready()
	require.Equal(t, "suspended", facts.Summary)
	require.NoError(t, os.Remove(filepath.Join(h.target.Dir, "grants.json"))) // a suspension of somebody else's stays
	release := w.spoke("deu", "Germany")
	release.target.Dir = s.target.Dir
	h.ready()
	release.blocked("SpokeSuspended")
	w.spoke("deu", "Germany", "poll: 200ms", "poll: 200ms\nstanding: suspended")
	w.call("POST", "/spokes/"+w.record("DEU").SpokeID+"/unsuspend", map[string]any{"reason": "test"})
	h.ready()
	require.Equal(t, "suspended", w.record("DEU").Status, "held against what the hub does")
	w.fleet.Instances["deu"] = release.target.Instance
	require.Contains(t, h.plan().Changes[0].Reason, "no longer says suspended")
	h.ready()
	after, _ := release.ready()
	require.NotEqual(t, before["token"].Text(), after["token"].Text())
	require.Equal(t, before["spoke_id"].Text(), after["spoke_id"].Text())
}

func revokedByManifest(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s, h := w.spoke("deu", "Germany"), w.approvals("")
	s.waits("approval by the hub")
	h.ready()
	before, _ := s.ready()
	revoke := w.spoke("deu", "Germany", "poll: 200ms", "poll: 200ms\nstanding: revoked")
	revoke.target.Dir = s.target.Dir
	h.ready()
	require.Equal(t, "revoked", w.record("DEU").Status)
	outputs, facts := revoke.ready()
	require.True(t, before["token"].Equal(outputs["token"]), "what runs is left as it is, and waits for nothing")
	require.NotContains(t, facts.Values, "tokenExpires")
	_, facts = h.ready()
	require.Contains(t, strings.Join(facts.Notes, "\n"), "the manifest of deu says revoked")
	again := w.spoke("deu", "Germany")
	again.target.Dir = s.target.Dir
	again.waits("approval by the hub")
	h.ready()
	after, _ := again.ready()
	require.NotEqual(t, before["spoke_id"].Text(), after["spoke_id"].Text())
}

func otherURLs(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s, h := w.spoke("deu", "Germany"), w.approvals("")
	s.waits("approval by the hub")
	h.ready()
	before, _ := s.ready()
	moved := w.spoke("deu", "Germany", "https://${lower(code)}.test:3000", "https://moved.test:3000")
	moved.target.Dir = s.target.Dir
	require.Contains(t, moved.blocked("RecordDiffers"), "https://moved.test:3000")
	p := h.plan()
	require.Len(t, p.Changes, 1)
	require.True(t, p.Changes[0].Destroys, "it waits for approval")
	require.Equal(t, []string{`baseUrl: the hub has "https://deu.test:3000", the manifest says "https://moved.test:3000"`}, p.Changes[0].Details)
	_, err := h.reconciler.Apply(t.Context(), h.target, p, silent{})
	require.NoError(t, err)
	require.Equal(t, "revoked", w.record("DEU").Status)
	moved.waits("approval by the hub")
	h.ready()
	after, _ := moved.ready()
	require.NotEqual(t, before["spoke_id"].Text(), after["spoke_id"].Text())
	require.Equal(t, "https://moved.test:3000", w.record("DEU").BaseURL)
}

func manifestGone(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	h := w.approvals("")
	for _, name := range []string{"deu", "fra", "gbr"} {
		w.spoke(name, "Spoke "+name).waits("approval by the hub")
	}
	h.ready()
	require.NoError(t, os.Remove(filepath.Join(h.target.Dir, "grants.json"))) // as of a hub that people approved at: found again
	h.ready()
	delete(w.fleet.Instances, "deu")
	require.Equal(t, "the manifest of deu is gone", h.plan().Changes[0].Reason)
	h.ready()
	require.Equal(t, "revoked", w.record("DEU").Status)
	delete(w.fleet.Instances, "fra")
	delete(w.fleet.Instances, "gbr")
	_, facts := h.ready()
	require.Contains(t, strings.Join(facts.Notes, "\n"), "merge removed: [fra] in fleet.yaml")
	require.Equal(t, "approved", w.record("FRA").Status)
	w.fleet.Removed = []string{"fra", "gbr"}
	h.ready()
	require.Equal(t, "revoked", w.record("FRA").Status)
	require.Equal(t, "revoked", w.record("GBR").Status)

	w.fleet.Removed = nil
	for _, code := range []string{"DEU", "FRA", "GBR"} { // the hub's database is that of last week
		record := w.record(code)
		record.Status = "approved"
		require.NoError(t, w.hub.Store.Save(t.Context(), record))
	}
	require.Len(t, h.plan().Changes, 3, "they were revoked for it before: nobody is asked again")
	h.ready()
	require.Equal(t, 3, strings.Count(w.records(), " revoked "))
}

func strangerRevoked(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	w.register("DEU", map[string]any{"name": "Eve", "baseUrl": "https://evil.test"})
	stranger := w.record("DEU").SpokeID
	s := w.spoke("deu", "Germany")
	require.Contains(t, s.blocked("RecordDiffers"), `name: the hub has "Eve"`)
	_, facts := w.approvals("").ready()
	require.Contains(t, strings.Join(facts.Notes, "\n"), "merge revoke: ["+stranger+"] here")
	h := w.approvals("revoke: [" + stranger + "]\n")
	h.ready()
	require.Equal(t, "revoked", w.record("DEU").Status)
	again := w.spoke("deu", "Germany", "poll: 200ms", "poll: 200ms\nregisterAgainAfter: "+stranger)
	again.target.Dir = s.target.Dir
	again.waits("approval by the hub")
	h.ready()
	again.ready()
}

func approvalOfOneAlone(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s, h := w.spoke("deu", "Germany"), w.approvals("")
	s.waits("approval by the hub")
	h.ready()
	w.spoke("deu", "Germany", "https://${lower(code)}.test:3000", "https://moved.test:3000")
	w.spoke("fra", "France").waits("approval by the hub")
	p := h.plan()
	require.Len(t, p.Changes, 1)
	require.Equal(t, "spoke FRA", p.Changes[0].Address)
	require.False(t, p.Changes[0].Destroys)
	_, err := h.reconciler.Apply(t.Context(), h.target, p, silent{})
	require.NoError(t, err)
	require.Equal(t, "spoke DEU", h.plan().Changes[0].Address)
}
