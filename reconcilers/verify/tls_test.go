package verify_test

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/testbed"
	"dive-agent/testbed/pki"
)

// TestMongoByTLS: a connection string that is made for the containers of clients, with paths that are theirs, serves a
// check too; whom to trust and what to show the check says itself.
func TestMongoByTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pem := func(name string) string {
		cert, key, err := w.ca.IssueAs(pki.Certificate{Subject: pkix.Name{CommonName: name, Organization: []string{name}}, Hosts: []string{name}})
		require.NoError(t, err)
		return string(key) + string(cert)
	}
	w.lab.Run("mongodb", lab.Service{
		Image: testbed.Image(t, testbed.Mongod605),
		Command: []string{
			"mongod", "--wiredTigerCacheSizeGB", "0.25", "--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=4MB)",
			"--setParameter", "diagnosticDataCollectionEnabled=false",
			"--tlsMode", "requireTLS", "--tlsCertificateKeyFile", "/etc/mongo.pem", "--tlsCAFile", "/etc/ca.pem",
		},
		Env: []string{"MONGO_INITDB_ROOT_USERNAME=admin", "MONGO_INITDB_ROOT_PASSWORD=" + mongoPassword},
		Files: map[string]lab.File{
			"/etc/mongo.pem": {Content: pem("mongodb"), Mode: 0o400, Owner: 999}, "/etc/ca.pem": {Content: string(w.ca.PEM()), Mode: 0o444},
		},
	})
	foreign, err := pki.New("foreign")
	require.NoError(t, err)
	w.target.Scope = w.target.Scope.With(map[string]desired.Value{
		"APP_CERT": desired.Secret(pem("app")), "FOREIGN": desired.String(string(foreign.PEM())),
	}).WithObject("database", map[string]desired.Value{
		"uri": desired.Secret("mongodb://admin:m0ngo-Secret%2Fwith%3Fsigns@mongodb:27017/dive?authSource=admin&tls=true" +
			"&tlsCAFile=%2Fcerts%2Fca.pem&tlsCertificateKeyFile=%2Fcerts%2Fapp.pem"),
	})
	r := w.reconciler()
	w.checks(`
checks:
  - {name: ping, mongo: {command: {ping: 1}, ca: "${CA}", certificate: "${APP_CERT}"}}
  - {name: one, mongo: {count: coi_definitions, expect: 0, service: mongodb, ca: "${CA}", certificate: "${APP_CERT}"}}
`)
	require.Equal(t, "2 checks passed", w.pass(r).Summary)
	trusted := filepath.Join(w.target.SourceDir, "ca.pem")
	w.checks("checks: [{name: by-file, mongo: {command: {ping: 1}, caFile: ca.pem, certificate: \"${APP_CERT}\"}}]")
	require.NoError(t, os.WriteFile(trusted, w.ca.PEM(), 0o600))
	require.Equal(t, "1 check passed", w.pass(r).Summary)
	w.checks(`
within: 0s
checks: [{name: by-file, mongo: {command: {ping: 1}, caFile: ca.pem, certificate: "${APP_CERT}"}, timeout: 3s}]
`)
	require.NoError(t, os.WriteFile(trusted, foreign.PEM(), 0o600))
	saw, _ := w.saw(r)
	require.Contains(t, saw["by-file"], "false ", "another file is another trust")
	w.checks(`
within: 0s
checks:
  - {name: nothing-shown, mongo: {command: {ping: 1}, ca: "${CA}"}, timeout: 3s}
  - {name: another-ca, mongo: {command: {ping: 1}, ca: "${FOREIGN}", certificate: "${APP_CERT}"}, timeout: 3s}
  - {name: no-pem, mongo: {command: {ping: 1}, ca: "${CA}", certificate: "${database.uri}"}, timeout: 3s}
`)
	saw, _ = w.saw(r)
	for _, name := range []string{"nothing-shown", "another-ca"} {
		require.Contains(t, saw[name], "false ")
	}
	require.Equal(t, "false certificate is no key and certificate in PEM", saw["no-pem"])
}

// TestMutualTLS: who shows a certificate of the authority is answered, and the check fails where others are answered too.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cert, key, err := w.ca.Issue("client", "127.0.0.1")
	require.NoError(t, err)
	foreign, err := pki.New("foreign")
	require.NoError(t, err)
	otherCert, otherKey, err := foreign.Issue("client")
	require.NoError(t, err)
	w.target.Scope = w.target.Scope.With(map[string]desired.Value{
		"PEM": desired.Secret(string(key) + string(cert)), "OTHER": desired.Secret(string(otherKey) + string(otherCert)),
	})
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	serve := func(versions uint16, auth tls.ClientAuthType) string {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: w.ca.Pool(), ClientAuth: auth, MaxVersion: versions}
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	text := "within: 0s\nchecks:\n"
	add := func(name, url, certificate string, mutual bool) {
		text += fmt.Sprintf("  - {name: %s, http: {url: %q, ca: \"${CA}\", certificate: \"${%s}\", mutual: %t}, timeout: 5s}\n", name, url, certificate, mutual)
	}
	strict := serve(tls.VersionTLS13, tls.RequireAndVerifyClientCert)
	add("good", strict, "PEM", true)
	add("tls12", serve(tls.VersionTLS12, tls.RequireAndVerifyClientCert), "PEM", true)
	add("lax", serve(tls.VersionTLS13, tls.VerifyClientCertIfGiven), "PEM", true)
	add("foreign", strict, "OTHER", false)
	add("nonsense", strict, "CA", false)
	w.checks(text)
	saw, _ := w.saw(w.reconciler())
	for _, name := range []string{"good", "tls12"} {
		require.Equal(t, "true answers who shows a certificate, and nobody else", saw[name], name)
	}
	require.Equal(t, "false who shows no certificate is answered too, with status 200", saw["lax"])
	require.Contains(t, saw["foreign"], "false ask https://127.0.0.1")
	require.Equal(t, "false certificate is no key and certificate in PEM", saw["nonsense"])
}
