package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/report"
	"dive-agent/secrets"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/replicaset"
)

const certificateLife = 90 * 24 * time.Hour

// secureTrio is the set of three without a key file: TLS and x.509, by an authority of the instance's own.
func (s *small) secureTrio() map[string]string {
	files := edited(s.t, s.trio(testbed.Image(s.t, testbed.Mongod605), "6.0"), trioFile,
		`    MONGO_KEYFILE: {generate: {kind: mongodb-keyfile}, file: {path: mongo-keyfile, mode: "0400", owner: 999}}`,
		`    MONGO_CA: {generate: {kind: ca}, file: {path: mongo-ca.pem, mode: "0444"}}
    MONGO_CERT:
      generate: {kind: certificate, ca: MONGO_CA, names: [mongodb-1, mongodb-2, mongodb-3, localhost]}
      file: {path: mongo.pem, owner: 999}`,
		"      keyfile: ${MONGO_KEYFILE}\n", "      tls: {ca: \"${MONGO_CA}\", certificate: \"${MONGO_CERT}\"}\n")
	return edited(s.t, files, stackFile,
		"--keyFile, /etc/mongo-keyfile", "--tlsMode, requireTLS, --tlsCertificateKeyFile, /etc/mongo.pem, --tlsCAFile, /etc/mongo-ca.pem, --clusterAuthMode, x509",
		"${SECRETS_DIR}/mongo-keyfile:/etc/mongo-keyfile:ro\"", "${SECRETS_DIR}/mongo.pem:/etc/mongo.pem:ro\", \"${SECRETS_DIR}/mongo-ca.pem:/etc/mongo-ca.pem:ro\"")
}

// dialTLS reaches members that speak nothing else. It shows the members' certificate as it is at the time.
type dialTLS struct {
	plain       replicaset.Set
	certificate func() (string, error) // with the key
}

func (d dialTLS) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.plain.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, &tls.Config{
		InsecureSkipVerify: true, // the agent's trust is what is tested
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			text, err := d.certificate()
			if err != nil {
				return nil, err
			}
			pair, err := tls.X509KeyPair([]byte(text), []byte(text))
			return &pair, err
		},
	})
	return secure, secure.HandshakeContext(ctx)
}

// agedBy gives the members' certificate the age of one that was made so long ago: time from outside.
func agedBy(t *testing.T, h *agenttest.Host, by time.Duration) {
	t.Helper()
	store, err := secrets.Open(storeOf(h, func() time.Time { return time.Now().Add(-by) }))
	require.NoError(t, err)
	member := desired.Certificate{
		Authority: "MONGO_CA", CommonName: "mongodb-1", Organization: "one", Unit: "MONGO_CERT",
		Names: []string{"mongodb-1", "mongodb-2", "mongodb-3", "localhost"}, Server: true, Client: true, Lifetime: certificateLife,
	}
	require.NoError(t, os.Remove(valueOf(h, "MONGO_CERT")))
	_, err = store.Ensure(t.Context(), []desired.SecretSpec{
		{Name: "MONGO_CA", Generate: &desired.Generate{Kind: desired.AuthorityKind}, Certificate: &desired.Certificate{CommonName: "one MONGO_CA", Organization: "one", Unit: "MONGO_CA", Lifetime: 10 * 365 * 24 * time.Hour}},
		{Name: "MONGO_CERT", Generate: &desired.Generate{Kind: desired.CertificateKind}, Certificate: &member},
	}, secrets.EnsureOptions{})
	require.NoError(t, err)
}

// TestCertificatesAreRenewedMemberByMember: a certificate of which two thirds of the life are over is made anew, and then
// the authority is replaced, each by rolls over the members, while a writer loses nothing that a majority acknowledged.
func TestCertificatesAreRenewedMemberByMember(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.readyWith(s.secureTrio(), 3*soon, agenttest.HostOptions{})
	set := s.set("admin", secretOf(t, h, "MONGO_PASSWORD"))
	db := open(t, set.Options(numbered(3)...).SetDialer(dialTLS{set, func() (string, error) { return storedValue(h, "MONGO_CERT") }}))
	w := replicaset.StartWriter(t.Context(), db)
	ends := func(st *report.Status) (first time.Time) {
		for _, m := range st.Members {
			if first.IsZero() || m.Certificate.Before(first) {
				first = m.Certificate
			}
		}
		return first
	}
	began := time.Now()
	before, containers, elections := ends(h.AwaitPhase(soon, "one", report.Ready, "")), s.running(), term(t, db)
	require.WithinDuration(t, began.Add(certificateLife), before, 5*time.Minute)

	agedBy(t, h, certificateLife*2/3+time.Hour)
	h.Await(4*soon, "one", "has members with certificates of today", func(st *report.Status) bool {
		return st.Phase == report.Ready && len(st.Members) == 3 && ends(st).After(before)
	})
	for service, id := range s.running() {
		require.NotEqual(t, containers[service], id, "%s was not changed", service)
	}
	require.Equal(t, elections+1, term(t, db), "one step-down, and no election beside")
	require.Contains(t, h.Do("secrets", "list", "one"), "valid until "+ends(h.AwaitPhase(soon, "one", report.Ready, "")).Format(time.DateTime))
	t.Logf("renewed after %s", time.Since(began).Round(time.Second))

	authority := filepath.Join(secretsOf(h), "mongo-ca.pem")
	former := read(t, authority)
	began = time.Now()
	h.Do("secrets", "rotate", "one", "MONGO_CA")
	testbed.Eventually(t, 8*soon, "another authority alone", func() error {
		now, err := os.ReadFile(authority)
		switch {
		case err != nil:
			return err
		case strings.Contains(string(now), strings.TrimSpace(former)) || strings.Count(string(now), "BEGIN") != 1:
			return errors.New("the former one is trusted")
		}
		if _, err := os.Stat(formerOf(h, "MONGO_CA")); err == nil {
			return errors.New("it is on the way")
		}
		return nil
	})
	h.AwaitPhase(soon, "one", report.Ready, "")
	require.Equal(t, elections+4, term(t, db), "one step-down for each of three more rolls")
	t.Logf("the authority was replaced after %s", time.Since(began).Round(time.Second))

	lostNothing(t, w, db)
}
