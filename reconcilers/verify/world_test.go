package verify_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/reconcilers/verify"
	"dive-agent/testbed"
	"dive-agent/testbed/pki"
)

const (
	mongoPassword    = "m0ngo-Secret/with?signs"
	postgresPassword = "p0stgres-Secret-5521"
)

// world is a target whose services run in a lab, with what the checks refer to.
type world struct {
	t      *testing.T
	lab    *lab.Lab
	ca     *pki.CA
	clock  *shiftedClock
	target reconcilers.Target
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca, err := pki.New("Checks")
	require.NoError(t, err)
	w := &world{t: t, lab: lab.New(t), ca: ca, clock: &shiftedClock{}}
	database := &desired.Component{Name: "database", Kind: "MongoReplicaSet", Spec: &struct{}{}}
	checks := &desired.Component{Name: "checks", Kind: verify.Kind.Name}
	w.target = reconcilers.Target{
		Instance:  &desired.Instance{Name: "deu", Components: []*desired.Component{database, checks}},
		Component: checks,
		SourceDir: t.TempDir(), Dir: t.TempDir(),
		Services: w.lab,
	}
	w.target.Scope = desired.NewScope(map[string]desired.Value{
		"POSTGRES_PASSWORD": desired.Secret(postgresPassword),
		"CA":                desired.String(string(ca.PEM())),
	}).WithObject("database", map[string]desired.Value{
		"uri": desired.Secret("mongodb://admin:m0ngo-Secret%2Fwith%3Fsigns@mongodb:27017/dive?authSource=admin"),
	}).WithObject("registration", map[string]desired.Value{"token": desired.UnknownSecret()})
	return w
}

// shiftedClock is the machine's clock, put forward.
type shiftedClock struct {
	reconcilers.SystemClock
	ahead time.Duration
}

func (c *shiftedClock) Now() time.Time { return time.Now().Add(c.ahead) }

func (w *world) runMongo() {
	w.t.Helper()
	w.lab.Run("mongodb", lab.Service{
		Image: testbed.Image(w.t, testbed.Mongod605),
		Command: []string{
			"mongod", "--wiredTigerCacheSizeGB", "0.25", "--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=4MB)",
			"--setParameter", "diagnosticDataCollectionEnabled=false",
		},
		Env: []string{"MONGO_INITDB_ROOT_USERNAME=admin", "MONGO_INITDB_ROOT_PASSWORD=" + mongoPassword},
	})
}

func (w *world) runPostgres() {
	w.t.Helper()
	w.lab.Run("postgres", lab.Service{
		Image: testbed.Image(w.t, testbed.Postgres15),
		Env:   []string{"POSTGRES_USER=audit", "POSTGRES_PASSWORD=" + postgresPassword, "POSTGRES_DB=audit"},
	})
}

// runWeb starts an HTTPS server that first writes two lines to its log.
func (w *world) runWeb() {
	w.t.Helper()
	cert, key, err := w.ca.Issue("web")
	require.NoError(w.t, err)
	const program = `
import http.server, ssl, sys
print("starting", flush=True)
print("connected to the primary", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = self.path == "/api/health"
        self.send_response(200 if good else 503)
        self.end_headers()
        self.wfile.write(b'{"status": "healthy"}' if good else b"not primary\nand more")
    def log_message(self, *a): pass
s = http.server.HTTPServer(("", 4443), Handler)
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
c.load_cert_chain("/etc/web.pem", "/etc/web.key")
s.socket = c.wrap_socket(s.socket, server_side=True)
s.serve_forever()
`
	w.lab.Run("web", lab.Service{
		Image: testbed.Image(w.t, testbed.Base), Command: []string{"python3", "-c", program}, Publish: []uint16{4443},
		Files: map[string]lab.File{
			"/etc/web.pem": {Content: string(cert), Mode: 0o444}, "/etc/web.key": {Content: string(key), Mode: 0o444},
		},
	})
}

// checks sets the component's checks from a manifest's text.
func (w *world) checks(text string) {
	w.t.Helper()
	spec, err := desired.DecodeSpec(verify.Kind, "blueprint.yaml", []byte(text))
	require.NoError(w.t, err)
	w.target.Component.Spec = spec
}

// redact is what the agent's redactor does.
func redact(text string) string {
	for _, secret := range secretForms {
		text = strings.ReplaceAll(text, secret, "(secret)")
	}
	return text
}

var secretForms = []string{mongoPassword, "m0ngo-Secret%2Fwith%3Fsigns", postgresPassword}

func (w *world) reconciler() reconcilers.Reconciler {
	r := verify.New(reconcilers.Deps{Clock: w.clock, Rand: rand.Reader, Redact: redact})
	w.t.Cleanup(func() { require.NoError(w.t, r.(interface{ Close() error }).Close()) })
	return r
}

// pass waits until all checks pass, as the agent does.
func (w *world) pass(r reconcilers.Reconciler) reconcilers.Facts {
	w.t.Helper()
	var facts reconcilers.Facts
	testbed.Eventually(w.t, 150*time.Second, "all checks to pass", func() error {
		o, err := r.Observe(w.t.Context(), w.target)
		facts = o.Facts
		return errors.Join(err, o.Err)
	})
	return facts
}

// saw runs the checks once and gives what each saw.
func (w *world) saw(r reconcilers.Reconciler) (map[string]string, reconcilers.Observed) {
	w.t.Helper()
	o, err := r.Observe(w.t.Context(), w.target)
	require.NoError(w.t, err)
	saw := map[string]string{}
	for _, c := range o.Facts.Checks {
		saw[c.Name] = fmt.Sprintf("%t %s", c.Passed, c.Saw)
		for _, secret := range secretForms {
			require.False(w.t, strings.Contains(c.Saw, secret), "a secret is in what %s saw", c.Name)
		}
	}
	return saw, o
}
