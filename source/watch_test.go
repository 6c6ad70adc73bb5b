package source_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/source"
	"dive-agent/testbed/gitserver"
)

// fakeClock stands still until a test moves it. It tells for what it is waited.
type fakeClock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[chan time.Time]time.Time
	waits  chan time.Duration // one value for each wait that begins
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), timers: map[chan time.Time]time.Time{}, waits: make(chan time.Duration, 100)}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) After(d time.Duration) (<-chan time.Time, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	if d <= 0 {
		ch <- c.now
	} else {
		c.timers[ch] = c.now.Add(d)
	}
	c.waits <- d
	return ch, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.timers, ch)
	}
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for ch, at := range c.timers {
		if !at.After(c.now) {
			ch <- c.now
			delete(c.timers, ch)
		}
	}
}

// waiting gives the next wait that begins.
func (c *fakeClock) waiting(t *testing.T) time.Duration {
	t.Helper()
	select {
	case d := <-c.waits:
		return d
	case <-time.After(20 * time.Second):
		t.Fatal("nobody waits")
		return 0
	}
}

// watch runs Watch and gives its outcomes.
func watch(t *testing.T, s *source.Source, opts source.WatchOptions) <-chan source.Outcome {
	t.Helper()
	outcomes := make(chan source.Outcome, 100)
	opts.Handle = func(_ context.Context, o source.Outcome) { outcomes <- o }
	opts.Random = func() float64 { return 0.5 }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx, opts) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			require.ErrorIs(t, err, context.Canceled)
		case <-time.After(20 * time.Second):
			t.Error("Watch does not end")
		}
	})
	return outcomes
}

func next(t *testing.T, outcomes <-chan source.Outcome) source.Outcome {
	t.Helper()
	select {
	case o := <-outcomes:
		return o
	case <-time.After(20 * time.Second):
		t.Fatal("no poll")
		return source.Outcome{}
	}
}

func TestWatchPollsOnScheduleAndWhenWoken(t *testing.T) {
	b := newBed(t)
	first := b.commit("First", gitserver.Files{"a": "1"})
	clock := newFakeClock()
	s := b.open(func(o *source.Options) { o.Clock = clock })
	wake := make(chan struct{}, 1)
	outcomes := watch(t, s, source.WatchOptions{Schedule: source.Every(10 * time.Second), Wake: wake})

	o := next(t, outcomes)
	require.True(t, o.Changed)
	require.Equal(t, first, o.Revision.Commit)
	require.NoError(t, s.Accept(o.Revision))
	require.Equal(t, 10*time.Second+250*time.Millisecond, clock.waiting(t), "the interval with half of its 5 % jitter")
	require.Equal(t, clock.Now().Add(10*time.Second+250*time.Millisecond), o.State.Next)
	clock.advance(11 * time.Second)
	require.False(t, next(t, outcomes).Changed)
	clock.waiting(t)

	clock.advance(200 * time.Millisecond)
	b.server.ResetRequests()
	wake <- struct{}{}
	require.Equal(t, 800*time.Millisecond, clock.waiting(t), "polls that are asked for are a second apart")
	require.Empty(t, b.server.Requests())
	second := b.commit("Second", gitserver.Files{"a": "2"})
	clock.advance(time.Second)
	o = next(t, outcomes)
	require.True(t, o.Changed)
	require.Equal(t, second, o.Revision.Commit)
}

func TestWatchBacksOffWhileGitIsAway(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"a": "1"})
	clock := newFakeClock()
	s := b.open(func(o *source.Options) { o.Clock = clock })
	outcomes := watch(t, s, source.WatchOptions{Schedule: source.Every(10 * time.Second)})
	require.NoError(t, next(t, outcomes).Err)
	clock.waiting(t)
	b.server.Stop()
	clock.advance(time.Minute)
	away := clock.Now()

	want := 750 * time.Millisecond
	for i := range 12 {
		o := next(t, outcomes)
		require.Error(t, o.Err)
		require.Equal(t, source.Unreachable, o.State.Problem)
		require.Equal(t, away, o.State.Since, "since the first poll that failed")
		require.Equal(t, away.Add(-time.Minute), o.State.Answered)
		require.Equal(t, i+1, o.State.Failures)
		require.Equal(t, want, clock.waiting(t))
		clock.advance(want)
		want = min(2*want, 15*time.Minute)
	}
	next(t, outcomes)
	clock.waiting(t)
	require.NoError(t, b.server.Up())
	clock.advance(15 * time.Minute)
	o := next(t, outcomes)
	require.NoError(t, o.Err)
	require.Equal(t, source.None, o.State.Problem)
	require.Equal(t, clock.Now(), o.State.Since)
	require.Zero(t, o.State.Failures)
}

func TestWatchHonoursRetryAfter(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"a": "1"})
	b.server.SetFault(gitserver.Fault{Kind: gitserver.Status, Status: 429, RetryAfter: 90 * time.Second, Times: 1})
	clock := newFakeClock()
	outcomes := watch(t, b.open(func(o *source.Options) { o.Clock = clock }), source.WatchOptions{})
	require.Error(t, next(t, outcomes).Err)
	require.Equal(t, 90*time.Second, clock.waiting(t))
}

func TestWatchDoesNotHurryForABadRevision(t *testing.T) {
	b := newBed(t)
	b.commit("Bad", gitserver.Files{"a": gitserver.Symlink("/etc/passwd")})
	clock := newFakeClock()
	schedule, err := source.Cron("*/5 * * * *")
	require.NoError(t, err)
	outcomes := watch(t, b.open(func(o *source.Options) { o.Clock = clock }), source.WatchOptions{Schedule: schedule})
	o := next(t, outcomes)
	require.ErrorAs(t, o.Err, new(*source.TreeError))
	require.Equal(t, source.BadTree, o.State.Problem)
	require.GreaterOrEqual(t, clock.waiting(t), time.Minute)
}

func TestCronExpressions(t *testing.T) {
	s, err := source.Cron("CRON_TZ=UTC 30 2 * * *")
	require.NoError(t, err)
	require.Equal(t, time.Date(2026, 3, 2, 2, 30, 0, 0, time.UTC), s.Next(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)).UTC())
	_, err = source.Cron("every now and then")
	require.ErrorContains(t, err, "every now and then")
	require.Equal(t, time.Unix(1, 0), source.Every(time.Millisecond).Next(time.Unix(0, 0)), "a second at least")
}

func TestWatchEndsDuringAPoll(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"a": "1"})
	b.server.SetFault(gitserver.Fault{Kind: gitserver.Hang})
	s := b.open()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := s.Watch(ctx, source.WatchOptions{})
	require.True(t, errors.Is(err, context.DeadlineExceeded))
	require.Less(t, time.Since(start), 5*time.Second)
}
