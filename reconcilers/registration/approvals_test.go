package registration_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/registration"
	"dive-agent/testbed"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	testbed.Eventually(t, 15*time.Second, what, func() error {
		if !ask() {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
}

func TestApprovals(t *testing.T) {
	t.Parallel()
	mongod := hubtest.StartMongo(t, true)
	for name, test := range map[string]func(t *testing.T, mongod *hubtest.Mongo){
		"merging is the approval, seen from both sides":        bothSides,
		"differences are reported field by field":              differencesReported,
		"a record of nobody stays pending":                     nobodyStaysPending,
		"unknown approved records: report, suspend, revoke":    unknownApproved,
		"more than declared is suspended at once":              moreThanDeclared,
		"a manifest that lowers its grant is carried out":      loweredGrant,
		"an interrupted change of a grant is finished":         interruptedRegrant,
		"a heartbeat that undoes a suspension is overcome":     heartbeatRace,
		"hub away and wrong admin key":                         hubAwayOrWrongKey,
		"the hub's own record":                                 ownRecord,
		"a stranger's code is quoted and carried out":          strangersCode,
		"two manifests for one code: neither":                  twoManifests,
		"a manifest that cannot be compared leaves it pending": cannotCompare,
		"a record that changes before its approval is judged":  changesBeforeApproval,
		"watch wakes when a spoke registers":                   approvalsWatch,
		"suspended by its manifest, and released":              suspendedByManifest,
		"revoked by its manifest, then approved again":         revokedByManifest,
		"other URLs: revoked with approval, registered anew":   otherURLs,
		"a manifest that goes revokes, several wait":           manifestGone,
		"a stranger's record is revoked by name":               strangerRevoked,
		"nobody waits for an approval about another spoke":     approvalOfOneAlone,
		"what the hub's operator does by hand":                 operatorByHand,
		"root of a spoke's host grants itself nothing":         rootOfASpoke,
	} {
		t.Run(name, func(t *testing.T) { test(t, mongod) })
	}
}

func bothSides(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s, h := w.spoke("deu", "Germany"), w.approvals("")
	_, facts := h.ready()
	require.Equal(t, []string{"DEU: declared by deu, and not registered yet"}, facts.Notes)
	s.waits("approval by the hub")
	p := h.plan()
	require.Len(t, p.Changes, 1)
	require.Equal(t, "spoke DEU", p.Changes[0].Address)
	require.Contains(t, p.Changes[0].Details[0], "partner, SECRET, filtered, policy:base policy:org")
	_, facts = h.ready()
	require.Equal(t, "1 approved", facts.Summary)
	require.Empty(t, facts.Notes)
	s.ready()
	require.Contains(t, w.records(), `DEU approved "Germany" https://deu.test:3000 ops@deu.test [policy:base policy:org] partner SECRET filtered`)
	require.Equal(t, 1, w.hub.Calls("POST /api/federation/spokes/"+w.record("DEU").SpokeID+"/approve"))
}

func differencesReported(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	w.spoke("deu", "Germany")
	h := w.approvals("")
	w.register("DEU", map[string]any{"name": "Germany", "apiUrl": "https://evil.test", "publicKey": "ssh-ed25519 EVIL"})
	_, facts := h.ready()
	text := strings.Join(facts.Notes, "\n")
	require.Contains(t, text, `apiUrl: the hub has "https://evil.test", the manifest says "https://deu.test:4000"`)
	require.Contains(t, text, `publicKey: the hub has "ssh-ed25519 EVIL", the manifest says ""`)
	require.NotContains(t, text, "baseUrl")
	require.Equal(t, "pending", w.record("DEU").Status)
}

func nobodyStaysPending(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	h := w.approvals("unknownSpokes: revoke")
	w.register("XXX", nil)
	_, facts := h.ready()
	require.Contains(t, facts.Notes[0], "pending, and no merged manifest declares it")
	require.Equal(t, "pending", w.record("XXX").Status)
}

func unknownApproved(t *testing.T, mongod *hubtest.Mongo) {
	for policy, status := range map[string]string{"report": "approved", "suspend": "suspended", "revoke": "revoked"} {
		t.Run(policy, func(t *testing.T) {
			w := newWorld(t, mongod, hub.Config{})
			h := w.approvals("unknownSpokes: " + policy)
			w.register("XXX", map[string]any{"partnerPreApproved": true, "partnerTrustLevel": "national", "partnerMaxClassification": "TOP_SECRET"})
			require.Contains(t, h.observe().Facts.Notes[0], "ALARM: approved")
			h.ready()
			require.Equal(t, status, w.record("XXX").Status)
		})
	}
}

func moreThanDeclared(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s, h := w.spoke("deu", "Germany"), w.approvals("")
	s.waits("approval by the hub")
	w.approve("DEU")
	granted := *w.record("DEU")
	for says, raise := range map[string]func(*hub.Record){
		"classification TOP_SECRET (the manifest grants SECRET)": func(r *hub.Record) { r.MaxClassification = "TOP_SECRET" },
		"trust bilateral (the manifest grants partner)":          func(r *hub.Record) { r.TrustLevel = "bilateral" },
		"isolation full (the manifest grants filtered)":          func(r *hub.Record) { r.DataIsolationLevel = "full" },
		"scope policy:nato": func(r *hub.Record) {
			r.AllowedPolicyScopes = append(slices.Clone(r.AllowedPolicyScopes), "policy:nato")
		},
	} {
		require.NoError(t, w.hub.Store.Save(t.Context(), &granted))
		raised := granted
		raise(&raised)
		require.NoError(t, w.hub.Store.Save(t.Context(), &raised))
		require.Contains(t, h.plan().Changes[0].Reason, "holds more than the manifest grants: "+says)
		h.ready()
		require.Equal(t, "suspended", w.record("DEU").Status, says)
		require.Empty(t, w.tokens("DEU"), says)
	}
}

func loweredGrant(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s, h := w.spoke("deu", "Germany"), w.approvals("")
	s.waits("approval by the hub")
	h.ready()
	s.ready()
	lowered := w.spoke("deu", "Germany", "maxClassification: SECRET", "maxClassification: CONFIDENTIAL")
	lowered.target.Dir = s.target.Dir
	p := h.plan()
	require.Contains(t, p.Changes[0].Details[0], "CONFIDENTIAL")
	h.ready()
	require.Equal(t, "approved", w.record("DEU").Status)
	require.Equal(t, "CONFIDENTIAL", w.record("DEU").MaxClassification)
	outputs, _ := lowered.ready()
	require.Contains(t, w.tokens("DEU"), outputs["token"].Text(), "the spoke has the token of the new grant")
}

func interruptedRegrant(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s, h := w.spoke("deu", "Germany"), w.approvals("")
	s.waits("approval by the hub")
	h.ready()
	w.spoke("deu", "Germany", "trustLevel: partner", "trustLevel: national")
	refuse := "/api/federation/spokes/" + w.record("DEU").SpokeID + "/approve"
	w.hub.Front(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == refuse {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(rw, r)
		})
	})
	h.waits("the hub")
	require.Equal(t, "suspended", w.record("DEU").Status)
	w.hub.Front(nil)
	h.ready()
	require.Equal(t, "approved", w.record("DEU").Status)
	require.Equal(t, "national", w.record("DEU").TrustLevel)
}

func heartbeatRace(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	h := w.approvals("unknownSpokes: suspend")
	w.register("XXX", map[string]any{"partnerPreApproved": true})
	before := w.record("XXX")
	var suspensions, undone atomic.Int32
	undo := func(r *http.Request) { // what a heartbeat on its way does
		if err := w.hub.Store.Save(r.Context(), before); err != nil {
			t.Error(err)
		}
	}
	w.hub.Front(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(rw, r)
			switch {
			case strings.HasSuffix(r.URL.Path, "/suspend"):
				if suspensions.Add(1) == 1 {
					undo(r) // before anybody looks
				}
			case suspensions.Load() == 2 && undone.Add(1) == 1:
				undo(r) // after the first look
			}
		})
	})
	h.ready()
	require.EqualValues(t, 3, suspensions.Load())
	require.Equal(t, "suspended", w.record("XXX").Status)
}

func hubAwayOrWrongKey(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	h := w.approvals("")
	w.hub.Stop()
	h.waits("the hub at " + w.hub.URL)
	w.hub.Again(t)
	w.hub.Front(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) })
	})
	h.waits("answered 500")
	w.hub.Front(nil)
	h.ready()
	h.target.Scope = h.target.Scope.With(map[string]desired.Value{"FEDERATION_ADMIN_KEY": desired.Secret("another-key")})
	require.NotContains(t, h.blocked("WrongAdminKey"), "another-key")
}

func ownRecord(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{OwnCode: "USA"})
	_, facts := w.approvals("unknownSpokes: suspend").ready()
	require.Contains(t, facts.Notes[0], "hub-usa is the hub's own record")
	require.Equal(t, "approved", w.record("USA").Status)
	w.approvals("unknownSpokes: revoke").ready()
	require.Equal(t, "revoked", w.record("USA").Status)
}

func strangersCode(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	h := w.approvals("unknownSpokes: suspend")
	for _, code := range []string{"A/B", "|`\n", "../", "é%?"} {
		w.register(code, map[string]any{
			"partnerPreApproved": true, "name": "| <b>x</b>\n# heading",
			"baseUrl": "https://x.test", "apiUrl": "https://x.test", "contactEmail": "x@x.test",
		})
	}
	p := h.plan()
	require.Len(t, p.Changes, 4)
	_, facts := h.ready()
	for _, note := range facts.Notes {
		require.NotContains(t, note, "\n")
		require.NotContains(t, note, "<b>")
	}
	for _, change := range p.Changes {
		require.NotContains(t, change.Address+change.Reason, "\n")
	}
	require.Equal(t, 4, strings.Count(w.records(), " suspended "))
}

func twoManifests(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s := w.spoke("deu", "Germany")
	w.fleet.Instances["deu2"] = &desired.Instance{Name: "deu2", Values: s.target.Instance.Values, Components: s.target.Instance.Components}
	s.waits("approval by the hub")
	_, facts := w.approvals("").ready()
	require.Contains(t, facts.Notes[0], "deu and deu2 both declare the spoke DEU")
	require.Equal(t, "pending", w.record("DEU").Status)
}

func cannotCompare(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s := w.spoke("deu", "Germany", "skipValidation: true", "skipValidation: true\npublicKey: ${KEY}")
	s.target.Instance.Secrets = []desired.SecretSpec{{Name: "KEY", Provide: true}}
	w.register("DEU", map[string]any{"partnerPreApproved": true})
	_, facts := w.approvals("unknownSpokes: revoke").ready()
	require.Contains(t, facts.Notes[0], "deu: registration cannot be compared")
	require.Equal(t, "approved", w.record("DEU").Status, "what cannot be judged is left alone")
}

// changesBeforeApproval: no field of a record can be changed between its judgement and its approval.
func changesBeforeApproval(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s, h := w.spoke("deu", "Germany"), w.approvals("")
	s.waits("approval by the hub")
	judged := *w.record("DEU")
	for name, change := range map[string]func(*hub.Record){
		"name":           func(r *hub.Record) { r.Name = "Germani" },
		"description":    func(r *hub.Record) { r.Description = new("another") },
		"baseUrl":        func(r *hub.Record) { r.BaseURL = "https://evil.test" },
		"apiUrl":         func(r *hub.Record) { r.APIURL = "https://evil.test" },
		"idpUrl":         func(r *hub.Record) { r.IDPURL = "https://evil.test" },
		"idpPublicUrl":   func(r *hub.Record) { r.IDPPublicURL = new("https://evil.test") },
		"contactEmail":   func(r *hub.Record) { r.ContactEmail = "eve@evil.test" },
		"publicKey":      func(r *hub.Record) { r.PublicKey = new("ssh-ed25519 EVIL") },
		"certificatePEM": func(r *hub.Record) { r.CertificatePEM = new("EVIL") },
	} {
		p := h.plan()
		require.Len(t, p.Changes, 1, name)
		changed := judged
		change(&changed)
		require.NoError(t, w.hub.Store.Save(t.Context(), &changed))
		_, err := h.reconciler.Apply(t.Context(), h.target, p, silent{})
		var wait *reconcilers.WaitError
		require.ErrorAs(t, err, &wait, name)
		require.Equal(t, "pending", w.record("DEU").Status, name)
		_, facts := h.ready()
		require.Contains(t, strings.Join(facts.Notes, "\n"), name+": the hub has", name)
		require.Equal(t, "pending", w.record("DEU").Status, name)
		require.NoError(t, w.hub.Store.Save(t.Context(), &judged))
	}
}

func approvalsWatch(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s, h := w.spoke("deu", "Germany"), w.approvals("")
	woken := watch(t, h)
	waitPolls(t, w, "GET /api/federation/spokes")
	s.waits("approval by the hub")
	awaitWake(t, woken, "a registration")
	w.hub.Stop()
	awaitWake(t, woken, "the hub's going")
	w.hub.Again(t)
	awaitWake(t, woken, "the hub's coming back")
}

// TestADeclaredSpokeIsLookedOutFor: the hub is asked often after a merge that declares a spoke, however seldom otherwise.
func TestADeclaredSpokeIsLookedOutFor(t *testing.T) {
	t.Parallel()
	mongod := hubtest.StartMongo(t, true)
	w := newWorld(t, mongod, hub.Config{})
	h := w.approvals("")
	h.target.Component.Spec.(*registration.ApprovalsSpec).Poll = desired.Duration(time.Hour)
	s := w.spoke("deu", "Germany")
	h.observe()
	woken := watch(t, h)
	waitPolls(t, w, "GET /api/federation/spokes")
	s.waits("approval by the hub")
	awaitWake(t, woken, "the registration that was awaited")
}

// TestApproveTakesMinutes: the hub goes on for longer than the call's limit, while the record is changed at once. Spokes do not
// wait for each other's call.
func TestApproveTakesMinutes(t *testing.T) {
	t.Parallel()
	mongod := hubtest.StartMongo(t, true)
	w := newWorld(t, mongod, hub.Config{CascadeDelay: time.Minute})
	h := w.approvals("")
	spokes := map[string]*subject{}
	for code, country := range map[string]string{"DEU": "Germany", "FRA": "France", "GBR": "Great Britain", "ITA": "Italy"} {
		spokes[code] = w.spoke(strings.ToLower(code), country)
		spokes[code].waits("approval by the hub")
	}
	began := time.Now()
	h.ready()
	require.Less(t, time.Since(began), 30*time.Second, "10 s each, one after the other, are 40")
	for code, s := range spokes {
		require.Equal(t, 1, w.hub.Calls("POST /api/federation/spokes/"+w.record(code).SpokeID+"/approve"), "never approved again blindly")
		s.ready()
	}
	_, err := os.Stat(filepath.Join(h.target.Dir, "grants.json"))
	require.NoError(t, err)
}
