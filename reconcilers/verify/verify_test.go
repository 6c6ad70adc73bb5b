package verify_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/conformance"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/reconcilers/verify"
	"dive-agent/testbed"
)

func TestMongo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.runMongo()
	r := w.reconciler()
	w.checks(`
checks:
  - {name: primary, mongo: {command: {hello: 1}, expect: {isWritablePrimary: true, maxWireVersion: 17}}}
  - {name: empty, mongo: {count: coi_definitions, expect: 0}}
  - {name: ping, mongo: {command: {ping: 1}, service: mongodb}}
  - {name: one-user, mongo: {database: admin, count: system.users, filter: {user: admin}, expect: 1}}
`)
	facts := w.pass(r)
	require.Equal(t, "4 checks passed", facts.Summary)

	began := time.Now()
	w.pass(r)
	t.Logf("four passing checks with kept clients take %s", time.Since(began))

	w.checks(`
within: 0s
checks:
  - {name: primary, mongo: {command: {hello: 1}, expect: {secondary: true}}}
  - {name: set-name, mongo: {command: {hello: 1}, expect: {isWritablePrimary: false}}}
  - {name: cois, mongo: {count: coi_definitions, expect: 22}}
  - {name: command, mongo: {command: {noSuchCommand: 1}}}
  - {name: login, mongo: {uri: "mongodb://admin:wrong@mongodb:27017/dive?authSource=admin", count: x, expect: 0}, timeout: 3s}
  - {name: elsewhere, mongo: {uri: "mongodb://absent:27017/dive", count: x, expect: 0}}
  - {name: outside, mongo: {uri: "mongodb://127.0.0.1:1/dive", count: x, expect: 0}, timeout: 1s}
`)
	saw, o := w.saw(r)
	require.Equal(t, "false secondary is missing, expected true", saw["primary"])
	require.Equal(t, "false isWritablePrimary is true, expected false", saw["set-name"])
	require.Equal(t, "false 0 documents in dive.coi_definitions, expected 22", saw["cois"])
	require.Contains(t, saw["command"], "no such command")
	require.Contains(t, saw["login"], "Authentication")
	require.Equal(t, "false waits for service absent to run", saw["elsewhere"])
	require.Contains(t, saw["outside"], "false no answer within 1s")
	require.ErrorContains(t, o.Err, "7 of 7 checks failed: primary: secondary is missing, expected true; ")
}

func TestSQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.runPostgres()
	r := w.reconciler()
	const login = `service: postgres, user: audit, password: "${POSTGRES_PASSWORD}"`
	w.checks(`
checks:
  - {name: number, sql: {` + login + `, query: "select count(*) from (values (1), (2), (3)) v", expect: 3}}
  - {name: text, sql: {` + login + `, database: audit, query: "select 'ok'", expect: ok}}
  - {name: truth, sql: {` + login + `, query: "select true", expect: true}}
  - {name: uri, sql: {uri: "postgres://audit:${POSTGRES_PASSWORD}@postgres:5432/audit", query: "select 1.0", expect: 1}}
`)
	w.pass(r)
	w.checks(`
within: 0s
checks:
  - {name: number, sql: {` + login + `, query: "select 2", expect: 3}}
  - {name: write, sql: {` + login + `, query: "create table audit_log (id int)"}}
  - {name: none, sql: {` + login + `, query: "select 1 where false"}}
  - {name: password, sql: {service: postgres, user: audit, password: nonsense, query: "select 1"}}
  - {name: leak, sql: {` + login + `, query: "select '${POSTGRES_PASSWORD}'", expect: x}}
`)
	saw, _ := w.saw(r)
	require.Equal(t, "false 2, expected 3", saw["number"])
	require.Contains(t, saw["write"], "read-only transaction")
	require.Equal(t, "false the query gives no row", saw["none"])
	require.Contains(t, saw["password"], "authentication failed")
	require.Equal(t, "false a text of 20 characters, expected x", saw["leak"])
}

func TestWeb(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.runWeb()
	r := w.reconciler()
	require.NoError(t, os.WriteFile(filepath.Join(w.target.SourceDir, "ca.pem"), w.ca.PEM(), 0o600))
	published := w.lab.Published("web", 4443).Port()
	w.checks(fmt.Sprintf(`
checks:
  - {name: health, http: {service: web, port: 4443, path: /api/health, scheme: https, ca: "${CA}", contains: healthy}}
  - {name: published, http: {url: "https://localhost:%d/api/health", serverName: web, caFile: ca.pem}}
  - {name: status, http: {service: web, port: 4443, path: /other, scheme: https, ca: "${CA}", status: 503}}
  - {name: port, tcp: {service: web, port: 4443}}
  - {name: port-by-address, tcp: {address: "127.0.0.1:%d"}}
  - {name: certificate, certificate: {service: web, port: 4443, ca: "${CA}", minDays: 1}}
  - {name: connected, logs: {service: web, present: connected to the primary}}
  - {name: no-not-primary, logs: {service: web, absent: not primary}}
`, published, published))
	facts := w.pass(r)
	require.Equal(t, "8 checks passed", facts.Summary)

	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	w.checks(fmt.Sprintf(`
within: 0s
checks:
  - {name: status, http: {service: web, port: 4443, path: other, scheme: https, ca: "${CA}"}}
  - {name: contains, http: {service: web, port: 4443, path: /api/health, scheme: https, ca: "${CA}", contains: degraded}}
  - {name: authority, http: {url: "https://localhost:%d/api/health", serverName: web}}
  - {name: name, certificate: {service: web, port: 4443, serverName: backend, ca: "${CA}"}}
  - {name: days, certificate: {service: web, port: 4443, ca: "${CA}", minDays: 100000}}
  - {name: port, tcp: {address: %q}}
  - {name: present, logs: {service: web, present: ready}}
  - {name: absent, logs: {service: web, absent: primary}}
  - {name: missing, tcp: {service: gone, port: 80}, severity: warn}
  - {name: token, http: {url: "http://localhost/${registration.token}"}}
`, published, closed.Addr().String()))
	saw, o := w.saw(r)
	require.Equal(t, "false status 503, expected 200 (20 bytes of no type)", saw["status"])
	require.Contains(t, saw["contains"], `status 200 without "degraded"`)
	require.Contains(t, saw["authority"], "unknown authority")
	require.Contains(t, saw["name"], "not backend")
	require.Contains(t, saw["days"], "expected 100000")
	require.Contains(t, saw["port"], "connection refused")
	require.Contains(t, saw["present"], `"ready" is not in the log of web since its container started at `)
	require.Contains(t, saw["absent"], `false web wrote "primary" since its container started at `)
	require.Equal(t, "false waits for registration.token", saw["token"])
	require.ErrorContains(t, o.Err, "9 of 10 checks failed")
	require.Len(t, o.Facts.Notes, 1, "a failed check of severity warn is a note")
	require.Contains(t, o.Facts.Notes[0], "warning: check missing: waits for service gone")
	require.Equal(t, "0 passed, 9 failed, 1 warning", o.Facts.Summary)
}

// TestAnAnswerAloneIsNotEnough: a redirect is not followed to where all is well, and a provider without keys verifies nobody.
func TestAnAnswerAloneIsNotEnough(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.Handle("/moved", http.RedirectHandler("/well", http.StatusFound))
	mux.HandleFunc("/well", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, "well") })
	mux.HandleFunc("/.well-known/openid-configuration", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `{"issuer": %q, "jwks_uri": %q}`, server.URL, server.URL+"/keys")
	})
	mux.HandleFunc("/keys", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, `{"keys": []}`) })
	w := newWorld(t)
	w.checks(`
within: 0s
checks:
  - {name: moved, http: {url: "` + server.URL + `/moved"}}
  - {name: keys, oidc: {issuer: "` + server.URL + `"}}
`)
	saw, _ := w.saw(w.reconciler())
	require.Contains(t, saw["moved"], "false status 302, expected 200")
	require.Equal(t, "false "+server.URL+"/keys has no keys", saw["keys"])
}

// A log is read only since the container's start: what it wrote before counts no more.
func TestLogsSinceTheContainerStarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lab.Run("backend", lab.Service{
		Image:   testbed.Image(t, testbed.Base),
		Command: []string{"sh", "-c", "sleep 0.5; test -e /seen || echo not primary; touch /seen; echo started; exec sleep 60"},
	})
	w.checks(`
within: 0s
checks:
  - {name: started, logs: {service: backend, present: started}}
  - {name: no-not-primary, logs: {service: backend, absent: not primary}}
`)
	r := w.reconciler()
	testbed.Eventually(t, 20*time.Second, "the line in the log", func() error {
		saw, _ := w.saw(r) // "started" comes after it has noted that it ran once
		if !strings.HasPrefix(saw["no-not-primary"], `false backend wrote "not primary" since`) || !strings.HasPrefix(saw["started"], "true") {
			return fmt.Errorf("%v", saw)
		}
		return nil
	})
	w.lab.Stop("backend")
	w.lab.Start("backend")
	w.pass(r)
}

func TestFailingChecksAreWaitedForAtFirst(t *testing.T) {
	others := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, others) }) // the last of the clean-up: a closed reconciler leaves nothing behind
	w := newWorld(t)
	w.checks(`
within: 30s
checks:
  - {name: port, tcp: {address: "127.0.0.1:1"}}
  - {name: mongo, severity: warn, timeout: 500ms, mongo: {uri: "mongodb://127.0.0.1:1/x", count: x, expect: 1}}
`)
	r := w.reconciler()
	_, o := w.saw(r)
	var wait *reconcilers.WaitError
	require.ErrorAs(t, o.Err, &wait)
	require.ErrorContains(t, o.Err, "connection refused")
	w.clock.ahead = 29 * time.Second
	_, o = w.saw(r)
	require.ErrorAs(t, o.Err, &wait)
	w.clock.ahead = 31 * time.Second
	_, o = w.saw(r)
	require.NotErrorAs(t, o.Err, &wait)
	require.ErrorContains(t, o.Err, "1 of 2 checks failed: port: connect to 127.0.0.1")
}

// A check that fails before its service is there, as in the survey of a first run, has its whole time when it is.
func TestTimeBeginsAnewWhenAContainerChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target.Instance.Graph = &desired.Graph{Nodes: []*desired.Node{{ID: "stack/web", Part: "web"}}}
	w.checks(`
within: 30s
checks: [{name: port, tcp: {service: web, port: 4443}}]
`)
	r := w.reconciler()
	var wait *reconcilers.WaitError
	_, o := w.saw(r)
	require.ErrorAs(t, o.Err, &wait)
	require.Equal(t, "check port (service web to run)", wait.For)
	w.clock.ahead = 31 * time.Second
	_, o = w.saw(r)
	require.NotErrorAs(t, o.Err, &wait)

	w.lab.Run("web", lab.Service{Image: testbed.Image(t, testbed.Base), Command: []string{"sleep", "60"}})
	_, o = w.saw(r)
	require.ErrorAs(t, o.Err, &wait, "its container has just started")
	w.clock.ahead = 62 * time.Second
	_, o = w.saw(r)
	require.NotErrorAs(t, o.Err, &wait)
	w.runWeb()
	w.pass(r)
}

func TestCancelledChecksEndAtOnce(t *testing.T) {
	w := newWorld(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	w.checks(fmt.Sprintf(`checks: [{name: silent, http: {url: "http://%s/"}}]`, silent.Addr()))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = w.reconciler().Observe(ctx, w.target)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestOIDC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.runPostgres()
	w.checks(`checks: [{name: postgres, sql: {service: postgres, user: audit, password: "${POSTGRES_PASSWORD}", query: "select 1"}}]`)
	r := w.reconciler()
	w.pass(r)
	w.lab.Run("keycloak", lab.Service{
		Image:   testbed.Image(t, testbed.Keycloak),
		Command: []string{"start", "--optimized", "--http-enabled=true", "--hostname-strict=false"},
		Env: []string{
			"KC_DB_URL=jdbc:postgresql://postgres:5432/audit", "KC_DB_USERNAME=audit", "KC_DB_PASSWORD=" + postgresPassword,
			"KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD=" + mongoPassword,
		},
	})
	c, err := w.lab.Find(t.Context(), "keycloak")
	require.NoError(t, err)
	base := "http://" + net.JoinHostPort(c.Addr().String(), "8080")
	w.checks(`
checks:
  - {name: issuer, oidc: {issuer: "` + base + `/realms/master"}}
  - {name: url, oidc: {url: "` + base + `/realms/master/.well-known/openid-configuration"}}
`)
	w.pass(r)
	w.checks(`
within: 0s
checks:
  - {name: issuer, oidc: {issuer: "https://idp.example/realms/master", url: "` + base + `/realms/master"}}
  - {name: realm, oidc: {issuer: "` + base + `/realms/absent"}}
`)
	saw, _ := w.saw(r)
	require.Equal(t, `false issuer "`+base+`/realms/master", expected "https://idp.example/realms/master"`, saw["issuer"])
	require.Contains(t, saw["realm"], "status 404, expected 200")
}

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Subject{World: func(t *testing.T) *conformance.World {
		w := newWorld(t)
		w.runMongo()
		w.checks(`
checks:
  - {name: primary, mongo: {command: {hello: 1}, expect: {isWritablePrimary: true}}}
  - {name: port, tcp: {service: mongodb, port: 27017}}
  - {name: log, logs: {service: mongodb, absent: not primary}}
`)
		return &conformance.World{
			Target: w.target, NoChanges: true, Secrets: []string{mongoPassword, postgresPassword},
			New: func(*testing.T) reconcilers.Reconciler {
				return verify.New(reconcilers.Deps{Clock: reconcilers.SystemClock{}, Redact: redact})
			},
			State: func(t *testing.T) string {
				c, err := w.lab.Find(t.Context(), "mongodb")
				require.NoError(t, err)
				return c.ID + c.StartedAt.String()
			},
		}
	}})
}
