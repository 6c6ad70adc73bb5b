package e2e

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
)

// certificates are a hub that signs and a spoke whose reader has what was signed. What is signed for three minutes, and counts from five
// before, is renewed 20 s after its making.
func (c *crossing) certificates() map[string]string {
	files := c.files("")
	files["instances/usa/instance.yaml"] = `apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: usa}
spec:
  role: hub
  host: usa-01
  secrets: {FLEET_CA_KEY: {generate: {kind: ed25519}}}
  components:
    authority:
      kind: CertificateAuthority
      key: ${FLEET_CA_KEY}
      issue: 3m
      requests: "${{for s in fleet.spokes : s.name => s.outputs.certificate.request}}"
      publish: [ca, certificates]
`
	files["instances/deu/instance.yaml"] = fmt.Sprintf(`apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: deu}
spec:
  role: spoke
  host: deu-01
  components:
    certificate:
      kind: Certificate
      names: [reader]
      issued: ${instances.usa.authority.certificates}
      publish: [request]
    stack:
      kind: ComposeStack
      project: %s
      environment: {IMAGE: %q, USES: "${certificate.expires}", PAIR: "${certificate.pem}", CA: "${instances.usa.authority.ca}"}
`, c.project, testbed.Image(c.t, testbed.Redis7))
	files["instances/deu/compose.yaml"] = `services:
  reader:
    image: ${IMAGE}
    environment: {USES: "${USES}"}
    configs: [{source: pair, target: /etc/pair.pem, mode: 0400}, {source: ca, target: /etc/ca.pem}]
    stop_grace_period: 1s
  other:
    image: ${IMAGE}
    configs: [{source: ca, target: /etc/ca.pem}]
    stop_grace_period: 1s
configs:
  pair: {content: "${PAIR:-}"}
  ca: {content: "${CA:-}"}
`
	return files
}

// TestACertificateIsRenewedForItsConsumersAlone: the request crosses to the hub's host and the certificate back, its key crosses
// nowhere, and what is renewed reaches the service that uses it and no other.
func TestACertificateIsRenewedForItsConsumersAlone(t *testing.T) {
	t.Parallel()
	c := newCrossing(t)
	c.Merge("Begin", c.certificates())
	c.usa.Start()
	c.deu.Start()
	c.deu.Await(3*soon, "deu", "runs with a certificate", func(s *report.Status) bool { return s.Phase == report.Ready && c.uses() != "" })
	before, until := c.running(), c.uses()
	c.deu.Await(3*soon, "deu", "runs with the next certificate", func(s *report.Status) bool {
		return s.Phase == report.Ready && c.running()["reader"] != before["reader"] && c.uses() > until
	})
	require.Equal(t, before["other"], c.running()["other"])
	for _, branch := range []string{"status/usa", "status/deu"} {
		text := c.git("log", "-p", branch)
		require.Contains(t, text, "BEGIN CERTIFICATE")
		require.NotContains(t, text, "PRIVATE KEY")
	}
	require.NotContains(t, c.usa.Log()+c.deu.Log(), "PRIVATE KEY")
}
