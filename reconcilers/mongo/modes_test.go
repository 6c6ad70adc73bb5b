package mongo

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

func TestModesOfACommand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command []string
		want    modes
	}{
		"neither":         {[]string{"mongod", "--replSet", "rs0"}, modes{"disabled", "keyFile"}},
		"both":            {[]string{"/usr/bin/mongod", "--tlsMode", "requireTLS", "--clusterAuthMode", "x509"}, modes{"requireTLS", "x509"}},
		"joined":          {[]string{"--replSet=rs0", "--tlsMode=allowTLS", "--clusterAuthMode=sendKeyFile"}, modes{"allowTLS", "sendKeyFile"}},
		"the old name":    {[]string{"mongod", "--sslMode", "preferSSL"}, modes{"preferTLS", "keyFile"}},
		"a file may say":  {[]string{"mongod", "--config", "/etc/mongod.conf", "--tlsMode", "allowTLS"}, modes{"allowTLS", ""}},
		"who knows":       {[]string{"/start.sh", "--tlsMode", "allowTLS"}, modes{}},
		"what image says": {nil, modes{}},
		"nothing follows": {[]string{"mongod", "--tlsMode"}, modes{"disabled", "keyFile"}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, modesOfCommand(c.command)) })
	}
}

// Members of equal and of neighbouring modes understand each other, all others do not.
func TestModesThatUnderstandEachOther(t *testing.T) {
	t.Parallel()
	s := &session{want: want{set: "rs0"}}
	m, other := wantMember{host: "mongodb-1:27017"}, wantMember{host: "mongodb-2:27017"}
	for i, have := range tlsModes {
		for j, next := range tlsModes {
			err := s.neighbours(m, other, modes{tls: have}, modes{tls: next})
			require.Equal(t, max(i-j, j-i) > 1, err != nil, "%s %s", have, next)
		}
	}
	require.NoError(t, s.neighbours(m, other, modes{}, modes{tls: "requireTLS", auth: "x509"}))
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, s.neighbours(m, other, modes{auth: "x509"}, modes{auth: "keyFile"}), &blocked)
	require.Equal(t, "AuthenticationSkipsStep", blocked.Reason)
	require.Contains(t, blocked.Do, "--clusterAuthMode sendX509, then sendKeyFile, then keyFile")
}

// What clients are told changes when all members changed, not while one of them is away.
func TestWhatClientsAreTold(t *testing.T) {
	t.Parallel()
	plain, secure, away := sighting{}, sighting{tls: true}, sighting{err: errNotYet}
	s := &session{memory: &memory{folder: t.TempDir()}}
	for i, c := range []struct {
		seen []sighting
		told string
	}{
		{[]sighting{secure, away}, "yes"},
		{[]sighting{secure, plain, away}, "no"},
		{[]sighting{secure, secure, away}, "no"},
		{[]sighting{secure, secure, secure}, "yes"},
		{[]sighting{away, secure, away}, "yes"},
		{[]sighting{plain, secure, secure}, "no"},
	} {
		require.NoError(t, s.tellClients(c.seen))
		require.Equal(t, c.told, s.memory.TLS, i)
	}
}

func TestWhatIsNoCertificateIsRefusedWithoutItsText(t *testing.T) {
	t.Parallel()
	for field, spec := range map[string]*TLS{
		"tls.ca":          {CA: desired.Literal("my-Secret-9182")},
		"tls.certificate": {CA: desired.Literal(authorityPEM), Certificate: desired.Literal("my-Secret-9182")},
	} {
		unknown := ""
		_, err := spec.resolve(&evaluator{scope: desired.NewScope(nil), unknown: &unknown})
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, err, &blocked)
		require.Equal(t, "InvalidCertificate", blocked.Reason)
		require.Contains(t, blocked.Message, field)
		require.NotContains(t, blocked.Error(), "Secret")
	}
	unknown := ""
	w, err := (&TLS{CA: desired.Literal(authorityPEM)}).resolve(&evaluator{scope: desired.NewScope(nil), unknown: &unknown})
	require.NoError(t, err)
	require.Equal(t, "CN=test", w.authorities[0].Subject.String())
}

const authorityPEM = `-----BEGIN CERTIFICATE-----
MIIBcjCCARmgAwIBAgIUUk6rJiKn3Ga5rPa5JxR2Mcre4PYwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAeFw0yNjExMjIwNjU4MDJaFw0zNjExMTkwNjU4MDJa
MA8xDTALBgNVBAMMBHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATnIUpK
sFfOc0miBISTy7utkMq8XR7z0PXpue3dgdswC02V8syv3QyEYrOCpMt0mnIcQ2eN
+lNd/N/11bkyi3O9o1MwUTAdBgNVHQ4EFgQU3cWs3CTBeGxCjRWJ5sDEagHHGUww
HwYDVR0jBBgwFoAU3cWs3CTBeGxCjRWJ5sDEagHHGUwwDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNHADBEAiBx54lDa+0oXAXmp4dKOSqNrwXkoCIT7mP7cO4B
uGaXjgIgSZR+NNQKkdF4t6d3Pl+QZIlCAJt8Mox4ahdyAMSIo3M=
-----END CERTIFICATE-----`
