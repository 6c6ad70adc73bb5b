package report_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/state"
)

var (
	keyOne = []byte("one key of twenty-four b")
	keyTwo = []byte("another key of some thirty bytes")
)

func secretOf(key []byte) string { return "whsec_" + base64.StdEncoding.EncodeToString(key) }

func openStore(t *testing.T, clock *testClock) state.Store {
	t.Helper()
	s, notices, err := state.Open(t.Context(), state.Options{Dir: t.TempDir(), Now: clock.Now})
	require.NoError(t, err)
	require.Empty(t, notices)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// fixture is a reporter on a real store with a clock in the test's hands.
type fixture struct {
	*report.Reporter
	t     *testing.T
	clock *testClock
	store state.Store
}

func newFixture(t *testing.T, change func(*report.Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, clock: newClock()}
	f.store = openStore(t, f.clock)
	opts := report.Options{Host: "deu-01", Store: f.store, Clock: f.clock, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)}
	change(&opts)
	r, err := report.New(opts)
	require.NoError(t, err)
	f.Reporter = r
	return f
}

// publish records an event and publishes a status in one transaction.
func (f *fixture) publish(s *report.Status) {
	f.t.Helper()
	s.Updated = f.clock.Now()
	require.NoError(f.t, f.store.Update(f.t.Context(), func(tx state.Tx) error {
		seq, err := tx.AddEvent(state.Event{Time: s.Updated, Instance: s.Instance, Kind: "phase"})
		if err != nil {
			return err
		}
		return f.Publish(f.t.Context(), tx, s, state.Event{Seq: seq})
	}))
}

// run starts the deliveries and stops them at the end of the test.
func (f *fixture) run() (stop func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	go func() { f.Run(ctx); close(done) }()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			f.t.Error("the deliveries do not end")
		}
	}
	f.t.Cleanup(stop)
	return stop
}

func (f *fixture) pending(kind string) (out []state.Entry) {
	f.t.Helper()
	require.NoError(f.t, f.store.View(context.Background(), func(r state.Reader) error {
		all, err := r.Outbox("")
		for _, e := range all {
			if e.Kind == kind {
				out = append(out, e)
			}
		}
		return err
	}))
	return out
}

// received is one delivery as a receiver got it.
