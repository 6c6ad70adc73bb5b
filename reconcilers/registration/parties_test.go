package registration_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

// What the parties of docs/security.md can do at the hub past the merged manifests.

// operatorByHand: what grants is taken back, what takes away stays and is told on both sides.
func operatorByHand(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s, h := w.spoke("deu", "Germany"), w.approvals("unknownSpokes: suspend")
	s.waits("approval by the hub")
	h.ready()
	s.ready()

	w.register("XXX", nil)
	w.approve("XXX")
	require.Contains(t, strings.Join(h.observe().Facts.Notes, "\n"), "ALARM: approved (partner, SECRET")
	h.ready()
	require.Equal(t, "suspended", w.record("XXX").Status)

	at := "/spokes/" + w.record("DEU").SpokeID
	w.call("POST", at+"/suspend", map[string]any{"reason": "test"})
	require.Contains(t, s.blocked("SpokeSuspended"), "suspended")
	_, facts := h.ready()
	require.Contains(t, strings.Join(facts.Notes, "\n"), "DEU ("+w.record("DEU").SpokeID+"): suspended")
	require.Equal(t, "suspended", w.record("DEU").Status, "it is not undone")

	w.call("POST", at+"/approve", map[string]any{
		"allowedScopes": []string{"policy:base", "policy:org"}, "trustLevel": "national", "maxClassification": "TOP_SECRET", "dataIsolationLevel": "filtered",
	})
	require.Contains(t, strings.Join(h.observe().Facts.Notes, "\n"), "ALARM: approved with more than the manifest of deu grants")
	h.ready()
	require.Equal(t, "suspended", w.record("DEU").Status)
	require.Empty(t, w.tokens("DEU"))

	w.call("POST", at+"/revoke", map[string]any{"reason": "test"})
	require.Contains(t, s.blocked("SpokeRevoked"), "registerAgainAfter")
	_, facts = h.ready()
	require.Contains(t, strings.Join(facts.Notes, "\n"), ": revoked")
}

// rootOfASpoke: neither another manifest on the host, nor a registration past its agent, nor a call grants more than is merged.
func rootOfASpoke(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	root := w.spoke("deu", "Germany", "maxClassification: SECRET", "maxClassification: TOP_SECRET")
	root.waits("approval by the hub")
	w.spoke("deu", "Germany") // as it is merged
	h := w.approvals("")
	require.Equal(t, http.StatusUnauthorized, w.approveWith("DEU", "the-key-of-nobody"))
	require.Equal(t, http.StatusUnauthorized, w.approveWith("DEU", ""))
	require.Equal(t, "pending", w.record("DEU").Status)
	h.ready()
	require.Equal(t, "approved", w.record("DEU").Status)
	require.Equal(t, "SECRET", w.record("DEU").MaxClassification)

	w = newWorld(t, mongod, hub.Config{})
	w.spoke("deu", "Germany")
	h = w.approvals("")
	w.register("DEU", map[string]any{
		"name": "Germany", "partnerPreApproved": true, "partnerTrustLevel": "national", "partnerMaxClassification": "TOP_SECRET",
	})
	require.Equal(t, "TOP_SECRET", w.record("DEU").MaxClassification, "the hub takes its word")
	require.Contains(t, strings.Join(h.observe().Facts.Notes, "\n"), "ALARM: approved with more than the manifest of deu grants")
	h.ready()
	require.Equal(t, "suspended", w.record("DEU").Status)
	require.Empty(t, w.tokens("DEU"))
}

// approveWith has somebody with another key approve a spoke, and gives the hub's answer.
func (w *world) approveWith(code, key string) int {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.hub.URL+"/api/federation/spokes/"+w.record(code).SpokeID+"/approve",
		strings.NewReader(`{"allowedScopes": ["policy:base"], "trustLevel": "national", "maxClassification": "TOP_SECRET", "dataIsolationLevel": "full"}`))
	require.NoError(w.t, err)
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("X-Admin-Key", key)
	}
	response, err := w.http.Do(request)
	require.NoError(w.t, err)
	require.NoError(w.t, response.Body.Close())
	return response.StatusCode
}
