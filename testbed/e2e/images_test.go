package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

const pulledCompose = `services:
  store: {image: "${STORE}", stop_grace_period: 1s, healthcheck: {test: [CMD, /pulled, "true"], interval: 500ms}}
  front: {image: "${IMAGE}", stop_grace_period: 1s, healthcheck: {test: [CMD, /pulled, "true"], interval: 500ms}}
`

// TestImagesThatDoNotCome: with images of a private registry, whose account is the host's own. One that the registry does not have is asked
// for once; one of a registry that is away comes when it is back; what runs is kept running meanwhile.
func TestImagesThatDoNotCome(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	registry := testbed.NewRegistry(t, testbed.RegistryOptions{User: "host", Password: "hunter-e2e"})
	t.Cleanup(func() {
		removeProject(t, s.engine, s.project)
		for _, name := range []string{"app:1", "app:2", "store:1"} {
			_, _ = s.engine.ImageRemove(context.WithoutCancel(t.Context()), registry.Image(name), client.ImageRemoveOptions{})
		}
	})
	for _, name := range []string{"app:1", "app:2", "store:1"} {
		registry.Push(testbed.Pushed{Name: name, Labels: map[string]string{"is": name}})
	}
	config := filepath.Join(t.TempDir(), "docker.json")
	auth := base64.StdEncoding.EncodeToString([]byte("host:hunter-e2e"))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `{"auths": {%q: {"auth": %q}}}`, registry.Address, auth), 0o600))
	with := func(image string) map[string]string {
		files := s.files("image: " + registry.Image(image))
		files["blueprints/small/compose.yaml"] = pulledCompose
		return edited(t, files, "blueprints/small/blueprint.yaml",
			"        LABEL: ${label}\n        HEALTHY: ${healthy}\n        PASSWORD: ${PASSWORD}\n", "        STORE: "+registry.Image("store:1")+"\n")
	}
	h, first := s.readyWith(with("app:1"), soon, agenttest.HostOptions{More: "dockerConfig: " + config})
	before := s.running()

	s.Merge("An image that is not there", with("app:9"))
	status := h.Await(soon, "one", "tells that it is not there", func(st *report.Status) bool {
		return strings.Contains(why(st), "registry "+registry.Address+" does not have it")
	})
	require.Equal(t, first, status.Applied)
	tries := registry.Asked()["GET manifests"] + registry.Asked()["HEAD manifests"]
	for range 2 { // rounds go on, by the revision that works
		s.removes("front")
		h.Await(soon, "one", "mends what is killed meanwhile", func(*report.Status) bool { return s.running()["front"] != "" })
	}
	require.Equal(t, tries, registry.Asked()["GET manifests"]+registry.Asked()["HEAD manifests"], "it is asked for once, not at each round")
	require.Equal(t, before["store"], s.running()["store"])

	registry.Close()
	second := s.Merge("An image of a registry that is away", with("app:2"))
	h.Await(soon, "one", "tells that the registry is away", func(st *report.Status) bool {
		return strings.Contains(why(st), "the registry "+registry.Address+" does not answer")
	})
	require.Equal(t, before["store"], s.running()["store"])
	s.removes("front")
	h.Await(soon, "one", "mends what is killed while the registry is away", func(*report.Status) bool { return s.running()["front"] != "" })
	h.Await(soon, "one", "is told to be so again", func(st *report.Status) bool { return st.Phase == report.Degraded })
	tried := func() {
		asked := strings.Count(h.Log(), "still does not answer")
		h.Await(2*soon, "one", "is looked at again and again", func(*report.Status) bool {
			return strings.Count(h.Log(), "still does not answer") > asked+1
		})
	}
	tried() // what is told of it now is told by then
	commits := s.commits()
	tried()
	require.Equal(t, commits, s.commits(), "it is told once, not at each try")
	registry.Open()
	h.AwaitPhase(2*soon, "one", report.Ready, second)
	require.Equal(t, before["store"], s.running()["store"])
	require.NotContains(t, h.Log(), "hunter-e2e")
}

// commits counts what was reported of the instance.
func (s *small) commits() string {
	s.t.Helper()
	count, err := s.Repo.Git("rev-list", "--count", "status/one")
	require.NoError(s.t, err)
	return count
}

// removes takes a service's container away by hand.
func (s *small) removes(service string) {
	s.t.Helper()
	_, err := s.engine.ContainerRemove(s.t.Context(), s.running()[service], client.ContainerRemoveOptions{Force: true})
	require.NoError(s.t, err)
}
