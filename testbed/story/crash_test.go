package story

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed/agenttest"
)

func TestMain(m *testing.M) { agenttest.Main(m) }

// TestKilledAtEveryChangeOfASpoke kills before and after every change, one kill at each place; of Terraform's some ninety
// resources, at a few (make soak takes all of them).
func TestKilledAtEveryChangeOfASpoke(t *testing.T) {
	walk(t, 25*time.Minute, func(ctx context.Context, w *world) {
		kills := w.killEverywhere(ctx, t, 60)
		t.Logf("killed %d times", kills)
		require.Greater(t, kills, 30, "too few places for a whole spoke")
	})
}

// walk brings up two spokes beside one hub, the second one under the hands of kill, which starts and kills its agent as it
// likes and leaves it running. Both spokes end in the same state; people sign in across, one spoke leaves, and no secret of any
// of them is anywhere it must not be.
func walk(t *testing.T, limit time.Duration, kill func(context.Context, *world)) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	w := newWorld(Options{Agent: agenttest.Binary(t, "failpoint"), Dir: shortDir(t)})
	t.Cleanup(func() {
		if t.Failed() {
			w.lastWords()
		}
		ending, done := context.WithTimeout(context.Background(), 2*time.Minute)
		defer done()
		require.NoError(t, w.remove(ending))
	})
	require.NoError(t, w.setUp(ctx))
	require.NoError(t, w.hub(ctx))
	require.NoError(t, w.enroll(ctx, "fra-01"))
	for _, spoke := range [][2]string{{"DEU", "Germany"}, {"FRA", "France"}} {
		_, err := w.agent(ctx, "deu-01", "new", "spoke", spoke[0], spoke[1])
		require.NoError(t, err)
	}
	require.NoError(t, w.branch(ctx, "add-both"))
	require.NoError(t, w.merge(ctx, "add-both", "Add spokes DEU and FRA"))

	kill(ctx, w)
	fra, err := w.awaitPhase(ctx, "fra-01", "fra", report.Ready, 5*time.Minute)
	require.NoError(t, err)
	deu, err := w.awaitPhase(ctx, "deu-01", "deu", report.Ready, 3*time.Minute)
	require.NoError(t, err)
	require.JSONEq(t, w.essence(ctx, t, deu, "dive-spoke-deu"), w.essence(ctx, t, fra, "dive-spoke-fra"))
	t.Run("people sign in at the other side", func(t *testing.T) { require.NoError(t, w.signIns(ctx)) })
	t.Run("a spoke leaves", func(t *testing.T) {
		_, err := w.awaitPhase(ctx, "usa-01", "usa", report.Ready, 3*time.Minute) // or its plan changes while it waits for approval
		require.NoError(t, err)
		require.NoError(t, w.leave(ctx))
	})
	require.NoError(t, w.leaks(ctx))
}

// killEverywhere runs the agent of fra-01 again and again until it gets through without being killed; it gives how often it
// was. Of the realm's changes one in sparse counts.
func (w *world) killEverywhere(ctx context.Context, t *testing.T, sparse int) int {
	w.env = agenttest.Failpoints{File: w.path("failpoints"), Sparse: fmt.Sprintf("identity=%d", sparse)}.Env()
	defer func() { w.env = nil }()
	return agenttest.UntilThrough(t, 6*time.Minute, func() <-chan struct{} {
		require.NoError(t, w.startAgent("fra-01"))
		return w.processes["fra-01"].done
	}, func() error {
		s, err := w.status(ctx, "fra-01", "fra")
		if err == nil && (s.Phase != report.Ready || s.Applied == "") {
			err = fmt.Errorf("it is %s: %s", s.Phase, s.News)
		}
		return err
	})
}

// essence is what two spokes that were brought up from the same blueprint have in common.
func (w *world) essence(ctx context.Context, t *testing.T, s *report.Status, project string) string {
	type service struct{ Name, State, Health, Image, Digest string }
	e := struct {
		Components map[string]string
		Services   []service
		Members    []report.Member
		Checks     []report.Check
		Containers []string
		Volumes    int
		Networks   int
	}{Components: map[string]string{}, Members: slices.Clone(s.Members)}
	for i := range e.Members {
		e.Members[i].Started, e.Members[i].Lag = time.Time{}, 0
	}
	for _, c := range s.Components {
		if c.Kind == "SpokeRegistration" || c.Kind == "Certificate" {
			c.Summary = "" // has the token's expiry, or the certificate's
		}
		e.Components[c.Name] = c.State + " " + c.Summary
	}
	for _, v := range s.Services {
		e.Services = append(e.Services, service{v.Name, v.State, v.Health, v.Image, v.Digest})
	}
	for _, c := range s.Checks {
		e.Checks = append(e.Checks, report.Check{Component: c.Component, Name: c.Name, Severity: c.Severity, Passed: c.Passed})
	}
	filters := client.Filters{}.Add("label", "com.docker.compose.project="+project)
	containers, err := w.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	require.NoError(t, err)
	for _, c := range containers.Items {
		e.Containers = append(e.Containers, strings.TrimPrefix(c.Names[0], "/"))
	}
	volumes, err := w.engine.VolumeList(ctx, client.VolumeListOptions{Filters: filters})
	require.NoError(t, err)
	networks, err := w.engine.NetworkList(ctx, client.NetworkListOptions{Filters: filters})
	require.NoError(t, err)
	e.Volumes, e.Networks = len(volumes.Items), len(networks.Items)
	slices.Sort(e.Containers)
	text, err := json.Marshal(e)
	require.NoError(t, err)
	return strings.ReplaceAll(strings.ReplaceAll(string(text), "fra", "deu"), "FRA", "DEU")
}

// shortDir is a folder with a short path: sockets lie below it.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "story-")
	require.NoError(t, err)
	return fmt.Sprintf("%s/w", dir)
}
