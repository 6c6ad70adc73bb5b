package certificates_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/certificates"
	"dive-agent/reconcilers/conformance"
)

func TestHolderConformance(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Subject{World: func(t *testing.T) *conformance.World {
		w := newWorld(t)
		s := w.spoke["deu"]
		c := &conformance.World{
			Target: s.target,
			New:    func(*testing.T) reconcilers.Reconciler { return certificates.NewHolder(w.deps()) },
			State:  func(t *testing.T) string { return picture(t, s.target.Dir) },
		}
		c.Help = func(*testing.T, *reconcilers.WaitError) {
			w.cross()
			require.NoError(w.t, w.hub.pass())
			w.cross()
			c.Target.Scope = s.target.Scope
		}
		return c
	}})
}

func TestAuthorityConformance(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Subject{World: func(t *testing.T) *conformance.World {
		w := newWorld(t)
		for _, s := range w.spoke {
			require.Error(t, s.pass())
		}
		w.cross()
		return &conformance.World{
			Target:  w.hub.target,
			New:     func(*testing.T) reconcilers.Reconciler { return certificates.NewAuthority(w.deps()) },
			State:   func(t *testing.T) string { return picture(t, w.hub.target.Dir) },
			Secrets: []string{w.key},
		}
	}})
}

// shake makes a connection in which both sides show a certificate of the fleet's authority.
func (w *world) shake(ca string, server, client map[string]desired.Value, name string) error {
	t := w.t
	t.Helper()
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM([]byte(ca)))
	pairOf := func(of map[string]desired.Value) []tls.Certificate {
		if of == nil {
			return nil
		}
		pem := []byte(of["pem"].Text())
		pair, err := tls.X509KeyPair(pem, pem)
		require.NoError(t, err)
		return []tls.Certificate{pair}
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	s.TLS = &tls.Config{Certificates: pairOf(server), ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, Time: w.clock.Now}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: pairOf(client), ServerName: name, Time: w.clock.Now}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get(s.URL)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, "fra.test", string(said))
	return nil
}

func TestMutualTLSBetweenSpokes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settle()
	deu, fra := w.spoke["deu"].ready(), w.spoke["fra"].ready()
	ca := w.hub.ready()["ca"].Text()
	require.NoError(t, w.shake(ca, deu, fra, "deu.test"))
	require.NoError(t, w.shake(ca, deu, fra, "127.0.0.1"))
	require.Error(t, w.shake(ca, deu, nil, "deu.test"), "who shows none is refused")
	require.Error(t, w.shake(ca, deu, fra, "fra.test"), "names are those of the manifest")
	other := newWorld(t)
	other.settle()
	require.Error(t, w.shake(ca, deu, other.spoke["fra"].ready(), "deu.test"), "another authority's is refused")
	require.True(t, deu["pem"].Secret())
	require.True(t, deu["key"].Secret())
	require.False(t, deu["certificate"].Secret())
	info, err := os.Stat(filepath.Join(w.spoke["deu"].target.Dir, "certificate.json"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
}

func TestRenewedBeforeItEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settle()
	s := w.spoke["deu"]
	before := s.ready()
	w.clock.forward(59 * 24 * time.Hour)
	require.Empty(t, s.plan())
	w.clock.forward(2 * 24 * time.Hour)
	require.Contains(t, s.plan()[0].Reason, "two thirds of the certificate's life are over")
	require.NoError(t, s.pass(), "what is there is still good: nothing waits")
	require.Equal(t, before["pem"].Text(), s.observe().Outputs["pem"].Text())
	w.settle()
	after := s.ready()
	require.NotEqual(t, before["key"].Text(), after["key"].Text(), "another key")
	require.NoError(t, w.shake(w.hub.ready()["ca"].Text(), after, w.spoke["fra"].ready(), "deu.test"))
	require.Len(t, strings.Split(strings.TrimSpace(after["certificate"].Text()), "BEGIN"), 2)
}

func TestOnlyWhatIsMergedIsSigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settle()
	signedBefore := picture(t, w.hub.target.Dir)
	all := files(nil)
	mine := strings.Replace(all["instances/deu.yaml"], "deu.test", "usa.test", 1)
	theirs := newWorld(t) // of a host whose checkout says otherwise than what is merged
	theirs.load(files(map[string]string{"instances/deu.yaml": mine}))
	require.Error(t, theirs.spoke["deu"].pass())
	give := func(request string) []string {
		w.hub.target.Scope = w.hub.target.Scope.WithInstances(map[string]map[string]map[string]desired.Value{
			"deu": {"certificate": {"request": desired.String(request)}},
		})
		require.NoError(t, w.hub.pass())
		return w.hub.observe().Facts.Notes
	}
	notes := give(theirs.spoke["deu"].observe().Outputs["request"].Text())
	require.Contains(t, strings.Join(notes, "\n"), `it asks for the name "usa.test", and the manifest says "deu.test"`)
	fra := newWorld(t)
	require.Error(t, fra.spoke["fra"].pass())
	require.Contains(t, strings.Join(give(fra.spoke["fra"].observe().Outputs["request"].Text()), "\n"), "not signed")
	for _, nonsense := range []string{"", "nonsense", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"} {
		give(nonsense)
	}
	block, _ := pem.Decode([]byte(w.spoke["deu"].observe().Outputs["request"].Text()))
	block.Bytes[len(block.Bytes)-3] ^= 1
	require.Contains(t, strings.Join(give(string(pem.EncodeToMemory(block))), "\n"), "not signed")
	require.Equal(t, signedBefore, picture(t, w.hub.target.Dir))
}

func TestAnotherKeyOfTheAuthority(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settle()
	before := w.hub.ready()["ca"].Text()
	another, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	w.key = privatePEM(t, another)
	w.clock.forward(time.Hour)
	w.load(files(nil))
	w.settle()
	after := w.hub.ready()["ca"].Text()
	require.NotEqual(t, before, after)
	require.NoError(t, w.shake(after, w.spoke["deu"].ready(), w.spoke["fra"].ready(), "deu.test"))
}

func TestLostFolders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settle()
	ca, fra := w.hub.ready()["ca"].Text(), w.spoke["fra"].ready()
	require.NoError(t, os.WriteFile(filepath.Join(w.hub.target.Dir, "authority.json"), []byte("{"), 0o600))
	require.NoError(t, os.Remove(filepath.Join(w.spoke["deu"].target.Dir, "certificate.json")))
	w.clock.forward(time.Minute)
	w.settle()
	now := w.hub.ready()["ca"].Text()
	require.NotEqual(t, ca, now)
	for _, authority := range []string{ca, now} { // the same key: both are good
		require.NoError(t, w.shake(authority, w.spoke["deu"].ready(), fra, "deu.test"))
	}
}

func TestManifestsOfCertificates(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ file, from, to, says string }{
		{"instances/deu.yaml", "names: [deu.test, 127.0.0.1]", "names: [\"not a host\"]", `instances/deu.yaml:10:15: "not a host" is no DNS name and no IP address`},
		{"instances/deu.yaml", "names: [deu.test, 127.0.0.1]", "usages: [server]", "names is missing"},
		{"instances/deu.yaml", "names: [deu.test, 127.0.0.1]", "usages: [sign]", `usages must be one of server, client, not "sign"`},
		{
			"instances/deu.yaml", "names: [deu.test, 127.0.0.1]", "names: [\"${instances.usa.authority.ca}\"]",
			"instances/deu.yaml:10:18: ${instances.usa.authority.ca} is known to the agent of this instance's host alone, and the authority's agent has to compare",
		},
		{"instances/usa.yaml", "key: ${FLEET_CA_KEY}", "key: plain", "instances/usa.yaml:11:12: key must come from a secret"},
		{"instances/usa.yaml", "key: ${FLEET_CA_KEY}", "key: ${FLEET_CA_KEY}\n      issue: 1s", "instances/usa.yaml:12:14: issue must be 1m0s or more"},
		{"instances/usa.yaml", "key: ${FLEET_CA_KEY}", "key: ${FLEET_CA_KEY}\n      lifetime: 1h", "what is signed would be valid for longer than the authority"},
	} {
		all := files(nil)
		require.Contains(t, all[row.file], row.from)
		all[row.file] = strings.Replace(all[row.file], row.from, row.to, 1)
		dir := t.TempDir()
		for name, text := range all {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		_, err := desired.Load(dir, desired.Options{Kinds: kinds})
		require.ErrorContains(t, err, row.says)
	}
}

func TestKeyThatCannotSign(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.key = "hush-hush-no-key"
	w.load(files(nil))
	err := w.hub.pass()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, err, &blocked)
	require.Equal(t, "AuthorityKey", blocked.Reason)
	require.NotContains(t, err.Error(), "hush")
}

func FuzzRequests(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		w := newWorld(t)
		w.hub.target.Scope = w.hub.target.Scope.WithInstances(map[string]map[string]map[string]desired.Value{
			"deu": {"certificate": {"request": desired.String(text)}},
		})
		require.NoError(t, w.hub.pass())
		if all, ok := w.hub.observe().Outputs["certificates"].Fields(); ok {
			require.Empty(t, all)
		}
	})
}
