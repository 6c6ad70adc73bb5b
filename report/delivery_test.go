package report_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/state"
)

func TestWebhookIsSignedAndComesInOrder(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, hookTo(r))
	f.run()
	progressing := ready()
	progressing.Phase, progressing.News, progressing.Applied = report.Progressing, "", applied
	f.publish(progressing)
	f.publish(ready())
	f.publish(degraded())
	eventually(t, "three deliveries", func() bool { return len(r.all()) == 3 })
	got := r.all()
	var types []string
	for _, g := range got {
		types = append(types, g.event.Type())
	}
	require.Equal(t, []string{"dive.instance.progressing", "dive.instance.ready", "dive.instance.degraded"}, types)
	last := got[2]
	require.Equal(t, "deu", last.event.Subject())
	require.Equal(t, "/dive-agent/hosts/deu-01", last.event.Source())
	require.True(t, last.event.Time().Equal(t0))
	require.Equal(t, report.Ready, last.data.Previous)
	require.Equal(t, "deu: Degraded, kas exits with 1; put back to 2.0.4", last.data.Headline)
	require.Equal(t, attempted, last.data.Attempted)
	require.Equal(t, applied, last.data.Applied)
	require.NotContains(t, strings.Join(last.data.Why, ""), "\x1b")
	eventually(t, "an empty outbox", func() bool { return len(f.pending(state.KindWebhook)) == 0 })
}

func TestWebhookIsRetriedInOrderWithTheSameID(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, hookTo(r))
	r.answer(func(call int, _ http.ResponseWriter) int {
		if call <= 3 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	stop := f.run()
	f.publish(ready())
	f.publish(degraded())
	for n, pause := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second} {
		eventually(t, "an attempt that is recorded", func() bool {
			p := f.pending(state.KindWebhook)
			return len(p) == 2 && p[0].Attempts == n+1
		})
		require.Equal(t, n+1, r.count())
		p := f.pending(state.KindWebhook)
		wait := p[0].Next.Sub(f.clock.Now())
		require.GreaterOrEqual(t, wait, pause)
		require.LessOrEqual(t, wait, pause+pause/10)
		require.Zero(t, p[1].Attempts, "the second waits for the first")
		require.Contains(t, p[0].Reason, "answered 503 Service Unavailable")
		require.NotContains(t, p[0].Reason, "not-for-logs")
		if n == 1 { // a restart forgets nothing
			stop()
			stop = f.run()
		}
		f.clock.advance(wait)
	}
	eventually(t, "both deliveries", func() bool { return len(r.all()) == 2 })
	require.Equal(t, report.Ready, r.all()[0].data.Phase)
	require.Equal(t, report.Degraded, r.all()[1].data.Phase)
}

func TestWebhookIsGivenUp(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, hookTo(r))
	r.answer(func(int, http.ResponseWriter) int { return http.StatusFound })
	f.publish(ready())
	require.ErrorContains(t, f.Flush(t.Context()), "answered 302 Found", "a redirect is not followed")
	require.Equal(t, 1, r.count())
	for range 300 { // the pauses grow to 15 min; 72 h need fewer than that
		if len(f.pending(state.KindWebhook)) == 0 {
			break
		}
		f.clock.advance(15 * time.Minute)
		require.Error(t, f.Flush(t.Context()))
	}
	require.Empty(t, f.pending(state.KindWebhook))
	require.Equal(t, 72*time.Hour, f.clock.Now().Sub(t0))
	condition := func() (c report.Condition) {
		require.NoError(t, f.store.View(t.Context(), func(r state.Reader) (err error) {
			c, err = report.Delivered(r, "deu", f.clock.Now())
			return err
		}))
		return c
	}
	require.False(t, condition().Status)
	require.Contains(t, condition().Message, "webhook ops were given up")
	f.clock.advance(73 * time.Hour)
	require.True(t, condition().Status)

	r.answer(func(int, http.ResponseWriter) int { return http.StatusGone })
	f.publish(degraded())
	require.ErrorContains(t, f.Flush(t.Context()), "410 Gone")
	require.Empty(t, f.pending(state.KindWebhook), "410 ends all attempts")
}

func TestWebhookHeedsRetryAfter(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, hookTo(r))
	r.answer(func(_ int, rw http.ResponseWriter) int {
		rw.Header().Set("Retry-After", "300")
		return http.StatusTooManyRequests
	})
	f.publish(ready())
	require.Error(t, f.Flush(t.Context()))
	require.Equal(t, 5*time.Minute, f.pending(state.KindWebhook)[0].Next.Sub(f.clock.Now()))
}

func TestReportsGoOutAfterTheClockWentBack(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, hookTo(r))
	r.answer(func(int, http.ResponseWriter) int { return http.StatusBadGateway })
	f.publish(ready())
	require.Error(t, f.Flush(t.Context()))
	r.answer(func(int, http.ResponseWriter) int { return http.StatusOK })
	f.clock.advance(-365 * 24 * time.Hour)
	f.run()
	eventually(t, "the delivery", func() bool { return len(f.pending(state.KindWebhook)) == 0 })
}

func TestWebhookThatHangsHoldsNobodyElseUp(t *testing.T) {
	good := newReceiver(t)
	release := make(chan struct{})
	entered := make(chan struct{}, 1)
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-release
	}))
	t.Cleanup(hanging.Close)
	t.Cleanup(func() { close(release) })
	f := newFixture(t, func(o *report.Options) {
		keys := []string{secretOf(keyOne), secretOf(keyTwo)}
		o.Webhooks = []report.Webhook{{Name: "hanging", URL: hanging.URL, Keys: keys}, {Name: "good", URL: good.URL, Keys: keys}}
	})
	stop := f.run()
	f.publish(ready())
	<-entered
	eventually(t, "the good one's delivery", func() bool { return len(good.all()) == 1 })
	f.publish(degraded())
	eventually(t, "the good one's second delivery", func() bool { return len(good.all()) == 2 && len(f.pending(state.KindWebhook)) == 2 })
	stop()
	for _, e := range f.pending(state.KindWebhook) {
		require.Equal(t, "hanging", e.Target)
		require.Zero(t, e.Attempts, "what the end of the agent cut short is no failed attempt")
	}
	require.Len(t, f.pending(state.KindWebhook), 2)
}

func TestAFailureIsToldOnceThenHourly(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, hookTo(r))
	tell := func(s *report.Status) int {
		before := len(r.all())
		f.publish(s)
		require.NoError(t, f.Flush(t.Context()))
		return len(r.all()) - before
	}
	require.Equal(t, 1, tell(ready()))
	require.Zero(t, tell(ready()), "the heartbeat is no news")
	require.Equal(t, 1, tell(degraded()))

	other := degraded()
	other.Why, other.News = []string{"exit code 1, 6 times in 5 min"}, "kas exits with 1, again"
	require.Zero(t, tell(other), "other words for the same failure")
	retried := degraded()
	retried.Phase, retried.Conditions = report.Progressing, nil
	require.Zero(t, tell(retried), "it is tried again")
	require.Zero(t, tell(degraded()), "and fails again")

	f.clock.advance(61 * time.Minute)
	require.Equal(t, 1, tell(degraded()))
	all := r.all()
	require.True(t, all[len(all)-1].data.Reminder)
	require.Zero(t, tell(degraded()))

	worse := degraded()
	worse.Components[1].State = "failed"
	require.Equal(t, 1, tell(worse), "another failure")
	require.Equal(t, 1, tell(ready()), "recovery")
	all = r.all()
	require.False(t, all[len(all)-1].data.Reminder)
	require.Equal(t, report.Degraded, all[len(all)-1].data.Previous)
	newer := ready()
	newer.Attempted, newer.Applied = applied, applied
	require.Equal(t, 1, tell(newer), "another revision")
}

func TestEventAndReportAreKeptTogetherOrNotAtAll(t *testing.T) {
	r := newReceiver(t)
	var broken *state.Failing
	f := newFixture(t, func(o *report.Options) {
		hookTo(r)(o)
		o.Branches = &report.Branches{Remote: nil}
		broken = state.NewFailing(o.Store, 0, errors.New("on purpose"))
	})
	publish := func() error {
		return broken.Update(t.Context(), func(tx state.Tx) error {
			seq, err := tx.AddEvent(state.Event{Instance: "deu"})
			if err != nil {
				return err
			}
			return f.Publish(t.Context(), tx, ready(), state.Event{Seq: seq})
		})
	}
	failures := 0
	for n := 1; ; n++ {
		broken.FailAt(n)
		if publish() == nil {
			break
		}
		failures++
		require.Empty(t, f.pending(state.KindWebhook))
		require.Empty(t, f.pending(state.KindStatus))
		require.NoError(t, f.store.View(t.Context(), func(r state.Reader) error {
			events, err := r.EventsAfter(0)
			require.Empty(t, events)
			return err
		}))
	}
	require.GreaterOrEqual(t, failures, 6)
	require.Len(t, f.pending(state.KindWebhook), 1)
	require.Len(t, f.pending(state.KindStatus), 1)
	require.NotZero(t, f.pending(state.KindWebhook)[0].Event)
}

func TestDeliveryOutlivesAStateThatFails(t *testing.T) {
	r := newReceiver(t)
	var broken *state.Failing
	f := newFixture(t, func(o *report.Options) {
		hookTo(r)(o)
		broken = state.NewFailing(o.Store, 0, errors.New("disk full"))
		o.Store = broken
	})
	f.publish(ready())
	broken.FailAt(-1)
	f.run()
	for range 3 {
		eventually(t, "a pause", func() bool {
			f.clock.mu.Lock()
			defer f.clock.mu.Unlock()
			return len(f.clock.alarms) > 0
		})
		f.clock.advance(5 * time.Second)
	}
	require.Zero(t, r.count(), "nothing is sent that cannot be recorded as sent")
	broken.FailAt(0)
	eventually(t, "the delivery", func() bool {
		f.clock.advance(5 * time.Second)
		return len(r.all()) == 1
	})
}

// readOnly is a store that can be read and not written, as on a full disk.
type readOnly struct{ state.Store }

func (readOnly) Update(context.Context, func(state.Tx) error) error { return errors.New("disk full") }

func TestWhatCannotBeRecordedIsSentAgainOnlyAfterAPause(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, hookTo(r))
	f.publish(ready())
	reporter, err := report.New(report.Options{
		Store: readOnly{f.store}, Clock: f.clock, Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Webhooks: f.Webhooks,
	})
	require.NoError(t, err)
	f.Reporter = reporter
	f.run()
	for sent := range 3 {
		eventually(t, "a pause", func() bool {
			f.clock.mu.Lock()
			defer f.clock.mu.Unlock()
			return len(f.clock.alarms) == 1
		})
		require.Equal(t, sent+1, r.count())
		f.clock.advance(5 * time.Second)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAnAttemptEndsByItself(t *testing.T) {
	attempts := 0
	f := newFixture(t, func(o *report.Options) {
		o.Webhooks = []report.Webhook{{Name: "ops", URL: "http://ops.example", Keys: []string{secretOf(keyOne)}, Client: &http.Client{
			Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				attempts++
				limit, ok := r.Context().Deadline()
				require.True(t, ok, "nothing ends it")
				require.LessOrEqual(t, time.Until(limit), 15*time.Second)
				return nil, errors.New("away")
			}),
		}}}
	})
	f.publish(ready())
	require.ErrorContains(t, f.Flush(t.Context()), "away")
	require.Equal(t, 1, attempts)
}

func TestUnknownTargetsAndBadConfigurations(t *testing.T) {
	f := newFixture(t, func(*report.Options) {})
	require.NoError(t, f.store.Update(t.Context(), func(tx state.Tx) error {
		_, err := tx.Enqueue(state.Entry{Kind: state.KindWebhook, Target: "removed", Instance: "deu", Payload: []byte(`{"id":"x"}`)})
		return err
	}))
	require.ErrorContains(t, f.Flush(t.Context()), "not configured any more")
	require.Empty(t, f.pending(state.KindWebhook))

	good := report.Webhook{Name: "ops", URL: "https://ops.example", Keys: []string{secretOf(keyOne)}}
	for want, hooks := range map[string][]report.Webhook{
		"begin with https":    {{Name: "ops", URL: "ftp://x", Keys: good.Keys}},
		"0 are given":         {{Name: "ops", URL: good.URL}},
		"24 to 64 bytes":      {{Name: "ops", URL: good.URL, Keys: []string{"whsec_c2hvcnQ="}}},
		"configured twice":    {good, good},
		"no PEM certificates": {{Name: "ops", URL: good.URL, Keys: good.Keys, CA: []byte("x")}},
		"proxy is no URL":     {{Name: "ops", URL: good.URL, Keys: good.Keys, Proxy: "x"}},
	} {
		_, err := report.New(report.Options{Clock: f.clock, Random: rand.Reader, Webhooks: hooks})
		require.ErrorContains(t, err, want)
	}
}

func TestWebhookOverTLSWithItsOwnAuthority(t *testing.T) {
	r := newReceiver(t)
	secure := httptest.NewTLSServer(r)
	t.Cleanup(secure.Close)
	keys := []string{secretOf(keyOne), secretOf(keyTwo)}
	f := newFixture(t, func(o *report.Options) {
		o.Webhooks = []report.Webhook{
			{Name: "trusted", URL: secure.URL, Keys: keys, CA: pemOf(secure)},
			{Name: "stranger", URL: secure.URL, Keys: keys},
		}
	})
	f.publish(ready())
	require.ErrorContains(t, f.Flush(t.Context()), "certificate")
	require.Len(t, r.all(), 1)
	require.Equal(t, "stranger", f.pending(state.KindWebhook)[0].Target)
}
