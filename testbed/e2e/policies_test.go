package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"dive-agent/examples"
	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

// distribution is a hub with an OPAL server that follows a Git repository, and a spoke with an OPA and an OPAL client, as the examples
// have them; each has a host and an agent of its own.
type distribution struct {
	*small
	hub        *hubtest.Server
	policies   *gitserver.Repository
	hubProject string
	usa, deu   *agenttest.Host
}

const opalHub = `apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: usa}
spec:
  role: hub
  host: usa-01
  values: {code: USA, country: United States}
  secrets:
    FEDERATION_ADMIN_KEY: {provide: true}
    OPAL_MASTER_TOKEN: {generate: {kind: token, length: 43}}
    OPAL_KEY: {generate: {kind: rsa}, file: {path: opal-key.pem, mode: "0400", owner: 1000, group: 1000}}
  components:
    stack:
      kind: ComposeStack
      project: %[1]s
      profiles: [policy]
      environment:
        PROJECT: %[1]s
        OPAL_SERVER_IMAGE: %[2]s
        OPAL_PORT: "%[3]d"
        OPAL_MASTER_TOKEN: ${OPAL_MASTER_TOKEN}
        OPAL_PUBLIC_KEY: ${OPAL_KEY_PUBLIC}
        POLICY_REPO: %[4]s
        POLICY_REPO_CA: %[5]q
        POLICY_REPO_CA_FILE: /etc/opal/git-ca.pem
        POLICY_POLL: "1"
    federation:
      kind: SpokeApprovals
      adminKey: ${FEDERATION_ADMIN_KEY}
      opal: {url: "http://localhost:%[3]d", masterToken: "${OPAL_MASTER_TOKEN}", publicKey: "${OPAL_KEY_PUBLIC}", lifetime: 40s}
      publish: [handover, opal_token, opal_public_key]
`

const opalSpoke = `apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: deu}
spec:
  role: spoke
  host: deu-01
  values: {code: DEU, country: Germany}
  components:
    stack:
      kind: ComposeStack
      project: %[1]s
      profiles: [policy]
      environment:
        PROJECT: %[1]s
        OPA_IMAGE: %[2]s
        OPA_PORT: "%[3]d"
        OPAL_CLIENT_IMAGE: %[4]s
        OPAL_SERVER_URL: http://host.docker.internal:%[5]d
        OPAL_PUBLIC_KEY: ${instances.usa.federation.opal_public_key}
        OPAL_CLIENT_TOKEN: ${instances.usa.federation.opal_token}
    registration:
      kind: SpokeRegistration
      urls: {base: "https://deu.example:3000", api: "https://deu.example:4000", idp: "https://127.0.0.1:1"}
      contactEmail: ops@deu.example
      requestedScopes: ["policy:base"]
      skipValidation: true
      handover: ${instances.usa.federation.handover}
    checks:
      kind: Verification
      within: 1m
      checks:
        - {name: policies, policy: {service: opa, server: "http://localhost:%[5]d", token: "${instances.usa.federation.opal_token}"}}
        - {name: opal-client, severity: warn, http: {service: opal-client, port: 7000, path: /healthcheck}}
`

// newDistribution merges hub and spoke, and has both agents run.
func newDistribution(t *testing.T) *distribution {
	t.Helper()
	d := &distribution{small: newSmall(t)}
	d.hubProject = d.project + "-hub"
	t.Cleanup(func() { removeProject(t, d.engine, d.hubProject) })
	d.hub = hubtest.StartWithStore(t, hub.NewMemoryStore(time.Now), hub.Config{})
	gateway, err := testbed.HostGateway(t.Context(), d.engine)
	require.NoError(t, err)
	git := gitserver.Start(t, gitserver.Options{Listen: gateway + ":0", ListenSSH: "off"})
	d.policies = git.NewRepository(t, "policies")
	d.commit("false")
	place, err := url.Parse(git.URL("policies"))
	require.NoError(t, err)
	place.Host, place.User = "host.docker.internal:"+place.Port(), url.UserPassword(git.Reader().Name, git.Reader().Password)

	for name, host := range map[string]**agenttest.Host{"usa-01": &d.usa, "deu-01": &d.deu} {
		*host = agenttest.NewHost(t, d.Fleet, agenttest.HostOptions{Name: name})
	}
	port := testbed.FreePort(t)
	files := map[string]string{
		"fleet.yaml":        fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec:\n  hub: {instance: usa, url: %q, caFile: ca.pem}\n", d.hub.URL),
		"ca.pem":            string(d.hub.CA.PEM()),
		"hosts/usa-01.yaml": d.usa.Do("enroll"), "hosts/deu-01.yaml": d.deu.Do("enroll"),
		"instances/usa/instance.yaml": fmt.Sprintf(opalHub, d.hubProject, testbed.Image(t, testbed.OPALServer), port, place, git.CA().PEM()),
		"instances/usa/compose.yaml":  exampleServices(t, "hub", "opal-server"),
		"instances/deu/instance.yaml": fmt.Sprintf(opalSpoke, d.project, testbed.Image(t, testbed.OPA), testbed.FreePort(t), testbed.Image(t, testbed.OPALClient), port),
		"instances/deu/compose.yaml":  exampleServices(t, "spoke", "opa", "opal-client"),
		"instances/deu/" + policyFile: string(exampleFiles(t)["blueprints/spoke/"+policyFile]),
	}
	d.Merge("Hub and spoke", files)
	d.usa.Provide("usa", "FEDERATION_ADMIN_KEY", hubtest.AdminKey)
	d.usa.Start()
	d.deu.Start()
	return d
}

const policyFile = "policies/authorization.rego"

func exampleFiles(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := examples.Files(examples.Options{})
	require.NoError(t, err)
	return files
}

// exampleServices is the Compose file of an example blueprint with these services alone, and the configs of OPAL.
func exampleServices(t *testing.T, blueprint string, names ...string) string {
	t.Helper()
	var file map[string]any
	require.NoError(t, yaml.Unmarshal(exampleFiles(t)["blueprints/"+blueprint+"/compose.yaml"], &file))
	all := file["services"].(map[string]any)
	services := map[string]any{}
	for _, name := range names {
		require.Contains(t, all, name)
		services[name] = all[name]
	}
	configs := file["configs"].(map[string]any)
	maps.DeleteFunc(configs, func(name string, _ any) bool { return name != "opal-public-key" && name != "policy-repo-ca" })
	text, err := yaml.Marshal(map[string]any{"services": services, "configs": configs, "networks": file["networks"]})
	require.NoError(t, err)
	return string(text)
}

// commit puts a policy into the repository that allows everything or nothing.
func (d *distribution) commit(allow string) string {
	d.t.Helper()
	return d.policies.Commit(d.t, "main", "Allow: "+allow, gitserver.Files{policyFile: "package dive.authorization\n\nimport rego.v1\n\ndefault allow := " + allow + "\n"})
}

// awaitPolicies waits until DEU is Ready with its check saying that the policies of a commit are in OPA.
func (d *distribution) awaitPolicies(commit string) {
	d.t.Helper()
	d.deu.Await(3*soon, "deu", "has the policies of "+commit[:7], func(s *report.Status) bool {
		for _, c := range s.Checks {
			if c.Name == "policies" && c.Passed && c.Saw == "policies of "+commit[:7] {
				return s.Phase == report.Ready
			}
		}
		return false
	})
}

// token is what the OPAL client runs on.
func (d *distribution) token() string {
	d.t.Helper()
	id := d.running()["opal-client"]
	if id == "" {
		return ""
	}
	found, err := d.engine.ContainerInspect(d.t.Context(), id, client.ContainerInspectOptions{})
	if err != nil {
		return ""
	}
	for _, line := range found.Container.Config.Env {
		if value, ok := strings.CutPrefix(line, "OPAL_CLIENT_TOKEN="); ok {
			return value
		}
	}
	return ""
}

// newKey is an RSA key in PEM.
func newKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// TestPoliciesReachTheSpoke: what is committed is decided by at the spoke, by way of a real OPAL server and client, on tokens that
// are handed over sealed and renewed.
func TestPoliciesReachTheSpoke(t *testing.T) {
	t.Parallel()
	d := newDistribution(t)
	d.awaitPolicies(d.policies.Head("main"))
	first, opa := d.token(), d.running()["opa"]
	require.NotEmpty(t, first)

	t.Log("a policy commit")
	d.awaitPolicies(d.commit("true"))

	t.Log("an OPA that is started anew gets the policies again")
	_, err := d.engine.ContainerRestart(t.Context(), opa, client.ContainerRestartOptions{})
	require.NoError(t, err)
	d.awaitPolicies(d.policies.Head("main"))

	t.Log("the token is renewed: the OPAL client alone is made anew, and goes on")
	testbed.Eventually(t, 3*soon, "the client has another token", func() error {
		if token := d.token(); token == "" || token == first {
			return errNotYet
		}
		return nil
	})
	d.awaitPolicies(d.commit("false"))
	require.Equal(t, opa, d.running()["opa"])

	t.Log("another key of the OPAL server makes all tokens void, and all clients go on with new ones")
	hubStack := &small{Fleet: d.Fleet, t: t, project: d.hubProject, engine: d.engine}
	server := hubStack.running()["opal-server"]
	d.usa.Replace("usa", "OPAL_KEY", newKey(t))
	testbed.Eventually(t, 2*soon, "the server has another key", func() error {
		if id := hubStack.running()["opal-server"]; id == "" || id == server {
			return errNotYet
		}
		return nil
	})
	d.awaitPolicies(d.commit("true"))
	require.Equal(t, opa, d.running()["opa"])

	t.Log("no token is anywhere in the clear")
	for _, branch := range []string{"status/usa", "status/deu"} {
		out, err := d.Repo.Git("log", "-p", branch)
		require.NoError(t, err)
		require.NotContains(t, out, first)
	}
	require.NotContains(t, d.usa.Log()+d.deu.Log(), first)
}
