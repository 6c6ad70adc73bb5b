package registration_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/registration"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

// spokeManifest is the component of a spoke whose instance has the values code and country.
const spokeManifest = `
kind: SpokeRegistration
urls:
  base: https://${lower(code)}.test:3000
  api: https://${lower(code)}.test:4000
  idp: https://127.0.0.1:1
contactEmail: ops@${lower(code)}.test
requestedScopes: ["policy:base", "policy:org"]
trustLevel: partner
maxClassification: SECRET
dataIsolationLevel: filtered
skipValidation: true
poll: 200ms
`

const approvalsManifest = `
kind: SpokeApprovals
adminKey: ${FEDERATION_ADMIN_KEY}
poll: 200ms
`

// world is a hub of its own, with its records in a real MongoDB, and a fleet.
type world struct {
	t     *testing.T
	hub   *hubtest.Server
	fleet *desired.Fleet
	clock *clock
	http  *http.Client
}

func newWorld(t *testing.T, mongod *hubtest.Mongo, config hub.Config) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{}}
	config.Now = w.clock.Now
	w.hub = hubtest.Start(t, mongod.Database(t), config)
	w.fleet = &desired.Fleet{
		Name: "test", Instances: map[string]*desired.Instance{},
		Hub: desired.HubSpec{Instance: "usa", URL: w.hub.URL, CA: string(w.hub.CA.PEM())},
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.hub.CA.Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	w.http = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	return w
}

// add puts an instance with one component into the fleet.
func (w *world) add(name, country, manifest string, secrets ...string) *desired.Instance {
	w.t.Helper()
	kind := registration.SpokeKind
	if strings.Contains(manifest, "SpokeApprovals") {
		kind = registration.ApprovalsKind
	}
	manifest = strings.TrimSpace(strings.Join(strings.Split(strings.TrimSpace(manifest), "\n")[1:], "\n"))
	spec, err := desired.DecodeSpec(kind, "instances/"+name+".yaml", []byte(manifest))
	require.NoError(w.t, err)
	instance := &desired.Instance{Name: name, Values: map[string]desired.Value{
		"code": desired.String(strings.ToUpper(name)), "country": desired.String(country),
	}}
	for _, secret := range secrets {
		instance.Secrets = append(instance.Secrets, desired.SecretSpec{Name: secret, Provide: true})
	}
	instance.Components = []*desired.Component{{Name: "registration", Kind: kind.Name, Spec: spec}}
	w.fleet.Instances[name] = instance
	return instance
}

func (w *world) target(instance *desired.Instance) reconcilers.Target {
	secrets := map[string]desired.Value{}
	for _, secret := range instance.Secrets {
		secrets[secret.Name] = desired.Secret(hubtest.AdminKey)
	}
	return reconcilers.Target{
		Instance: instance, Component: instance.Components[0], Fleet: w.fleet, Scope: instance.Scope(secrets),
		SourceDir: w.t.TempDir(), SecretsDir: w.t.TempDir(), Dir: w.t.TempDir(), Log: slog.New(slog.DiscardHandler),
	}
}

// spoke adds a spoke and gives its reconciler.
func (w *world) spoke(name, country string, changes ...string) *subject {
	manifest := spokeManifest
	for i := 0; i+1 < len(changes); i += 2 {
		require.Contains(w.t, manifest, changes[i])
		manifest = strings.Replace(manifest, changes[i], changes[i+1], 1)
	}
	return &subject{w, w.target(w.add(name, country, manifest)), registration.NewSpoke(w.deps())}
}

// approvals adds the hub's instance and gives its reconciler.
func (w *world) approvals(more string) *subject {
	instance := w.add("usa", "United States", approvalsManifest+more, "FEDERATION_ADMIN_KEY")
	return &subject{w, w.target(instance), registration.NewApprovals(w.deps())}
}

func (w *world) deps() reconcilers.Deps {
	return reconcilers.Deps{Clock: w.clock, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler), Redact: func(s string) string { return s }}
}

// records is a canonical picture of the hub's records, without ids and times.
func (w *world) records() string {
	w.t.Helper()
	all, err := w.hub.Store.Spokes(context.Background(), "")
	require.NoError(w.t, err)
	lines := make([]string, 0, len(all))
	for _, r := range all {
		lines = append(lines, fmt.Sprintf("%s %s %q %s %s %v %s %s %s", r.InstanceCode, r.Status, r.Name, r.BaseURL, r.ContactEmail,
			r.AllowedPolicyScopes, r.TrustLevel, r.MaxClassification, r.DataIsolationLevel))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func (w *world) record(code string) *hub.Record {
	w.t.Helper()
	r, err := w.hub.Store.SpokeByCode(context.Background(), code)
	require.NoError(w.t, err)
	return r
}

// tokens of a spoke, oldest first.
func (w *world) tokens(code string) []string {
	w.t.Helper()
	all, err := w.hub.Store.Tokens(context.Background(), w.record(code).SpokeID)
	require.NoError(w.t, err)
	values := make([]string, len(all))
	for i, token := range all {
		values[i] = token.Token
	}
	return values
}

// call is a call of the hub's operators.
func (w *world) call(method, path string, body any) {
	w.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(w.t, err)
	request, err := http.NewRequest(method, w.hub.URL+"/api/federation"+path, bytes.NewReader(data))
	require.NoError(w.t, err)
	request.Header.Set("X-Admin-Key", hubtest.AdminKey)
	response, err := w.http.Do(request)
	require.NoError(w.t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(w.t, err)
	require.Less(w.t, response.StatusCode, 300, "%s", answer)
}

func (w *world) approve(code string) {
	w.t.Helper()
	w.call("POST", "/spokes/"+w.record(code).SpokeID+"/approve", map[string]any{
		"allowedScopes": []string{"policy:base", "policy:org"},
		"trustLevel":    "partner", "maxClassification": "SECRET", "dataIsolationLevel": "filtered",
	})
}

// register is what a stranger does.
func (w *world) register(code string, change map[string]any) {
	w.t.Helper()
	lower := strings.ToLower(code)
	body := map[string]any{
		"instanceCode": code, "name": "Spoke " + code, "baseUrl": "https://" + lower + ".test:3000", "apiUrl": "https://" + lower + ".test:4000",
		"idpUrl": "https://127.0.0.1:1", "idpPublicUrl": "https://127.0.0.1:1", "contactEmail": "ops@" + lower + ".test",
		"requestedScopes": []string{"policy:base"}, "skipValidation": true,
	}
	for key, value := range change {
		body[key] = value
	}
	w.call("POST", "/register", body)
}

// subject is a reconciler with its target, driven as the agent does.
type subject struct {
	*world
	target     reconcilers.Target
	reconciler reconcilers.Reconciler
}

func (s *subject) observe() reconcilers.Observed {
	s.t.Helper()
	o, err := s.reconciler.Observe(s.t.Context(), s.target)
	require.NoError(s.t, err)
	return o
}

func (s *subject) plan() reconcilers.Plan {
	s.t.Helper()
	p, err := s.reconciler.Plan(s.target, s.observe())
	require.NoError(s.t, err)
	return p
}

// pass observes, plans and applies, and gives what the agent would see: the result's error and the outputs.
func (s *subject) pass() (map[string]desired.Value, reconcilers.Facts, error) {
	s.t.Helper()
	o := s.observe()
	p, err := s.reconciler.Plan(s.target, o)
	require.NoError(s.t, err)
	if len(p.Changes) == 0 {
		return o.Outputs, o.Facts, o.Err
	}
	a, err := s.reconciler.Apply(s.t.Context(), s.target, p, silent{})
	return a.Outputs, a.Facts, err
}

func (s *subject) waits(text string) {
	s.t.Helper()
	_, _, err := s.pass()
	var wait *reconcilers.WaitError
	require.ErrorAs(s.t, err, &wait)
	require.ErrorContains(s.t, err, text)
}

func (s *subject) blocked(reason string) (said string) {
	s.t.Helper()
	_, _, err := s.pass()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(s.t, err, &blocked)
	require.Equal(s.t, reason, blocked.Reason)
	require.NotEmpty(s.t, blocked.Do, "a blocked component says what to do")
	return err.Error()
}

// ready passes and requires that nothing is left to do.
func (s *subject) ready() (map[string]desired.Value, reconcilers.Facts) {
	s.t.Helper()
	_, _, err := s.pass()
	require.NoError(s.t, err)
	o := s.observe()
	require.NoError(s.t, o.Err)
	p, err := s.reconciler.Plan(s.target, o)
	require.NoError(s.t, err)
	require.Empty(s.t, p.Changes)
	return o.Outputs, o.Facts
}

type silent struct{}

func (silent) Begin(ctx context.Context, _ ...reconcilers.Change) error { return ctx.Err() }
func (silent) End(reconcilers.Change, error)                            {}
func (silent) Say(string, ...any)                                       {}
func (silent) Started()                                                 {}

// clock is the machine's, set forward at will.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *clock) After(d time.Duration) <-chan time.Time { return time.After(d) }

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}
