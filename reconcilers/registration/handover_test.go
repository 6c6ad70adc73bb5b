package registration_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/registration"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

func TestHandover(t *testing.T) {
	t.Parallel()
	mongod := hubtest.StartMongo(t, true)
	for name, test := range map[string]func(t *testing.T, mongod *hubtest.Mongo){
		"a token is renewed with no gap":                     renewedWithNoGap,
		"a changed grant hands over another token":           handedAfterRegrant,
		"a record that stays pending says why":               objectionTold,
		"approved by itself, and not as the manifest says":   approvedItself,
		"what is about another record is passed over":        handedForAnother,
		"what no agent hands over is refused":                handedNonsense,
		"nobody who does not read it is given a token":       nobodyListens,
		"a mint whose answer was lost is made again":         mintCutOff,
		"watch wakes when a token is to be renewed":          renewalWatch,
		"a token that the hub does not know any more":        tokenForgotten,
		"a lost folder mints nothing that is not needed":     folderLost,
		"gone and merged again: registers anew by itself":    goneAndBack,
		"what an operator revoked stays so":                  operatorRevoked,
		"the table of spokes has what an operator looks for": tableOfSpokes,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, mongod)
		})
	}
}

// federation is a fleet as it is merged: the hub publishes what it hands over, and DEU reads it.
type federation struct {
	*world
	h, s *subject
}

const handoverLine = "handover: ${instances.usa.registration.handover}\n"

// newFederation makes it; more is added to DEU's registration, to the hub's component the text in of.
func newFederation(t *testing.T, mongod *hubtest.Mongo, config hub.Config, more string, of ...string) *federation {
	t.Helper()
	w := newWorld(t, mongod, config)
	dir := t.TempDir()
	write := func(name, text string) {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	indent := func(manifest string) string {
		return "      " + strings.ReplaceAll(strings.TrimSpace(manifest), "\n", "\n      ") + "\n"
	}
	head := "apiVersion: dive/v1alpha1\nkind: "
	write("fleet.yaml", head+"Fleet\nmetadata: {name: test}\nspec:\n  hub: {instance: usa, url: \""+w.hub.URL+"\", caFile: ca.pem}\n")
	write("ca.pem", string(w.hub.CA.PEM()))
	write("hosts/usa-01.yaml", head+"Host\nmetadata: {name: usa-01}\nspec: {}\n")
	write("hosts/deu-01.yaml", head+"Host\nmetadata: {name: deu-01}\nspec: {}\n")
	write("instances/usa.yaml", head+"Instance\nmetadata: {name: usa}\nspec:\n  role: hub\n  host: usa-01\n  values: {code: USA, country: United States}\n  secrets: {FEDERATION_ADMIN_KEY: {provide: true}, OPAL_MASTER_TOKEN: {provide: true}}\n  components:\n    registration:\n"+
		indent(approvalsManifest+publishing(of)))
	write("instances/deu.yaml", head+"Instance\nmetadata: {name: deu}\nspec:\n  role: spoke\n  host: deu-01\n  values: {code: DEU, country: Germany}\n  components:\n    registration:\n"+
		indent(spokeManifest+more)+consumer(of))
	fleet, err := desired.Load(dir, desired.Options{Kinds: []desired.Kind{registration.SpokeKind, registration.ApprovalsKind, consumerKind}})
	require.NoError(t, err)
	w.fleet = fleet
	f := &federation{world: w}
	f.h = &subject{w, w.target(fleet.Instances["usa"]), registration.NewApprovals(w.deps())}
	f.s = &subject{w, w.target(fleet.Instances["deu"]), registration.NewSpoke(w.deps())}
	return f
}

// cross brings what the hub publishes for DEU to DEU, as a sealed value would.
func (f *federation) cross() {
	f.t.Helper()
	all := f.h.observe().Outputs["handover"].Cty()
	if !all.Type().HasAttribute("deu") {
		return
	}
	word := desired.ValueOf(all.GetAttr("deu"))
	require.True(f.t, word.Secret())
	f.give(word)
}

func (f *federation) give(word desired.Value) {
	f.s.target.Scope = f.s.target.Scope.WithInstances(map[string]map[string]map[string]desired.Value{"usa": {"registration": {"handover": word}}})
}

// joined is a federation whose spoke is approved and has a token.
func joined(t *testing.T, mongod *hubtest.Mongo) (f *federation, token string) {
	t.Helper()
	f = newFederation(t, mongod, hub.Config{TokenTTL: 24 * time.Hour}, handoverLine)
	f.s.waits("approval by the hub")
	f.h.ready()
	outputs, _ := f.s.ready()
	return f, outputs["token"].Text()
}

func renewedWithNoGap(t *testing.T, mongod *hubtest.Mongo) {
	f, first := joined(t, mongod)
	f.cross()
	outputs, _ := f.s.ready()
	require.Equal(t, first, outputs["token"].Text(), "the first is handed over as it is: no service is made anew for it")
	require.Len(t, f.tokens("DEU"), 1)

	f.clock.forward(16*time.Hour - time.Minute)
	require.Empty(t, f.h.plan().Changes)
	f.clock.forward(2 * time.Minute)
	p := f.h.plan()
	require.Len(t, p.Changes, 1)
	require.Equal(t, "token of DEU", p.Changes[0].Address)
	require.Contains(t, p.Changes[0].Reason, "two thirds of its life are over")
	f.h.ready()
	require.Len(t, f.tokens("DEU"), 2, "the one before is still good")
	outputs, _ = f.s.ready()
	require.Equal(t, first, outputs["token"].Text(), "before it has crossed")

	f.cross()
	text, err := json.Marshal(f.s.plan().Changes)
	require.NoError(t, err)
	require.Contains(t, string(text), "the hub's agent handed over a new one, good until")
	require.NotContains(t, string(text), f.tokens("DEU")[1])
	outputs, _ = f.s.ready()
	second := outputs["token"].Text()
	require.Equal(t, f.tokens("DEU")[1], second)
	require.True(t, outputs["token"].Secret())
	f.clock.forward(9 * time.Hour) // the first one has ended
	outputs, _ = f.s.ready()
	require.Equal(t, second, outputs["token"].Text())
}

// tokenForgotten: the hub's database is that of a time before the last token, and the one before it still lives.
func tokenForgotten(t *testing.T, mongod *hubtest.Mongo) {
	f, first := joined(t, mongod)
	tokens, err := f.hub.Store.Tokens(t.Context(), f.record("DEU").SpokeID)
	require.NoError(t, err)
	f.clock.forward(17 * time.Hour)
	f.h.ready()
	f.cross()
	outputs, _ := f.s.ready()
	second := outputs["token"].Text()
	require.NotEqual(t, first, second)
	require.NoError(t, f.hub.Store.DeleteTokens(t.Context(), f.record("DEU").SpokeID))
	require.NoError(t, f.hub.Store.SaveToken(t.Context(), tokens[0]))
	p := f.s.plan()
	require.Len(t, p.Changes, 1)
	require.Equal(t, "the hub does not know the one before any more", p.Changes[0].Reason)
	for range 2 { // also while the hub's agent hands the other one over
		f.cross()
		outputs, _ = f.s.ready()
		require.Equal(t, first, outputs["token"].Text())
	}
	require.Nil(t, f.record("DEU").LastHeartbeat, "a question is no heartbeat")
}

func handedAfterRegrant(t *testing.T, mongod *hubtest.Mongo) {
	f, first := joined(t, mongod)
	f.cross()
	spec := f.fleet.Instances["deu"].Components[0].Spec.(*registration.SpokeSpec)
	spec.MaxClassification = desired.Literal("CONFIDENTIAL")
	f.clock.forward(time.Hour)
	f.h.ready()
	f.cross()
	outputs, _ := f.s.ready()
	require.NotEqual(t, first, outputs["token"].Text())
	require.Equal(t, f.tokens("DEU"), []string{outputs["token"].Text()})
}

// objectionTold: the true spoke is told who stands in its way, and one merged line in the hub's instance lets it in.
func objectionTold(t *testing.T, mongod *hubtest.Mongo) {
	f := newFederation(t, mongod, hub.Config{}, handoverLine)
	f.register("DEU", map[string]any{"name": "Germany", "baseUrl": "https://evil.test"})
	stranger := f.record("DEU").SpokeID
	f.s.waits("the hub's agent approves when")
	_, facts := f.h.ready()
	require.Contains(t, strings.Join(facts.Notes, "\n"), "to have deu register in its place, merge revoke: ["+stranger+"] here")
	f.cross()
	said := f.s.blocked("RecordDiffers")
	require.Contains(t, said, `baseUrl: the hub has "https://evil.test", the manifest says "https://deu.test:3000"`)
	require.Contains(t, said, "merge revoke: ["+stranger+"] in the hub's instance; this spoke registers anew by itself then")
	require.NotContains(t, string(mustRead(t, f.s.target.Dir)), "evil", "what the hub says is no part of what was sent")
	f.outOfTheWay(stranger)
}

// outOfTheWay merges what the agents say of a stranger's record.
func (f *federation) outOfTheWay(stranger string) {
	f.t.Helper()
	f.h.target.Component.Spec.(*registration.ApprovalsSpec).Revoke = []string{stranger}
	f.h.ready()
	require.Equal(f.t, "revoked", f.record("DEU").Status)
	f.s.blocked("SpokeRevoked")
	f.cross()
	f.s.waits("approval by the hub")
	f.h.ready()
	f.cross()
	outputs, _ := f.s.ready()
	require.NotEqual(f.t, stranger, outputs["spoke_id"].Text())
	require.Equal(f.t, f.record("DEU").SpokeID, outputs["spoke_id"].Text())
	require.Equal(f.t, "https://deu.test:3000", f.record("DEU").BaseURL)
}

// approvedItself: a stranger that is approved by itself with exactly what the manifest grants, or less, is nobody that the manifest
// declares, and gets no more.
func approvedItself(t *testing.T, mongod *hubtest.Mongo) {
	equal := map[string]any{"requestedScopes": []string{"policy:base", "policy:org"}, "partnerTrustLevel": "partner"}
	for name, change := range map[string]map[string]any{
		"another URL, the same grant": {"baseUrl": "https://evil.test"},
		"another key, the same grant": {"publicKey": "ssh-ed25519 EVIL"},
		"another URL, less":           {"baseUrl": "https://evil.test", "partnerTrustLevel": "development"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFederation(t, mongod, hub.Config{}, handoverLine)
			body := map[string]any{"name": "Germany", "partnerPreApproved": true, "partnerMaxClassification": "SECRET"}
			for _, part := range []map[string]any{equal, change} {
				for key, value := range part {
					body[key] = value
				}
			}
			f.register("DEU", body)
			stranger := f.record("DEU").SpokeID
			p := f.h.plan()
			require.Len(t, p.Changes, 1)
			require.False(t, p.Changes[0].Destroys, "it waits for nobody")
			require.Contains(t, p.Changes[0].Reason, "nobody approved it, and it is not what the manifest says")
			_, facts := f.h.ready()
			require.Equal(t, "suspended", f.record("DEU").Status)
			require.Empty(t, f.tokens("DEU"))
			require.Contains(t, strings.Join(facts.Notes, "\n"), "merge revoke: ["+stranger+"] here")
			f.cross()
			require.Contains(t, f.s.blocked("SpokeSuspended"), "merge revoke: ["+stranger+"] in the hub's instance")
			f.outOfTheWay(stranger)
		})
	}
}

func mustRead(t *testing.T, dir string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "registration.json"))
	require.NoError(t, err)
	return data
}

func handedForAnother(t *testing.T, mongod *hubtest.Mongo) {
	f, first := joined(t, mongod)
	f.give(desired.Secret(`{"spokeId":"spoke-deu-00000000","token":"stolen","expiresAt":"2100-01-01T00:00:00Z"}`))
	outputs, _ := f.s.ready()
	require.Equal(t, first, outputs["token"].Text())
}

func handedNonsense(t *testing.T, mongod *hubtest.Mongo) {
	f, _ := joined(t, mongod)
	f.give(desired.Secret("nonsense"))
	require.NotContains(t, f.s.blocked("HandoverUnreadable"), "nonsense")
}

func nobodyListens(t *testing.T, mongod *hubtest.Mongo) {
	f := newFederation(t, mongod, hub.Config{}, "")
	f.s.waits("approval by the hub")
	f.h.ready()
	f.clock.forward(17 * time.Hour)
	f.h.ready()
	require.Empty(t, f.tokens("DEU")[1:])
	require.Zero(t, f.hub.Calls("POST /api/federation/spokes/"+f.record("DEU").SpokeID+"/token"))
}

func mintCutOff(t *testing.T, mongod *hubtest.Mongo) {
	f, _ := joined(t, mongod)
	f.clock.forward(17 * time.Hour)
	p := f.h.plan()
	f.h.target.Dir += "/gone" // nothing can be kept
	_, err := f.h.reconciler.Apply(t.Context(), f.h.target, p, silent{})
	require.Error(t, err)
	f.h.target.Dir = strings.TrimSuffix(f.h.target.Dir, "/gone")
	f.h.ready()
	f.cross()
	outputs, _ := f.s.ready()
	tokens := f.tokens("DEU")
	require.Equal(t, tokens[len(tokens)-1], outputs["token"].Text())
}

func renewalWatch(t *testing.T, mongod *hubtest.Mongo) {
	f, _ := joined(t, mongod)
	f.h.observe()
	woken := watch(t, f.h)
	waitPolls(t, f.world, "GET /api/federation/spokes")
	f.clock.forward(16*time.Hour + time.Minute)
	awaitWake(t, woken, "two thirds of a token's life")
}

func folderLost(t *testing.T, mongod *hubtest.Mongo) {
	f, first := joined(t, mongod)
	require.NoError(t, os.Remove(filepath.Join(f.h.target.Dir, "tokens.json")))
	f.h.ready()
	require.Equal(t, []string{first}, f.tokens("DEU"))
	require.NoError(t, os.WriteFile(filepath.Join(f.h.target.Dir, "tokens.json"), []byte("{"), 0o600))
	f.h.ready()
	require.Equal(t, []string{first}, f.tokens("DEU"))
}

// leave takes DEU's manifest away, has the hub's agent see that, and merges it again; meanwhile is what happens in between.
func (f *federation) leave(meanwhile func()) {
	deu := f.fleet.Instances["deu"]
	delete(f.fleet.Instances, "deu")
	f.h.ready()
	meanwhile()
	f.fleet.Instances["deu"] = deu
	f.h.ready()
	f.cross()
}

func goneAndBack(t *testing.T, mongod *hubtest.Mongo) {
	f, first := joined(t, mongod)
	id := f.record("DEU").SpokeID
	f.leave(func() {
		require.Equal(t, "revoked", f.record("DEU").Status)
		f.s.blocked("SpokeRevoked") // as a host would say that hears of the hub before the merge
	})
	require.Contains(t, f.s.plan().Changes[0].Reason, id+" is revoked, and the hub's agent ended it as merged manifests said")
	f.s.waits("approval by the hub")
	f.h.ready()
	f.cross()
	outputs, facts := f.s.ready()
	again := f.record("DEU").SpokeID
	require.NotEqual(t, id, again)
	require.Equal(t, again, outputs["spoke_id"].Text())
	require.Equal(t, again, facts.Values["spokeId"])
	require.Equal(t, again, f.h.observe().Facts.Spokes[0].ID)
	require.NotEqual(t, first, outputs["token"].Text())

	// With the spoke's folder lost, on a new host: the hub's agent knows. With the hub's lost, nobody does.
	f.leave(func() { require.NoError(t, os.Remove(filepath.Join(f.s.target.Dir, "registration.json"))) })
	f.s.waits("approval by the hub")
	f.h.ready()
	f.s.ready()
	f.leave(func() { require.NoError(t, os.Remove(filepath.Join(f.h.target.Dir, "grants.json"))) })
	f.s.blocked("SpokeRevoked")
}

func operatorRevoked(t *testing.T, mongod *hubtest.Mongo) {
	f, _ := joined(t, mongod)
	operator := func(call string) func() {
		return func() {
			f.call("POST", "/spokes/"+f.record("DEU").SpokeID+"/"+call, map[string]any{"reason": "test"})
		}
	}
	anew := func() {
		spec := f.s.target.Component.Spec.(*registration.SpokeSpec)
		spec.RegisterAgainAfter = f.record("DEU").SpokeID
		f.s.waits("approval by the hub")
		f.h.ready()
		f.s.ready()
		spec.RegisterAgainAfter = ""
	}
	// Revoked by hand, before its manifest goes.
	operator("revoke")()
	f.leave(func() {})
	require.Contains(t, f.s.blocked("SpokeRevoked"), "registerAgainAfter: "+f.record("DEU").SpokeID)
	anew()
	// Suspended by hand: the agent revokes it, and the operator's word stands all the same.
	operator("suspend")()
	f.leave(func() { require.Equal(t, "revoked", f.record("DEU").Status) })
	f.s.blocked("SpokeRevoked")
	anew()
	// Come back, and revoked by hand then: what was once ended by a merge is no excuse.
	f.leave(func() {})
	f.s.waits("approval by the hub")
	f.h.ready()
	f.s.ready()
	operator("revoke")()
	f.h.ready()
	f.cross()
	f.s.blocked("SpokeRevoked")
	anew()
	// The agent was stopped between what it wrote and its call, the manifest came back, and somebody else revokes.
	deu := f.fleet.Instances["deu"]
	delete(f.fleet.Instances, "deu")
	cut := f.hub.Front
	cut(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/revoke") {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(rw, r)
		})
	})
	f.h.waits("the hub")
	cut(nil)
	f.fleet.Instances["deu"] = deu
	f.h.ready()
	operator("revoke")()
	f.h.ready()
	f.cross()
	f.s.blocked("SpokeRevoked")
}

func tableOfSpokes(t *testing.T, mongod *hubtest.Mongo) {
	f, _ := joined(t, mongod)
	record := f.record("DEU")
	now := f.clock.Now().UTC()
	record.LastHeartbeat = &now
	require.NoError(t, f.hub.Store.Save(t.Context(), record))
	f.register("XXX", nil)
	spokes := f.h.observe().Facts.Spokes
	require.Len(t, spokes, 2)
	require.Equal(t, reconcilers.SpokeFacts{Code: "DEU", Instance: "deu", ID: record.SpokeID, State: "approved", Alive: "online"}, reconcilers.SpokeFacts{
		Code: spokes[0].Code, Instance: spokes[0].Instance, ID: spokes[0].ID, State: spokes[0].State, Alive: spokes[0].Alive,
	})
	require.WithinDuration(t, now.Add(24*time.Hour), spokes[0].Token, time.Minute)
	require.WithinDuration(t, now, spokes[0].Since, time.Minute)
	require.WithinDuration(t, now, spokes[0].Heartbeat, time.Second)
	require.Equal(t, "XXX pending", spokes[1].Code+" "+spokes[1].State)
	for after, alive := range map[time.Duration]string{59 * time.Second: "online", 62 * time.Second: "late", 151 * time.Second: "silent"} {
		then := now.Add(-after)
		record.LastHeartbeat = &then
		require.NoError(t, f.hub.Store.Save(t.Context(), record))
		require.Equal(t, alive, f.h.observe().Facts.Spokes[0].Alive, after.String())
	}
}
