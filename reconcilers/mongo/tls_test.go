package mongo_test

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
	"dive-agent/testbed/pki"
)

// secureSet is a set whose members have certificates of one authority, and whose manifest trusts it.
type secureSet struct {
	*set
	ca     *pki.CA
	member string // key and certificate of all members
}

func newSecureSet(t *testing.T, members ...string) *secureSet {
	t.Helper()
	ca, err := pki.New("deu CA")
	require.NoError(t, err)
	s := &secureSet{set: plainSet(t, members...), ca: ca}
	s.member = s.certificate("members", time.Time{}, members...)
	pair, err := tls.X509KeyPair([]byte(s.member), []byte(s.member))
	require.NoError(t, err)
	s.tls = &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	s.spec.TLS = &mongo.TLS{
		CA: desired.Literal(string(ca.PEM())), Certificate: desired.Literal(s.member), CAFile: "/certs/ca.pem",
	}
	return s
}

// certificate is a key and a certificate for the names, in PEM. A zero end is one to come.
func (s *secureSet) certificate(unit string, end time.Time, names ...string) string {
	s.t.Helper()
	cert, key, err := s.ca.IssueAs(pki.Certificate{
		Subject: pkix.Name{CommonName: names[0], Organization: []string{"deu"}, OrganizationalUnit: []string{unit}}, Hosts: names, NotAfter: end,
	})
	require.NoError(s.t, err)
	return string(key) + string(cert)
}

// secure is a mongod with these modes. It keeps its data in a volume of its own.
func (s *secureSet) secure(name, tlsMode, authMode, certificate string) lab.Service {
	m := s.mongod("rs0")
	m.Volumes = map[string]string{name: "/data/db"}
	if tlsMode != "disabled" {
		m.Command = append(m.Command, "--tlsMode", tlsMode, "--tlsCertificateKeyFile", "/etc/member.pem", "--tlsCAFile", "/etc/ca.pem")
		m.Files["/etc/member.pem"] = lab.File{Content: certificate, Mode: 0o400, Owner: 999}
		m.Files["/etc/ca.pem"] = lab.File{Content: string(s.ca.PEM()), Mode: 0o444}
	}
	if authMode != "" {
		m.Command = append(m.Command, "--clusterAuthMode", authMode)
	}
	if authMode == "x509" {
		at := slices.Index(m.Command, "--keyFile")
		m.Command = slices.Delete(m.Command, at, at+2)
	}
	return m
}

// TestASetOfTLSAndX509FromNothing: no keyfile anywhere, no user made by the image. The agent gets in by the members' own
// certificate, makes the administrator, and clients are told how to connect.
func TestASetOfTLSAndX509FromNothing(t *testing.T) {
	t.Parallel()
	s := newSecureSet(t, three...)
	s.withContent()
	for _, name := range three {
		m := s.secure(name, "requireTLS", "x509", s.member)
		m.Env = nil
		s.lab.Run(name, m)
	}
	began := time.Now()
	r := reconciler(t)
	o := s.settle(r)
	t.Logf("in its desired state after %s", time.Since(began).Round(time.Millisecond))
	require.Equal(t, "rs0 PRIMARY, 3 members", o.Facts.Summary)
	require.Equal(t, "requireTLS, x509", o.Facts.Set.TLS)
	for _, m := range o.Facts.Members {
		require.Equal(t, s.tls.Certificates[0].Leaf.NotAfter, m.Certificate)
	}
	require.Equal(t, "mongodb://app:"+appPassword+"@mongodb-1:27017,mongodb-2:27017,mongodb-3:27017/dive?replicaSet=rs0&authSource=admin"+
		"&tls=true&tlsCAFile=%2Fcerts%2Fca.pem", o.Outputs["uri"].Text())
}

// TestOlderServersSpeakTLS the same way.
func TestOlderServersSpeakTLS(t *testing.T) {
	t.Parallel()
	for version, image := range map[string]testbed.ImageName{"4.4": testbed.Mongod442, "5.0": testbed.Mongod504} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newSecureSet(t, "mongodb-1")
			m := s.secure("mongodb-1", "requireTLS", "x509", s.member)
			m.Image, m.Env = testbed.Image(t, image), nil
			if version == "4.4" { // it does not know the parameter
				at := slices.Index(m.Command, "shutdownTimeoutMillisForSignaledShutdown=100")
				m.Command = slices.Delete(m.Command, at-1, at+1)
			}
			s.lab.Run("mongodb-1", m)
			o := s.settle(reconciler(t))
			require.Equal(t, "requireTLS, x509", o.Facts.Set.TLS)
			require.Equal(t, version, o.Facts.Set.FCV)
			require.Contains(t, o.Outputs["uri"].Text(), "&tls=true")
		})
	}
}

// TestTheWayFromKeyfileToTLSAndX509: each step of the manual's two ways, the agent speaking to members of both kinds
// meanwhile, and a writer of whose acknowledged documents none is lost. A jump is refused before anything is touched. What
// clients are told follows what all members speak.
func TestTheWayFromKeyfileToTLSAndX509(t *testing.T) {
	t.Parallel()
	s := newSecureSet(t, three...)
	for _, name := range three {
		s.lab.Run(name, s.secure(name, "disabled", "", ""))
	}
	s.spec.Keyfile = desired.Literal(s.key)
	r := reconciler(t)
	o := s.settle(r)
	require.Equal(t, "disabled, keyFile", o.Facts.Set.TLS)
	require.NotContains(t, o.Outputs["uri"].Text(), "tls=true")
	w := s.write()

	for _, jump := range []struct{ tls, auth, reason, way string }{
		{"requireTLS", "", "TLSSkipsStep", "--tlsMode allowTLS, then preferTLS, then requireTLS"},
		{"allowTLS", "x509", "AuthenticationSkipsStep", "--clusterAuthMode sendKeyFile, then sendX509, then x509"},
	} {
		before, err := s.lab.Find(t.Context(), three[1])
		require.NoError(t, err)
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, s.roll(r, three[1], s.secure(three[1], jump.tls, jump.auth, s.member)), &blocked)
		require.Equal(t, jump.reason, blocked.Reason)
		require.Contains(t, blocked.Do, jump.way)
		after, err := s.lab.Find(t.Context(), three[1])
		require.NoError(t, err)
		require.Equal(t, before.ID, after.ID, "something was touched")
	}

	told := ""
	for _, step := range []struct{ tls, auth string }{{"allowTLS", "sendKeyFile"}, {"preferTLS", "sendX509"}, {"requireTLS", "x509"}} {
		primary := primaryOf(t, o)
		for _, name := range append(beside(primary), primary) {
			require.NoError(t, s.roll(r, name, s.secure(name, step.tls, step.auth, s.member)))
			o = s.settle(r)
			told += fmt.Sprint(strings.Contains(o.Outputs["uri"].Text(), "tls=true")) + " "
		}
		require.Equal(t, step.tls+", "+step.auth, o.Facts.Set.TLS)
	}
	require.Equal(t, "false false"+strings.Repeat(" true", 7)+" ", told, "clients speak TLS once all members do")
	require.Empty(t, w.lost(primaryOf(t, o)))
}

// roll takes a member's turn, replaces it, and waits until it is back, as the agent does.
func (s *secureSet) roll(r reconcilers.Reconciler, name string, as lab.Service) error {
	s.t.Helper()
	turn := reconcilers.Turn{Part: name, Changes: []reconcilers.Change{{
		Action: reconcilers.Replace, Address: name, Image: as.Image, Command: as.Command, Interrupts: true,
	}}}
	roller := r.(reconcilers.Roller)
	err := roller.Turn(s.t.Context(), s.target, turn, &progress{t: s.t})
	if err != nil {
		return err
	}
	s.lab.Run(name, as)
	return roller.Back(s.t.Context(), s.target, turn, &progress{t: s.t})
}

// TestACertificateThatIsNotAsItMustBe is told of by the member's name, with what is wrong and until when it is valid.
func TestACertificateThatIsNotAsItMustBe(t *testing.T) {
	t.Parallel()
	s := newSecureSet(t, three...)
	for _, name := range three {
		s.lab.Run(name, s.secure(name, "requireTLS", "", s.member))
	}
	r := reconciler(t)
	s.settle(r)

	s.lab.Run("mongodb-2", s.secure("mongodb-2", "requireTLS", "", s.certificate("members", time.Time{}, "other")))
	began := time.Now()
	blocked := s.blocked(r)
	require.Equal(t, "WrongCertificate", blocked.Reason)
	require.Contains(t, blocked.Message, "the certificate of mongodb-2:27017 is for other, not for mongodb-2 (it is valid until "+
		time.Now().Add(pki.Lifetime).UTC().Format(time.DateOnly))
	require.Less(t, time.Since(began), 15*time.Second)

	foreign, err := pki.New("another CA")
	require.NoError(t, err)
	own := s.ca
	s.ca = foreign
	s.lab.Run("mongodb-2", s.secure("mongodb-2", "requireTLS", "", s.certificate("members", time.Time{}, "mongodb-2")))
	s.ca = own
	testbed.Eventually(t, 15*time.Second, "a word of the foreign authority", func() error {
		if _, _, err := s.pass(r); err == nil || !strings.Contains(err.Error(), `mongodb-2:27017 is signed by "CN=another CA`) {
			return fmt.Errorf("not told of: %w", err)
		}
		return nil
	})
	s.lab.Run("mongodb-2", s.secure("mongodb-2", "requireTLS", "", s.member))
	s.settle(r)

	s.spec.TLS.Certificate = desired.Expr{}
	require.Equal(t, "CertificateRefused", s.blocked(r).Reason)
	s.spec.TLS = nil
	require.Equal(t, "TLSRequired", s.blocked(reconciler(t)).Reason)
}
