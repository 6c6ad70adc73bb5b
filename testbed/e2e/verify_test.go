package e2e

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

// smallChecks are three checks of the small instance: one at its turns, one with each look, one that only warns.
const smallChecks = `
    checks:
      kind: Verification
      within: 0s
      checks:
        - {name: scheduled, schedule: "0 0 1 1 *", http: {url: %q}}
        - {name: store, tcp: {service: store, port: 6379}}
        - {name: away, severity: warn, tcp: {address: "127.0.0.1:1"}}
`

// verified is what the command tells of an instance, as programs read it.
type verified struct {
	Instance string
	Checks   []report.Check
}

// TestVerify: checks by hand, from the running agent and without one; a schedule, a run after each change, severities, JUnit.
func TestVerify(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	var ill atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if ill.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "a-text-nobody-may-see")
		}
	}))
	t.Cleanup(server.Close)
	s := newSmall(t)
	files := func(values string) map[string]string {
		all := s.files(values)
		all["blueprints/small/blueprint.yaml"] += strings.TrimPrefix(fmt.Sprintf(smallChecks, server.URL), "\n")
		return all
	}
	h, _ := s.readyWith(files(""), soon, agenttest.HostOptions{})
	require.Positive(t, asked.Load(), "made for the first time")

	looks := checkOf(t, h, "store").At
	before := asked.Load()
	h.Await(soon, "one", "is looked at again", func(*report.Status) bool { return checkOf(t, h, "store").At.After(looks.Add(3 * time.Second)) })
	require.Equal(t, before, asked.Load(), "its turn has not come, and nothing was changed")
	require.False(t, checkOf(t, h, "scheduled").Next.IsZero())

	file := filepath.Join(t.TempDir(), "checks.xml")
	text := h.Do("verify", "one", "--junit", file)
	require.Contains(t, text, "one  3 checks: 2 passed, 1 warning")
	require.Contains(t, text, "! away ")
	require.Greater(t, asked.Load(), before, "somebody asked")
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	var junit struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Skipped  int `xml:"skipped,attr"`
	}
	require.NoError(t, xml.Unmarshal(content, &junit), "%s", content)
	require.Equal(t, [3]int{3, 0, 1}, [3]int{junit.Tests, junit.Failures, junit.Skipped})

	before = asked.Load()
	next := s.Merge("Another label", files("label: second"))
	h.AwaitPhase(soon, "one", report.Ready, next)
	require.Greater(t, asked.Load(), before, "a change was made")

	ill.Store(true)
	fails(t, h)
	status := h.AwaitPhase(soon, "one", report.Degraded, next)
	require.Contains(t, why(status), "scheduled: status 503, expected 200 (22 bytes of text/plain)")
	since := checkOf(t, h, "scheduled").Since
	require.NotContains(t, h.Do("status", "one", "--output", "json"), "nobody-may-see")
	ill.Store(false)
	h.AwaitPhase(soon, "one", report.Ready, next)
	require.True(t, checkOf(t, h, "scheduled").Since.After(since), "it passes since it was well again")

	_, err = h.Try("verify", "two")
	require.ErrorContains(t, err, `no instance "two" on this host (has: one)`)
	h.Do("suspend", "one")
	text, err = h.Try("verify", "one")
	require.ErrorContains(t, err, "exit status 1")
	require.Contains(t, text, "no check was made")
	h.Do("resume", "one")

	h.Stop()
	before = asked.Load()
	require.Contains(t, h.Do("verify"), "one  3 checks: 2 passed, 1 warning")
	require.Equal(t, before+1, asked.Load(), "made by the command itself")
	ill.Store(true)
	fails(t, h)
	ill.Store(false)
	_, err = h.Try("verify", "two")
	require.ErrorContains(t, err, `no instance "two" on this host (has: one)`)
}

// fails makes the checks by hand while one of severity fail fails.
func fails(t *testing.T, h *agenttest.Host) {
	t.Helper()
	out, err := h.Try("verify", "one", "--output", "json")
	require.ErrorContains(t, err, "exit status 1")
	var all []verified
	require.NoError(t, json.Unmarshal([]byte(out), &all), out)
	require.Len(t, all, 1)
	require.Len(t, all[0].Checks, 3)
	check := all[0].Checks[0]
	require.Equal(t, "scheduled", check.Name)
	require.Equal(t, "checks", check.Component)
	require.False(t, check.Passed)
	require.Equal(t, int64(503), check.Counts["status"])
	require.WithinDuration(t, time.Now(), check.At, time.Minute)
}

// checkOf is a check as the status has it.
func checkOf(t *testing.T, h *agenttest.Host, name string) (found report.Check) {
	t.Helper()
	testbed.Eventually(t, soon, "check "+name+" in the status", func() error {
		status, err := h.Status("one")
		if err != nil {
			return err
		}
		for _, c := range status.Checks {
			if c.Name == name {
				found = c
				return nil
			}
		}
		return errNotYet
	})
	return found
}
