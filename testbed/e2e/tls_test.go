package e2e

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"dive-agent/desired"
	"dive-agent/report"
	"dive-agent/secrets"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

const certificateLife = 90 * 24 * time.Hour

// secureTrio is the set of three without a key file: TLS and x.509, by an authority of the instance's own.
func (s *small) secureTrio() map[string]string {
	files := s.trio(testbed.Image(s.t, testbed.Mongod605), "6.0")
	edit := func(name string, pairs ...string) {
		for i := 0; i < len(pairs); i += 2 {
			require.Contains(s.t, files[name], pairs[i])
		}
		files[name] = strings.NewReplacer(pairs...).Replace(files[name])
	}
	edit("blueprints/trio/blueprint.yaml",
		`    MONGO_KEYFILE: {generate: {kind: mongodb-keyfile}, file: {path: mongo-keyfile, mode: "0400", owner: 999}}`,
		`    MONGO_CA: {generate: {kind: ca}, file: {path: mongo-ca.pem, mode: "0444"}}
    MONGO_CERT:
      generate: {kind: certificate, ca: MONGO_CA, names: [mongodb-1, mongodb-2, mongodb-3, localhost]}
      file: {path: mongo.pem, owner: 999}`,
		"      keyfile: ${MONGO_KEYFILE}\n", "      tls: {ca: \"${MONGO_CA}\", certificate: \"${MONGO_CERT}\"}\n")
	edit("blueprints/trio/compose.yaml",
		"--keyFile, /etc/mongo-keyfile", "--tlsMode, requireTLS, --tlsCertificateKeyFile, /etc/mongo.pem, --tlsCAFile, /etc/mongo-ca.pem, --clusterAuthMode, x509",
		"${SECRETS_DIR}/mongo-keyfile:/etc/mongo-keyfile:ro\"", "${SECRETS_DIR}/mongo.pem:/etc/mongo.pem:ro\", \"${SECRETS_DIR}/mongo-ca.pem:/etc/mongo-ca.pem:ro\"")
	return files
}

// connectTLS is connect for members that speak nothing else. The client shows the members' certificate as it is at the time.
func (s *small) connectTLS(t *testing.T, h *agenttest.Host) *mongo.Database {
	t.Helper()
	values := filepath.Join(h.Dir, "state", "instances", "one", "secrets", ".store", "values")
	password, err := os.ReadFile(filepath.Join(values, "MONGO_PASSWORD"))
	require.NoError(t, err)
	plain := s.dialer()
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := plain(ctx, network, address)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(conn, &tls.Config{
			InsecureSkipVerify: true, // the agent's trust is what is tested
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				raw, err := os.ReadFile(filepath.Join(values, "MONGO_CERT"))
				if err != nil {
					return nil, err
				}
				pair, err := tls.X509KeyPair(raw, raw)
				return &pair, err
			},
		})
		return secure, secure.HandshakeContext(ctx)
	}
	c, err := mongo.Connect(options.Client().SetHosts([]string{"mongodb-1:27017", "mongodb-2:27017", "mongodb-3:27017"}).SetReplicaSet("rs0").
		SetDialer(dialerFunc(dial)).SetServerSelectionTimeout(soon).SetHeartbeatInterval(500 * time.Millisecond).SetWriteConcern(writeconcern.Majority()).
		SetAuth(options.Credential{Username: "admin", Password: string(password), AuthSource: "admin"}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	return c.Database("dive")
}

// agedBy gives the members' certificate the age of one that was made so long ago: time from outside.
func agedBy(t *testing.T, h *agenttest.Host, by time.Duration) {
	t.Helper()
	dir := filepath.Join(h.Dir, "state", "instances", "one", "secrets")
	store, err := secrets.Open(secrets.Options{Instance: "one", Dir: dir, Random: rand.Reader, Now: func() time.Time { return time.Now().Add(-by) }})
	require.NoError(t, err)
	member := desired.Certificate{
		Authority: "MONGO_CA", CommonName: "mongodb-1", Organization: "one", Unit: "MONGO_CERT",
		Names: []string{"mongodb-1", "mongodb-2", "mongodb-3", "localhost"}, Server: true, Client: true, Lifetime: certificateLife,
	}
	require.NoError(t, os.Remove(filepath.Join(dir, ".store", "values", "MONGO_CERT")))
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
	db := s.connectTLS(t, h)
	w := startWriter(t, db)
	ends := func(st *report.Status) (first time.Time) {
		for _, m := range st.Members {
			if first.IsZero() || m.Certificate.Before(first) {
				first = m.Certificate
			}
		}
		return first
	}
	began := time.Now()
	before, containers, term := ends(h.AwaitPhase(soon, "one", report.Ready, "")), s.running(), s.term(t, db)
	require.WithinDuration(t, began.Add(certificateLife), before, 5*time.Minute)

	agedBy(t, h, certificateLife*2/3+time.Hour)
	h.Await(4*soon, "one", "has members with certificates of today", func(st *report.Status) bool {
		return st.Phase == report.Ready && len(st.Members) == 3 && ends(st).After(before)
	})
	for service, id := range s.running() {
		require.NotEqual(t, containers[service], id, "%s was not changed", service)
	}
	require.Equal(t, term+1, s.term(t, db), "one step-down, and no election beside")
	require.Contains(t, h.Do("secrets", "list", "one"), "valid until "+ends(h.AwaitPhase(soon, "one", report.Ready, "")).Format(time.DateTime))
	t.Logf("renewed after %s", time.Since(began).Round(time.Second))

	dir := filepath.Join(h.Dir, "state", "instances", "one", "secrets")
	former, err := os.ReadFile(filepath.Join(dir, "mongo-ca.pem"))
	require.NoError(t, err)
	began = time.Now()
	h.Do("secrets", "rotate", "one", "MONGO_CA")
	testbed.Eventually(t, 8*soon, "another authority alone", func() error {
		now, err := os.ReadFile(filepath.Join(dir, "mongo-ca.pem"))
		switch {
		case err != nil:
			return err
		case strings.Contains(string(now), strings.TrimSpace(string(former))) || strings.Count(string(now), "BEGIN") != 1:
			return errors.New("the former one is trusted")
		}
		if _, err := os.Stat(filepath.Join(dir, ".store", "former", "MONGO_CA")); err == nil {
			return errors.New("it is on the way")
		}
		return nil
	})
	h.AwaitPhase(soon, "one", report.Ready, "")
	require.Equal(t, term+4, s.term(t, db), "one step-down for each of three more rolls")
	t.Logf("the authority was replaced after %s", time.Since(began).Round(time.Second))

	acknowledged, stall := w.stop()
	have, err := db.Collection("writes").CountDocuments(t.Context(), bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: acknowledged}}}})
	require.NoError(t, err)
	require.Len(t, acknowledged, int(have), "acknowledged writes were lost")
	t.Logf("%d writes acknowledged, none lost; longest stall %s", len(acknowledged), stall.Round(time.Millisecond))
}
