package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/federation"
	"dive-agent/testbed/pki"
)

// callers are a hub with its stack, and a spoke whose backend is asked 100 times a second for what its token has to be good for.
type callers struct {
	*agenttest.Fleet
	t        *testing.T
	engine   *client.Client
	usa, deu *agenttest.Host
	project  string // of the spoke
}

// newCallers merges both; the hub's tokens live as long.
func newCallers(t *testing.T, tokenLife time.Duration) *callers {
	t.Helper()
	c := &callers{Fleet: agenttest.NewFleet(t), t: t, engine: testbed.Engine(t), project: testbed.Prefix(t) + "-deu"}
	hubProject := testbed.Prefix(t) + "-usa"
	t.Cleanup(func() {
		for _, project := range []string{hubProject, c.project} {
			removeProject(t, c.engine, project)
		}
	})
	c.usa = agenttest.NewHost(t, c.Fleet, agenttest.HostOptions{Name: "usa-01"})
	c.deu = agenttest.NewHost(t, c.Fleet, agenttest.HostOptions{Name: "deu-01"})
	ca, err := pki.New("hub")
	require.NoError(t, err)
	certificate, key, err := ca.Issue("localhost", "host.docker.internal")
	require.NoError(t, err)
	port := testbed.FreePort(t)
	images := fmt.Sprintf("mongoImage: %q, backendImage: %q", testbed.Image(t, testbed.Mongod605), testbed.Pinned(t, testbed.Services))
	head := "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: %s}\nspec:\n  blueprint: %s\n  host: %[1]s-01\n  values: {code: %[3]s, %[4]s, %[5]s}\n"
	files := map[string]string{
		"fleet.yaml": fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec:\n  hub: {instance: usa, url: \"https://localhost:%d\", caFile: ca.pem}\n", port),
		"ca.pem":     string(ca.PEM()), "hosts/usa-01.yaml": c.usa.Do("enroll"), "hosts/deu-01.yaml": c.deu.Do("enroll"),
		"instances/usa.yaml": fmt.Sprintf(head, "usa", "small-hub", "USA", images, fmt.Sprintf("project: %s, portOffset: %d, tokenLife: %s", hubProject, port-4000, tokenLife)),
		"instances/deu.yaml": fmt.Sprintf(head, "deu", "caller", "DEU", images, fmt.Sprintf("country: Germany, project: %s, clientImage: %q, hubURL: \"https://host.docker.internal:%d\"",
			c.project, testbed.Image(t, testbed.Base), port)),
	}
	federation.AddHub(files)
	federation.AddCaller(files, string(ca.PEM()), testbed.LoadClient)
	c.Merge("Hub and spoke", files)
	c.usa.Provide("usa", "HUB_TLS_CERT", string(certificate))
	c.usa.Provide("usa", "HUB_TLS_KEY", string(key))
	return c
}

// TestATokenRotatesUnderLoad: the hub's agent mints the next token when two thirds of the life of the one in use are over and
// seals it to the spoke's host; the spoke's agent has the backend take it over start-first. Of the requests that the backend can
// only answer with a good token none is refused. TestSoakATokenEndsUnderLoad has tokens that do end.
func TestATokenRotatesUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCallers(t, 24*time.Hour)
	c.usa.Start()
	c.deu.Start()
	c.deu.AwaitPhase(3*soon, "deu", report.Ready, "")
	first, end := c.serves()
	require.False(t, end.IsZero())
	c.age()
	c.awaitNext(3*soon, first, end)
	c.counts(100)
}

// age has the hub's agent find that it handed the token over days ago, so that two thirds of its life are over.
func (c *callers) age() {
	c.t.Helper()
	var tokens map[string]map[string]any
	file := filepath.Join(c.usa.Dir, "state", "instances", "usa", "components", "federation", "tokens.json")
	testbed.Eventually(c.t, soon, "the hub's agent hands a token over", func() error {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &tokens)
	})
	c.usa.Stop()
	require.Len(c.t, tokens, 1)
	for _, token := range tokens {
		since, err := time.Parse(time.RFC3339, token["since"].(string))
		require.NoError(c.t, err)
		token["since"] = since.Add(-72 * time.Hour).Format(time.RFC3339)
	}
	text, err := json.Marshal(tokens)
	require.NoError(c.t, err)
	require.NoError(c.t, os.WriteFile(file, text, 0o600))
	c.usa.Start()
}

// awaitNext waits until another container serves with a token that ends later.
func (c *callers) awaitNext(limit time.Duration, first string, end time.Time) {
	c.t.Helper()
	testbed.Eventually(c.t, limit, "another container with another token serves", func() error {
		if now, later := c.serves(); now == "" || now == first || !later.After(end) {
			return errNotYet
		}
		return nil
	})
	c.deu.AwaitPhase(soon, "deu", report.Ready, "") // the container before it has ended
}

// counts ends the client: none of its requests, of which there are more than so many, was lost, and two tokens answered.
func (c *callers) counts(least int) {
	c.t.Helper()
	c.deu.Stop() // it would start the client again
	counted, err := testbed.CountRequests(c.t.Context(), c.engine, c.project+"-client-1")
	require.NoError(c.t, err)
	c.t.Log(counted.Said)
	require.Greater(c.t, counted.Sent, least)
	require.Zero(c.t, counted.Barred, counted.Said)
	require.Zero(c.t, counted.Lost, counted.Said)
	require.GreaterOrEqual(c.t, strings.Count(counted.Said, "': "), 2, "with one token and with another: %s", counted.Said)
}

// serves gives the backend's container, and when the token ends that the spoke has.
func (c *callers) serves() (id string, end time.Time) {
	c.t.Helper()
	found, err := testbed.Running(c.t.Context(), c.engine, c.project)
	require.NoError(c.t, err)
	s, err := c.deu.Status("deu")
	require.NoError(c.t, err)
	return found["backend"].ID, federation.TokenEnd(s)
}
