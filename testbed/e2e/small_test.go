// Package e2e tests the agent's real program as a whole: a real Git server, a real engine, and whatever goes wrong.
package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/report"
	"dive-agent/secrets"
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
	engine := testbed.Engine(t)
	s := &small{Fleet: agenttest.NewFleet(t), t: t, project: testbed.Prefix(t), engine: engine}
	t.Cleanup(func() { removeProject(t, engine, s.project) })
	return s
}

// ownEngine has the fleet run on an engine of the test's own, which has an image.
func (s *small) ownEngine(image testbed.ImageName) *testbed.PrivateEngine {
	s.t.Helper()
	private := testbed.NewPrivateEngine(s.t)
	private.Load(image)
	s.engine = private.Client()
	return private
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

// edited are the files of a fleet with other texts in one of them, in which the former ones have to stand.
func edited(t *testing.T, files map[string]string, name string, formerAndNext ...string) map[string]string {
	t.Helper()
	for i := 0; i < len(formerAndNext); i += 2 {
		require.Contains(t, files[name], formerAndNext[i])
	}
	files = maps.Clone(files)
	files[name] = strings.NewReplacer(formerAndNext...).Replace(files[name])
	return files
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

// containers gives the running containers by service.
func (s *small) containers() map[string]container.Summary {
	s.t.Helper()
	found, err := testbed.Running(s.t.Context(), s.engine, s.project)
	require.NoError(s.t, err)
	return found
}

// running gives the ids of the running containers by service.
func (s *small) running() map[string]string {
	s.t.Helper()
	found := map[string]string{}
	for service, c := range s.containers() {
		found[service] = c.ID
	}
	return found
}

// secretsOf is the folder of the instance's secrets.
func secretsOf(h *agenttest.Host) string {
	return filepath.Join(h.Dir, "state", "instances", "one", "secrets")
}

// valueOf is the file with a secret's value.
func valueOf(h *agenttest.Host, name string) string {
	return filepath.Join(secretsOf(h), ".store", "values", name)
}

// formerOf is the file with a secret's former value, as long as it is rotated.
func formerOf(h *agenttest.Host, name string) string {
	return filepath.Join(secretsOf(h), ".store", "former", name)
}

func secretOf(t *testing.T, h *agenttest.Host, name string) string {
	t.Helper()
	value, err := storedValue(h, name)
	require.NoError(t, err)
	return value
}

// storeOf is the instance's store, as the host's agent opens it.
func storeOf(h *agenttest.Host, now func() time.Time) secrets.Options {
	return storeFor(h, "one", now)
}

// storeFor is the store of any instance.
func storeFor(h *agenttest.Host, instance string, now func() time.Time) secrets.Options {
	key := secrets.NewHostKey(secrets.HostKeyOptions{File: filepath.Join(h.Dir, "state", "secrets.key"), Random: rand.Reader})
	dir := filepath.Join(h.Dir, "state", "instances", instance, "secrets")
	return secrets.Options{Instance: instance, Dir: dir, Random: rand.Reader, Now: now, Keys: key}
}

// storedValue opens a secret's value. The error is an fs.ErrNotExist when there is none.
func storedValue(h *agenttest.Host, name string) (string, error) {
	if _, err := os.Stat(valueOf(h, name)); err != nil {
		return "", err
	}
	values, missing, err := secrets.Peek(storeOf(h, time.Now), []desired.SecretSpec{{Name: name, Provide: true}})
	if err != nil || len(missing) > 0 {
		return "", errors.Join(err, missing)
	}
	return values[name].Text(), nil
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(data)
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

func cleanupContext() (context.Context, func()) {
	return context.WithTimeout(context.Background(), time.Minute)
}

func removeProject(t *testing.T, engine *client.Client, project string) {
	ctx, cancel := cleanupContext()
	defer cancel()
	if err := testbed.RemoveProject(ctx, engine, project); err != nil {
		t.Errorf("clean up: %v", err)
	}
}
