package verify_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/testbed"
)

// counted is a server that counts how often it is asked.
type counted struct {
	address string
	asked   atomic.Int64
	ill     atomic.Bool
}

func newCounted(t *testing.T) *counted {
	c := &counted{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c.asked.Add(1)
		if c.ill.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	c.address = server.URL
	return c
}

// TestScheduledChecks: a check is made at its turn, after a change, while it fails and when somebody asks, and at no other look;
// meanwhile what it saw last is told.
func TestScheduledChecks(t *testing.T) {
	t.Parallel()
	w, hourly, often := newWorld(t), newCounted(t), newCounted(t)
	w.target.Instance.Graph = &desired.Graph{Nodes: []*desired.Node{{ID: "stack/web", Part: "web"}}}
	w.lab.Run("web", lab.Service{Image: testbed.Image(t, testbed.Base), Command: []string{"sleep", "60"}})
	w.checks(fmt.Sprintf(`
within: 0s
schedule: "@every 1h"
checks:
  - {name: hourly, http: {url: %q}}
  - {name: often, schedule: always, http: {url: %q}}
`, hourly.address, often.address))
	r := w.reconciler()
	looks := int64(0)
	expect := func(want int64, why string) reconcilers.CheckFacts {
		t.Helper()
		facts := w.facts(r)
		looks++
		require.Equal(t, want, hourly.asked.Load(), why)
		require.Equal(t, looks, often.asked.Load(), "this one is made with each look")
		require.True(t, facts["often"].Next.IsZero())
		return facts["hourly"]
	}
	first := expect(1, "never made before")
	require.True(t, first.Passed)
	require.WithinDuration(t, first.At.Add(time.Hour), first.Next, time.Second)
	require.Equal(t, first, expect(1, "not yet its turn"))
	w.clock.ahead = 61 * time.Minute
	require.True(t, expect(2, "its turn has come").At.After(first.At))
	expect(2, "made already")

	w.target.Fresh = true
	expect(3, "somebody asked")
	w.target.Fresh = false
	w.target.Changed = true
	expect(4, "something that it needs was changed")
	w.target.Changed = false
	w.target.Instance.Digest = "another"
	expect(5, "another revision")
	w.lab.Stop("web")
	w.lab.Start("web")
	expect(6, "a container was started anew")
	expect(6, "nothing more")

	hourly.ill.Store(true)
	w.target.Fresh = true
	require.False(t, expect(7, "somebody asked").Passed)
	w.target.Fresh = false
	require.False(t, expect(8, "it failed").Passed)
	hourly.ill.Store(false)
	require.True(t, expect(9, "it failed").Passed)
	expect(9, "it passed")
}

// TestWatchWakesForTheTurnOfACheck: also when the look that sets the turn comes after Watch has begun.
func TestWatchWakesForTheTurnOfACheck(t *testing.T) {
	t.Parallel()
	w, server := newWorld(t), newCounted(t)
	w.checks(fmt.Sprintf(`checks: [{name: each-second, schedule: "@every 1s", http: {url: %q}}]`, server.address))
	r := w.reconciler()
	woken := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- r.(reconcilers.Watcher).Watch(ctx, w.target, func(part string) { woken <- struct{}{} })
	}()
	for look := range 3 {
		w.pass(r)
		select {
		case <-woken:
		case <-time.After(20 * time.Second):
			t.Fatalf("nobody was woken after look %d", look)
		}
	}
	cancel()
	require.NoError(t, <-ended)
	require.EqualValues(t, 3, server.asked.Load(), "each turn was taken once")
}

// TestLogsSinceTheLastChange: what a service wrote before the newest container of the instance started does not count then.
func TestLogsSinceTheLastChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target.Instance.Graph = &desired.Graph{Nodes: []*desired.Node{{ID: "stack/@images", Part: "@images"}, {ID: "stack/backend", Part: "backend"}, {ID: "stack/kas", Part: "kas"}}}
	shell := func(program string) lab.Service {
		return lab.Service{Image: testbed.Image(t, testbed.Base), Command: []string{"sh", "-c", program}}
	}
	w.lab.Run("backend", shell("echo not primary: a-value-nobody-may-see; echo not primary; exec sleep 60"))
	w.checks(`
within: 0s
checks:
  - {name: start, logs: {service: backend, absent: not primary}}
  - {name: change, logs: {service: backend, absent: not primary, since: change}}
`)
	r := w.reconciler()
	testbed.Eventually(t, 20*time.Second, "two lines in the log", func() error {
		if saw := w.facts(r)["start"]; saw.Counts["absentFound"] != 2 {
			return fmt.Errorf("%+v", saw)
		}
		return nil
	})
	saw := w.facts(r)
	require.Contains(t, saw["start"].Saw, `backend wrote "not primary" since its container started at `)
	require.NotContains(t, saw["start"].Saw, "a-value-nobody-may-see")
	require.False(t, saw["change"].Passed)
	w.lab.Run("kas", shell("exec sleep 60"))
	w.pass2(r, "change")
	saw = w.facts(r)
	require.False(t, saw["start"].Passed, "the container of backend is the same")
	require.Equal(t, "as expected since the last change", saw["change"].Saw)
	require.True(t, saw["change"].Dates["since"].After(saw["start"].Dates["since"]) || saw["change"].Dates["since"].Equal(saw["start"].Dates["since"]))
}

// pass2 waits until one check passes.
func (w *world) pass2(r reconcilers.Reconciler, name string) {
	w.t.Helper()
	testbed.Eventually(w.t, 20*time.Second, name+" to pass", func() error {
		if saw := w.facts(r)[name]; !saw.Passed {
			return fmt.Errorf("%s", saw.Saw)
		}
		return nil
	})
}

// TestWhen: a check that the values switch off is not made, counts nowhere and needs no service.
func TestWhen(t *testing.T) {
	t.Parallel()
	w, server := newWorld(t), newCounted(t)
	w.target.Scope = desired.NewScope(map[string]desired.Value{"otelHealthURL": desired.String("")})
	w.checks(fmt.Sprintf(`
checks:
  - {name: otel, when: "${otelHealthURL != \"\"}", http: {url: "${otelHealthURL}"}}
  - {name: server, when: "${otelHealthURL == \"\"}", http: {url: %q}}
`, server.address))
	r := w.reconciler()
	require.Equal(t, "1 check passed", w.pass(r).Summary)
	w.target.Scope = desired.NewScope(map[string]desired.Value{"otelHealthURL": desired.String(server.address)})
	facts := w.pass(r)
	require.Len(t, facts.Checks, 1)
	require.Equal(t, "otel", facts.Checks[0].Name)
}

// TestCertificateOfAFewDays: the evidence has the days that are left and the date of the end.
func TestCertificateOfAFewDays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	config, err := w.ca.Server("127.0.0.1")
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = config
	server.StartTLS()
	t.Cleanup(server.Close)
	address := server.Listener.Addr().(*net.TCPAddr).AddrPort()
	w.checks(fmt.Sprintf(`
within: 0s
checks:
  - {name: default, certificate: {address: %q, ca: "${CA}"}}
  - {name: day, certificate: {address: %[1]q, ca: "${CA}", minDays: 1}}
`, address))
	r := w.reconciler()
	w.clock.ahead = 25 * 24 * time.Hour
	facts := w.facts(r)
	days := facts["day"].Counts["days"]
	require.True(t, facts["day"].Passed, facts["day"].Saw)
	require.WithinDuration(t, w.clock.Now().Add(time.Duration(days)*24*time.Hour), facts["day"].Dates["notAfter"], 25*time.Hour)
	w.clock.ahead += time.Duration(days-29) * 24 * time.Hour
	facts = w.facts(r)
	require.Contains(t, facts["default"].Saw, "is valid for 29 more days, expected 30")
	require.False(t, facts["default"].Passed)
}
