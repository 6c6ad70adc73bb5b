package registration_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
	"dive-agent/testbed/pki"
)

func TestSpoke(t *testing.T) {
	t.Parallel()
	mongod := hubtest.StartMongo(t, true)
	for name, test := range map[string]func(t *testing.T, mongod *hubtest.Mongo){
		"registers, waits, takes the token":            registersAndWaits,
		"is approved at once by a hub in development":  approvedAtOnce,
		"takes a new token when the old one ends":      renewsToken,
		"takes a new token when the old one was ended": takesTokenAfterSuspension,
		"hub away":                                       hubAway,
		"hub answers nonsense":                           hubAnswersNonsense,
		"hub with another certificate":                   hubWithAnotherCertificate,
		"record differs from the manifest":               recordDiffers,
		"manifest changes after registration":            manifestChanges,
		"suspended: never registers":                     suspendedNeverRegisters,
		"revoked: registers only when told":              revokedRegistersWhenTold,
		"corrupt file is put aside":                      corruptFile,
		"takes up a record that is there":                takesUpRecord,
		"the request holds no password and no privilege": requestHoldsNoPrivilege,
		"waits for what is not known yet":                waitsForUnknown,
		"watch wakes at approval and at the token's end": watchWakes,
	} {
		t.Run(name, func(t *testing.T) { test(t, mongod) })
	}
}

func registersAndWaits(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s := w.spoke("deu", "Germany")
	p := s.plan()
	require.Len(t, p.Changes, 1)
	require.Equal(t, reconcilers.Create, p.Changes[0].Action)
	require.Empty(t, w.records(), "a plan registers nothing")
	s.waits("approval by the hub")
	require.Contains(t, w.records(), `DEU pending "Germany" https://deu.test:3000`)
	w.approve("DEU")
	outputs, facts := s.ready()
	require.Equal(t, w.tokens("DEU")[0], outputs["token"].Text())
	require.True(t, outputs["token"].Secret())
	require.Equal(t, w.record("DEU").SpokeID, outputs["spoke_id"].Text())
	require.Equal(t, "approved", outputs["status"].Text())
	expires, err := time.Parse(time.RFC3339, outputs["token_expires"].Text())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), expires, time.Minute)
	require.Equal(t, "approved", facts.Summary)
	require.Equal(t, outputs["token_expires"].Text(), facts.Values["tokenExpires"])
	info, err := os.Stat(filepath.Join(s.target.Dir, "registration.json"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func approvedAtOnce(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{AutoApprove: true})
	outputs, _ := w.spoke("deu", "Germany").ready()
	require.Equal(t, w.tokens("DEU"), []string{outputs["token"].Text()})
}

func renewsToken(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{AutoApprove: true})
	s := w.spoke("deu", "Germany")
	outputs, _ := s.ready()
	first := outputs["token"].Text()
	w.clock.forward(23 * time.Hour)
	outputs, _ = s.ready()
	require.Equal(t, first, outputs["token"].Text(), "the hub gives the old token as long as it lives")
	w.clock.forward(2 * time.Hour)
	p := s.plan()
	require.Len(t, p.Changes, 1)
	require.Contains(t, p.Changes[0].Reason, "expired at")
	outputs, _ = s.ready()
	require.NotEqual(t, first, outputs["token"].Text())
}

func takesTokenAfterSuspension(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{AutoApprove: true})
	s := w.spoke("deu", "Germany")
	outputs, _ := s.ready()
	first, id := outputs["token"].Text(), outputs["spoke_id"].Text()
	w.call("POST", "/spokes/"+id+"/suspend", map[string]string{"reason": "test"})
	w.clock.forward(time.Minute)
	w.call("POST", "/spokes/"+id+"/unsuspend", nil)
	outputs, _ = s.ready()
	require.NotEqual(t, first, outputs["token"].Text())
	require.Contains(t, w.tokens("DEU"), outputs["token"].Text())
}

func hubAway(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{AutoApprove: true})
	s := w.spoke("deu", "Germany")
	w.hub.Stop()
	s.waits("the hub at " + w.hub.URL)
	w.hub.Again(t)
	before, _ := s.ready()
	w.hub.Stop()
	o := s.observe()
	var wait *reconcilers.WaitError
	require.ErrorAs(t, o.Err, &wait)
	for name, value := range before {
		require.True(t, value.Equal(o.Outputs[name]), "output %s changes though only the hub is away", name)
	}
	require.Contains(t, o.Facts.Summary, "approved")
	w.hub.Again(t)
	s.ready()
}

func hubAnswersNonsense(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s := w.spoke("deu", "Germany")
	answer := func(status int, body string) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.WriteHeader(status)
				_, _ = rw.Write([]byte(body))
			})
		}
	}
	for name, front := range map[string]func(http.Handler) http.Handler{
		"500":           answer(500, `{"error": "Registration failed", "message": "no database"}`),
		"503 page":      answer(503, "<html>"),
		"429":           answer(429, "slow down"),
		"empty 200":     answer(200, ""),
		"other JSON":    answer(200, `{"ok": true}`),
		"redirect":      answer(302, ""),
		"20 MB of JSON": answer(200, `{"spokeId": "`+string(make([]byte, 20<<20))),
	} {
		t.Run(name, func(t *testing.T) {
			w.hub.Front(front)
			s.t = t
			s.waits("the hub at " + w.hub.URL)
		})
	}
	s.t = t
	w.hub.Front(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/api/federation/register" {
				next.ServeHTTP(rw, r)
				return
			}
			rw.WriteHeader(400)
			_, _ = rw.Write([]byte(`{"error": "Validation failed", "details": [{"path": ["name"]}]}`))
		})
	})
	require.Contains(t, s.blocked("HubRefused"), "Validation failed")
	w.hub.Front(nil)
	s.waits("approval by the hub")
}

func hubWithAnotherCertificate(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	other, err := pki.New("another")
	require.NoError(t, err)
	w.fleet.Hub.CA = string(other.PEM())
	s := w.spoke("deu", "Germany")
	s.blocked("HubCertificate")
	w.fleet.Hub.CA = ""
	s.blocked("HubAuthority")
	w.fleet.Hub.URL = "http://127.0.0.1:1"
	s.blocked("HubURL")
	require.Empty(t, w.records())
}

func recordDiffers(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	w.register("DEU", map[string]any{"name": "Not Germany"})
	s := w.spoke("deu", "Germany")
	blocked := s.blocked("RecordDiffers")
	require.Contains(t, blocked, `name: the hub has "Not Germany", the manifest says "Germany"`)
	require.Contains(t, blocked, "registerAgainAfter: "+w.record("DEU").SpokeID)
	require.Contains(t, s.observe().Facts.Notes, `name: the hub has "Not Germany", the manifest says "Germany"`)
}

func manifestChanges(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{AutoApprove: true})
	s := w.spoke("deu", "Germany")
	before, _ := s.ready()
	changed := w.spoke("deu", "Germany", "https://${lower(code)}.test:3000", "https://new.test:3000")
	changed.target.Dir = s.target.Dir
	blocked := changed.blocked("RecordDiffers")
	require.Contains(t, blocked, `baseUrl: the hub has "https://deu.test:3000", the manifest says "https://new.test:3000"`)
	require.True(t, before["token"].Equal(changed.observe().Outputs["token"]), "what runs keeps its token")
}

func suspendedNeverRegisters(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{AutoApprove: true})
	s := w.spoke("deu", "Germany")
	outputs, _ := s.ready()
	w.call("POST", "/spokes/"+outputs["spoke_id"].Text()+"/suspend", map[string]string{"reason": "test"})
	calls := w.hub.Calls("POST /api/federation/register")
	s.blocked("SpokeSuspended")
	require.NoError(t, os.Remove(filepath.Join(s.target.Dir, "registration.json")))
	s.blocked("SpokeSuspended")
	require.Equal(t, calls, w.hub.Calls("POST /api/federation/register"))
	require.Equal(t, "suspended", w.record("DEU").Status)
}

func revokedRegistersWhenTold(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{AutoApprove: true})
	s := w.spoke("deu", "Germany")
	outputs, _ := s.ready()
	first := outputs["spoke_id"].Text()
	w.call("POST", "/spokes/"+first+"/revoke", map[string]string{"reason": "test"})
	require.Contains(t, s.blocked("SpokeRevoked"), "registerAgainAfter: "+first)
	again := w.spoke("deu", "Germany", "skipValidation: true", "skipValidation: true\nregisterAgainAfter: "+first)
	again.target.Dir = s.target.Dir
	outputs, _ = again.ready()
	require.NotEqual(t, first, outputs["spoke_id"].Text())
}

func corruptFile(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{AutoApprove: true})
	s := w.spoke("deu", "Germany")
	before, _ := s.ready()
	file := filepath.Join(s.target.Dir, "registration.json")
	require.NoError(t, os.WriteFile(file, []byte("{half"), 0o600))
	after, _ := s.ready()
	require.True(t, before["token"].Equal(after["token"]))
	aside, err := os.ReadFile(file + ".corrupt")
	require.NoError(t, err)
	require.Equal(t, "{half", string(aside))
}

func takesUpRecord(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	w.register("DEU", map[string]any{"name": "Germany"})
	w.approve("DEU")
	s := w.spoke("deu", "Germany")
	outputs, facts := s.ready()
	require.Equal(t, w.record("DEU").SpokeID, outputs["spoke_id"].Text())
	require.Contains(t, facts.Notes[0], "before this agent registered")
}

func requestHoldsNoPrivilege(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	sent := make(chan map[string]any, 1)
	w.hub.Front(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/api/federation/register" {
				var body map[string]any
				if json.NewDecoder(r.Body).Decode(&body) == nil {
					sent <- body
				}
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(rw, r)
		})
	})
	w.spoke("deu", "Germany").waits("the hub")
	body := <-sent
	for _, name := range []string{"keycloakAdminPassword", "authCode", "partnerPreApproved", "partnerTrustLevel", "partnerMaxClassification"} {
		require.NotContains(t, body, name)
	}
	require.Equal(t, "https://127.0.0.1:1", body["idpPublicUrl"], "always sent, since the hub's own fallback is stale")
}

func waitsForUnknown(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{})
	s := w.spoke("deu", "Germany", "skipValidation: true", "skipValidation: true\npublicKey: ${keys.public}")
	s.target.Scope = s.target.Scope.WithObject("keys", map[string]desired.Value{"public": desired.Unknown()})
	s.waits("publicKey (${keys.public})")
	s.target.Scope = s.target.Scope.WithObject("keys", map[string]desired.Value{"public": desired.Secret("private-1")})
	require.NotContains(t, s.blocked("SecretInRegistration"), "private-1")
	require.Empty(t, w.records())
	s.target.Scope = s.target.Scope.WithObject("keys", map[string]desired.Value{"public": desired.String("ssh-ed25519 AAAA")})
	s.waits("approval by the hub")
	require.Equal(t, "ssh-ed25519 AAAA", *w.record("DEU").PublicKey)
}

func watchWakes(t *testing.T, mongod *hubtest.Mongo) {
	w := newWorld(t, mongod, hub.Config{TokenTTL: 3 * time.Second})
	s := w.spoke("deu", "Germany")
	s.waits("approval by the hub")
	woken := watch(t, s)
	waitPolls(t, w, "GET /api/federation/registration/DEU/status")
	w.approve("DEU")
	awaitWake(t, woken, "the approval")
	outputs, _ := s.ready()
	first := outputs["token"].Text()
	awaitWake(t, woken, "the token's end")
	outputs, _ = s.ready()
	require.NotEqual(t, first, outputs["token"].Text())
}

// watch runs the reconciler's watch until the end of the test.
func watch(t *testing.T, s *subject) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	woken, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() {
		ended <- s.reconciler.(reconcilers.Watcher).Watch(ctx, s.target, func(part string) {
			if part == "" {
				woken <- struct{}{}
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			require.ErrorIs(t, err, context.Canceled)
		case <-time.After(15 * time.Second):
			t.Error("watch does not end with its context")
		}
	})
	return woken
}

// waitPolls waits until the hub was asked twice more, so that the watch has seen how things were.
func waitPolls(t *testing.T, w *world, call string) {
	t.Helper()
	before := w.hub.Calls(call)
	eventually(t, "two polls", func() bool { return w.hub.Calls(call) >= before+2 })
}

func awaitWake(t *testing.T, woken <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-woken:
	case <-time.After(15 * time.Second):
		t.Fatalf("not woken by %s", what)
	}
}

// TestHubHangs: every call has a limit of its own, and the end of the context ends a call at once.
func TestHubHangs(t *testing.T) {
	t.Parallel()
	mongod := hubtest.StartMongo(t, true)
	w := newWorld(t, mongod, hub.Config{})
	s := w.spoke("deu", "Germany")
	arrived := make(chan struct{}, 10)
	w.hub.Front(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			arrived <- struct{}{}
			<-r.Context().Done()
		})
	})
	began := time.Now()
	s.waits("the hub at " + w.hub.URL)
	require.Less(t, time.Since(began), 12*time.Second)
	<-arrived

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	began = time.Now()
	_, err := s.reconciler.Observe(ctx, s.target)
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(began), 2*time.Second)
}
