package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

// metric reads one sample from what the listener serves; -1 when it is not there.
func metric(t *testing.T, address, name string) float64 {
	t.Helper()
	response, err := http.Get("http://" + address + "/metrics")
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindSubmatch(body)
	if found == nil {
		return -1
	}
	value, err := strconv.ParseFloat(string(found[1]), 64)
	require.NoError(t, err)
	return value
}

// TestEveryMetricTellsWhenWhatItMeasuresBreaks.
func TestEveryMetricTellsWhenWhatItMeasuresBreaks(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	address := fmt.Sprintf("127.0.0.1:%d", testbed.FreePort(t))
	h, _ := s.ready(agenttest.HostOptions{More: "listen: {address: \"" + address + "\"}\n"})
	becomes := func(name string, ok func(float64) bool) {
		t.Helper()
		testbed.Eventually(t, soon, name, func() error {
			if value := metric(t, address, name); !ok(value) {
				return fmt.Errorf("it is %v", value)
			}
			return nil
		})
	}
	is := func(want float64) func(float64) bool { return func(v float64) bool { return v == want } }
	above := func(floor float64) func(float64) bool { return func(v float64) bool { return v > floor } }

	becomes("dive_agent_source_followed", is(1))
	becomes("dive_agent_source_answered_timestamp_seconds", above(1e9))
	becomes("dive_agent_revision_accepted", is(1))
	becomes(`dive_agent_instance_phase{instance="one",phase="Ready"}`, is(1))
	becomes(`dive_agent_node_ready{instance="one",node="stack/front"}`, is(1))
	becomes(`dive_agent_outbox_entries{kind="status",state="pending"}`, is(0))
	changes := metric(t, address, `dive_agent_changes_total{instance="one",outcome="done"}`)
	rounds := metric(t, address, `dive_agent_rounds_total{instance="one",outcome="done"}`)
	count := metric(t, address, `dive_agent_round_duration_seconds_count{instance="one"}`)
	require.Positive(t, changes)
	require.Positive(t, rounds)

	removeContainer(t, s, s.running()["front"])
	becomes(`dive_agent_changes_total{instance="one",outcome="done"}`, above(changes))
	becomes(`dive_agent_rounds_total{instance="one",outcome="done"}`, above(rounds))
	becomes(`dive_agent_round_duration_seconds_count{instance="one"}`, above(count))
	becomes(`dive_agent_look_duration_seconds_count{instance="one",node="stack/front"}`, above(count))

	s.Merge("Break it", map[string]string{"instances/one.yaml": "kind: [\n"})
	becomes("dive_agent_revision_accepted", is(0))
	s.Merge("Never healthy", s.files(`healthy: "false"`))
	becomes("dive_agent_revision_accepted", is(1))
	becomes(`dive_agent_instance_phase{instance="one",phase="Degraded"}`, is(1))
	becomes(`dive_agent_instance_phase{instance="one",phase="Ready"}`, is(0))
	becomes(`dive_agent_rounds_total{instance="one",outcome="failed"}`, above(0))

	s.Server.Stop()
	becomes("dive_agent_source_followed", is(0))
	h.Do("suspend", "one")
	becomes(`dive_agent_outbox_entries{kind="status",state="pending"}`, is(1))
	require.NoError(t, s.Server.Up())
	becomes(`dive_agent_outbox_entries{kind="status",state="pending"}`, is(0))
	becomes("dive_agent_source_followed", is(1))
}

// TestAPushWebhookOnlyWakesThePoll: with it a revision is seen at once, a forged one does nothing.
func TestAPushWebhookOnlyWakesThePoll(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	address := fmt.Sprintf("127.0.0.1:%d", testbed.FreePort(t))
	secret := filepath.Join(t.TempDir(), "hook-secret")
	require.NoError(t, os.WriteFile(secret, []byte("a secret of enough bytes\n"), 0o600))
	s.Merge("Begin", s.files(""))
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{
		Interval: "1h", More: "listen: {address: \"" + address + "\", hookSecretFile: " + secret + "}\n",
	})
	h.Start()
	h.AwaitPhase(soon, "one", report.Ready, "")
	commit := s.Merge("A change", s.files("label: second"))
	post := func(key string) int {
		body := []byte(`{"ref":"refs/heads/other","after":"decides nothing"}`)
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write(body)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/hooks/generic", bytes.NewReader(body))
		require.NoError(t, err)
		request.Header.Set("X-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		_ = response.Body.Close()
		return response.StatusCode
	}
	polls := func() (n int) {
		for _, r := range s.Server.Requests() {
			if r.Service == "git-upload-pack" { // and no push of a status
				n++
			}
		}
		return n
	}
	before := polls()
	require.Equal(t, http.StatusUnauthorized, post("another secret of some bytes"))
	response, err := http.Get("http://" + address + "/healthz")
	require.NoError(t, err)
	_ = response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, before, polls(), "a forged webhook woke the poll")
	require.Equal(t, http.StatusAccepted, post("a secret of enough bytes"))
	h.AwaitPhase(soon, "one", report.Ready, commit)
	require.False(t, strings.Contains(h.Log(), "a secret of enough bytes"))
}
