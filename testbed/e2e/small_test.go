// Package e2e tests the agent's real program as a whole: a real Git server, a real engine, and whatever goes wrong.
package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

func TestMain(m *testing.M) { agenttest.Main(m) }

const soon = 60 * time.Second

// small is a fleet of one instance with two services, whose password is a secret.
type small struct {
	*agenttest.Fleet
	t       *testing.T
	project string
	engine  *client.Client
}

const smallBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: small}
spec:
  role: spoke
  values:
    project: {required: true}
    image: %s
    label: first
    healthy: "true"
  secrets:
    PASSWORD: {generate: {length: 24}}
  components:
    stack:
      kind: ComposeStack
      project: ${project}
      healthTimeout: 20s
      environment:
        IMAGE: ${image}
        LABEL: ${label}
        HEALTHY: ${healthy}
        PASSWORD: ${PASSWORD}
`

const smallCompose = `services:
  store:
    image: ${IMAGE}
    environment: {REDISCLI_AUTH: "${PASSWORD}"}
    volumes: ["data:/data"]
    stop_grace_period: 1s
    healthcheck: {test: [CMD, "true"], interval: 500ms, timeout: 5s, retries: 3}
  front:
    image: ${IMAGE}
    environment: {LABEL: "${LABEL}"}
    stop_grace_period: 1s
    depends_on: {store: {condition: service_healthy}}
    healthcheck: {test: [CMD, "${HEALTHY}"], interval: 500ms, timeout: 5s, retries: 3}
volumes:
  data: {}
`

// newSmall makes the fleet; nothing is merged yet but the files are given to Merge by whoever begins.
func newSmall(t *testing.T) *small {
	s := &small{Fleet: agenttest.NewFleet(t), t: t, project: testbed.Prefix(t)}
	s.use(testbed.Engine(t))
	return s
}

// use cleans the project up in an engine after the test.
func (s *small) use(engine *client.Client) {
	s.engine = engine
	s.t.Cleanup(func() { removeProject(s.t, engine, s.project) })
}

// files are the whole fleet; values are more values of the instance, "key: value, ...".
func (s *small) files(values string) map[string]string {
	if values != "" {
		values = ", " + values
	}
	return map[string]string{
		"fleet.yaml":                      "apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec: {}\n",
		"hosts/host-01.yaml":              "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: host-01}\nspec: {}\n",
		"blueprints/small/blueprint.yaml": fmt.Sprintf(smallBlueprint, testbed.Image(s.t, testbed.Redis7)),
		"blueprints/small/compose.yaml":   smallCompose,
		"instances/one.yaml":              s.instance(values, ""),
	}
}

func (s *small) instance(values, more string) string {
	return fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: one}\nspec:\n  blueprint: small\n  host: host-01\n  values: {project: %s%s}\n%s", s.project, values, more)
}

// ready starts a host with the fleet and waits until the instance is Ready.
func (s *small) ready(o agenttest.HostOptions) (*agenttest.Host, string) {
	return s.readyWith(s.files(""), soon, o)
}

// readyWith is ready with another fleet, which may take longer.
func (s *small) readyWith(files map[string]string, limit time.Duration, o agenttest.HostOptions) (*agenttest.Host, string) {
	s.t.Helper()
	commit := s.Merge("Begin", files)
	h := agenttest.NewHost(s.t, s.Fleet, o)
	h.Start()
	h.AwaitPhase(limit, "one", report.Ready, commit)
	return h, commit
}

// running gives the running containers by service.
func (s *small) running() map[string]string {
	s.t.Helper()
	list, err := s.engine.ContainerList(s.t.Context(), client.ContainerListOptions{Filters: testbed.OfProject(s.project)})
	require.NoError(s.t, err)
	found := map[string]string{}
	for _, c := range list.Items {
		found[c.Labels["com.docker.compose.service"]] = c.ID
	}
	return found
}

// why joins what a status says, for searching in it.
func why(s *report.Status) string {
	texts := append(append([]string{s.News}, s.Why...), s.Next...)
	for _, c := range s.Conditions {
		if !c.Status {
			texts = append(texts, c.Type+" "+c.Reason+" "+c.Message)
		}
	}
	return strings.Join(texts, "\n")
}

func removeProject(t *testing.T, engine *client.Client, project string) {
	ctx := t.Context()
	if ctx.Err() != nil {
		var cancel func()
		ctx, cancel = cleanupContext()
		defer cancel()
	}
	if err := testbed.RemoveProject(ctx, engine, project); err != nil {
		t.Errorf("clean up: %v", err)
	}
}
