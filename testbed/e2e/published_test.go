package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

// crossing is a fleet of two hosts: usa publishes what its registration gives, deu has a container that uses it.
type crossing struct {
	*small
	hub        *hubtest.Server
	usa, deu   *agenttest.Host
	enrolments map[string]string
}

const (
	spokeID = "${instances.usa.registration.spoke_id}"
	token   = "${instances.usa.registration.token}"
)

func newCrossing(t *testing.T) *crossing {
	t.Helper()
	c := &crossing{small: newSmall(t), enrolments: map[string]string{}}
	c.hub = hubtest.StartWithStore(t, hub.NewMemoryStore(time.Now), hub.Config{AutoApprove: true})
	for name, host := range map[string]**agenttest.Host{"usa-01": &c.usa, "deu-01": &c.deu} {
		*host = agenttest.NewHost(t, c.Fleet, agenttest.HostOptions{Name: name})
		c.enrolments["hosts/"+name+".yaml"] = (*host).Do("enroll")
	}
	return c
}

// files are the fleet; uses is what deu's container gets as USES.
func (c *crossing) files(uses string) map[string]string {
	files := map[string]string{
		"fleet.yaml": "apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec: {}\n",
		"instances/usa/instance.yaml": fmt.Sprintf(`apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: usa}
spec:
  role: spoke
  host: usa-01
  components:
    registration:
      kind: SpokeRegistration
      hub: {url: %q, caFile: hub.pem}
      urls: {base: "https://usa.test", api: "https://usa.test", idp: "https://usa.test"}
      contactEmail: usa@usa.test
      requestedScopes: ["policy:base"]
      skipValidation: true
      publish: [spoke_id, token]
`, c.hub.URL),
		"instances/usa/hub.pem": string(c.hub.CA.PEM()),
		"instances/deu/instance.yaml": fmt.Sprintf(`apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: deu}
spec:
  role: spoke
  host: deu-01
  components:
    stack:
      kind: ComposeStack
      project: %s
      environment: {IMAGE: %q, USES: %q}
`, c.project, testbed.Image(c.t, testbed.Redis7), uses),
		"instances/deu/compose.yaml": `services:
  reader:
    image: ${IMAGE}
    environment: {USES: "${USES}"}
    stop_grace_period: 1s
  other:
    image: ${IMAGE}
    stop_grace_period: 1s
`,
	}
	for name, text := range c.enrolments {
		files[name] = text
	}
	return files
}

// uses is what the running container has.
func (c *crossing) uses() string {
	c.t.Helper()
	id := c.running()["reader"]
	if id == "" {
		return ""
	}
	found, err := c.engine.ContainerInspect(c.t.Context(), id, client.ContainerInspectOptions{})
	require.NoError(c.t, err)
	for _, line := range found.Container.Config.Env {
		if value, ok := strings.CutPrefix(line, "USES="); ok {
			return value
		}
	}
	return ""
}

// ask calls the hub as its administrator.
func (c *crossing) ask(method, path string, into any) {
	c.t.Helper()
	request, err := http.NewRequestWithContext(c.t.Context(), method, c.hub.URL+"/api/federation"+path, strings.NewReader(`{"reason": "test"}`))
	require.NoError(c.t, err)
	request.Header.Set("X-Admin-Key", hubtest.AdminKey)
	request.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.hub.CA.Pool()}}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	require.NoError(c.t, err)
	defer answer.Body.Close()
	require.Less(c.t, answer.StatusCode, 300, path)
	if into != nil {
		require.NoError(c.t, json.NewDecoder(answer.Body).Decode(into))
	}
}

// renew has the hub give usa another token.
func (c *crossing) renew(id string) {
	c.t.Helper()
	c.ask("POST", "/spokes/"+id+"/suspend", nil)
	c.ask("POST", "/spokes/"+id+"/unsuspend", nil)
}

func (c *crossing) git(args ...string) string {
	c.t.Helper()
	out, err := c.Repo.Git(args...)
	require.NoError(c.t, err)
	return out
}

// awaitImports waits until deu's condition about what it imports has a reason; empty: until it holds.
func (c *crossing) awaitImports(reason string) report.Condition {
	c.t.Helper()
	var found report.Condition
	c.deu.Await(2*soon, "deu", "has ImportsVerified "+reason, func(s *report.Status) bool {
		for _, one := range s.Conditions {
			if one.Type == "ImportsVerified" && one.Reason == reason && one.Status == (reason == "") {
				found = one
				return true
			}
		}
		return false
	})
	return found
}

// TestValuesCrossHosts: two agents meet in Git alone. What one publishes reaches the other, plain and sealed; what somebody else
// puts in its place does not.
func TestValuesCrossHosts(t *testing.T) {
	t.Parallel()
	c := newCrossing(t)
	c.Merge("Begin", c.files(spokeID+" "+token))
	c.deu.Start()
	status := c.deu.Await(2*soon, "deu", "waits by name", func(s *report.Status) bool { return strings.Contains(why(s), "usa has not published it yet") })
	require.Contains(t, why(status), "stack/reader waits for instances.usa.registration.spoke_id, instances.usa.registration.token")
	testbed.Eventually(t, soon, "nothing else waits", func() error {
		if c.running()["other"] == "" {
			return errNotYet
		}
		return nil
	})
	require.Empty(t, c.running()["reader"])

	c.usa.Start()
	c.deu.AwaitPhase(2*soon, "deu", report.Ready, "")
	other := c.running()["other"]
	id, first, _ := strings.Cut(c.uses(), " ")
	require.NotEmpty(t, first)
	document := c.git("show", "status/usa:outputs.yaml")
	require.Contains(t, document, "value: "+id)
	require.Contains(t, document, "BEGIN AGE ENCRYPTED FILE")
	for _, branch := range []string{"status/usa", "status/deu"} {
		require.NotContains(t, c.git("log", "-p", branch), first, "the secret leaves its host sealed alone")
	}
	require.NotContains(t, c.usa.Log()+c.deu.Log(), first)

	t.Log("another value reaches the consumer, and it alone")
	old := c.git("rev-parse", "status/usa")
	c.renew(id)
	testbed.Eventually(t, 2*soon, "the container has the new token", func() error {
		if uses := c.uses(); uses == "" || uses == id+" "+first {
			return errNotYet
		}
		return nil
	})
	c.deu.AwaitPhase(2*soon, "deu", report.Ready, "")
	require.Equal(t, other, c.running()["other"])
	second := c.uses()

	t.Log("an old signed status is put back, then somebody without the key of the host writes one")
	c.usa.Stop() // its next status would take their place
	newest := c.git("rev-parse", "status/usa")
	before := c.running()
	c.git("update-ref", "refs/heads/status/usa", old)
	require.Contains(t, c.awaitImports("Replayed").Message, "somebody put an old status back")
	c.git("update-ref", "refs/heads/status/usa", newest)
	c.awaitImports("")
	c.Repo.Commit(t, "status/usa", "usa: Ready", map[string]string{
		"outputs.yaml": strings.ReplaceAll(c.git("show", "status/usa:outputs.yaml"), "value: "+id, "value: stranger"),
	})
	require.Contains(t, c.awaitImports("NotSigned").Message, "it is not signed")
	require.Equal(t, before, c.running())
	require.Equal(t, second, c.uses())

	t.Log("with Git away a restart keeps what was read")
	c.Server.Stop()
	c.deu.Stop()
	c.deu.Start()
	c.deu.Await(2*soon, "deu", "misses Git and is Ready", func(s *report.Status) bool {
		return s.Phase == report.Ready && strings.Contains(why(s), "SourceFollowed GitUnreachable")
	})
	require.Equal(t, before, c.running())
	require.Equal(t, second, c.uses())
	require.NoError(t, c.Server.Up())

	t.Log("the true status counts again, and who reads no more gets nothing new")
	c.Merge("Deu needs the token no more", c.files(spokeID))
	c.usa.Start()
	testbed.Eventually(t, 2*soon, "the token is published no more", func() error {
		if strings.Contains(c.git("show", "status/usa:outputs.yaml"), "AGE") {
			return errNotYet
		}
		return nil
	})
	c.awaitImports("")
	testbed.Eventually(t, 2*soon, "the container has the plain value alone", func() error {
		if c.uses() != id {
			return errNotYet
		}
		return nil
	})
}
