package desired_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

func withSecrets(secrets string) map[string]string {
	return map[string]string{"instances/deu.yaml": `apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: deu}
spec:
  role: spoke
  host: one
  values: {code: DEU}
  components: {job: {kind: Job, steps: [a]}}
  secrets:
    KEY: {provide: true}
    CA: {generate: {kind: ca}}
` + secrets}
}

func TestCertificatesOfAManifest(t *testing.T) {
	fleet := loadTree(t, withSecrets(`    MEMBER: {generate: {kind: certificate, ca: CA, names: [mongodb-1, "${lower(code)}.example.org", 127.0.0.1]}}
    APP: {generate: {kind: certificate, ca: CA, usages: [client], lifetime: 24h, subject: {commonName: app, organization: "${code}", organizationalUnit: clients}}}
`))
	deu := fleet.Instances["deu"]
	require.Equal(t, &desired.Certificate{
		CommonName: "deu CA", Organization: "deu", Unit: "CA", Server: true, Client: true, Lifetime: 87600 * time.Hour,
	}, deu.Secret("CA").Certificate)
	require.Equal(t, &desired.Certificate{
		Authority: "CA", CommonName: "mongodb-1", Organization: "deu", Unit: "MEMBER", Server: true, Client: true,
		Names: []string{"mongodb-1", "deu.example.org", "127.0.0.1"}, Lifetime: 2160 * time.Hour,
	}, deu.Secret("MEMBER").Certificate)
	require.Equal(t, &desired.Certificate{
		Authority: "CA", CommonName: "app", Organization: "DEU", Unit: "clients", Client: true, Lifetime: 24 * time.Hour,
	}, deu.Secret("APP").Certificate)
	require.Nil(t, deu.Secret("KEY").Certificate)
}

func TestMistakesInCertificates(t *testing.T) {
	const at = "instances/deu.yaml:12:"
	for generate, want := range map[string]string{
		`{kind: certificate, names: [a]}`:                           at + "19: certificate X needs ca: the secret that signs it",
		`{kind: certificate, ca: KEY, names: [a]}`:                  at + `5: certificate X: "KEY" is no secret of kind ca`,
		`{kind: certificate, ca: CA}`:                               at + "19: certificate X needs names: nobody would take it for any server's. For clients alone say usages: [client]",
		`{kind: certificate, ca: CA, names: ["a b"]}`:               at + `55: secret X: "a b" is no DNS name and no IP address`,
		`{kind: certificate, ca: CA, names: ["${KEY}"]}`:            at + "55: secret X: a certificate may use values of the instance alone, no secrets and no outputs",
		`{kind: certificate, ca: CA, names: [a], usages: [mail]}`:   at + `19: usage "mail" of secret X: server and client are possible`,
		`{kind: certificate, ca: CA, names: [a], lifetime: 1s}`:     at + "19: lifetime of secret X must be 1m0s or more",
		`{kind: certificate, ca: CA, names: [a], lifetime: 90000h}`: at + "5: certificate X would be valid for longer than its authority CA",
		`{kind: ca, names: [a]}`:                                    at + "19: secret X is an authority: ca, names and usages belong to certificates",
	} {
		problems := problemsIn(t, withSecrets("    X: {generate: "+generate+"}\n"))
		require.Contains(t, problems, want, generate)
	}
}
