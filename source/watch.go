package source

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"dive-agent/gitremote"
)

const (
	backoffMin = 750 * time.Millisecond
	backoffMax = 15 * time.Minute
	// backoffJitter and scheduleJitter spread what many agents do at the same time.
	backoffJitter  = 0.25
	scheduleJitter = 0.05
	// wakeGap is the shortest time between two polls that somebody asks for.
	wakeGap = time.Second
	// scheduleJitterMax keeps the jitter of a rare schedule small.
	scheduleJitterMax = 30 * time.Second
)

// Outcome is one poll, as [Source.Watch] reports it.
type Outcome struct {
	Revision Revision
	Changed  bool
	Err      error
	State    State // with Next
}

// WatchOptions say when to poll and whom to tell.
type WatchOptions struct {
	// Schedule of the polls; nil means every minute.
	Schedule Schedule
	// Wake asks for a poll at once, or a second after the last one began. Make it with a buffer of one and send without waiting: wakes during a poll
	// become one poll after it.
	Wake <-chan struct{}
	// Handle is called after every poll, one at a time; the next poll waits for it. It gets the context of Watch.
	Handle func(context.Context, Outcome)
	// Random gives numbers in [0,1) for the jitter; nil means a random source.
	Random func() float64
}

// Watch polls at once, and then as the schedule says, until the context ends; it returns the context's error. After a poll that
// failed on the way to the remote it tries again after 750 ms, doubled up to 15 minutes, or when the server asked to. What is
// wrong with the revision itself is no reason to ask more often than the schedule says. A wake polls at once.
func (s *Source) Watch(ctx context.Context, opts WatchOptions) error {
	if opts.Schedule == nil {
		opts.Schedule = Every(time.Minute)
	}
	if opts.Random == nil {
		opts.Random = rand.Float64
	}
	failures := 0
	for {
		polled := s.opts.Clock.Now()
		rev, changed, err := s.Poll(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if onTheWay(err) {
			failures++
		} else {
			failures = 0
		}
		wait := opts.wait(s.opts.Clock.Now(), failures, err)
		s.setNext(wait)
		if opts.Handle != nil {
			opts.Handle(ctx, Outcome{Revision: rev, Changed: changed, Err: err, State: s.State()})
		}
		if err := s.pause(ctx, polled, opts.Wake); err != nil {
			return err
		}
	}
}

// onTheWay says whether another try may help although the branch does not move.
func onTheWay(err error) bool {
	switch problemOf(err) {
	case None, BranchMissing, Rewritten, EmptyTree, BadTree, Unsigned, TooLarge:
		return false
	}
	return true
}

// wait is how long to wait after a poll.
func (o WatchOptions) wait(now time.Time, failures int, err error) time.Duration {
	if failures == 0 {
		d := max(o.Schedule.Next(now).Sub(now), 0)
		return d + time.Duration(o.Random()*min(float64(d)*scheduleJitter, float64(scheduleJitterMax)))
	}
	d := backoffMax
	if shift := failures - 1; shift < 20 {
		d = min(backoffMin<<shift, backoffMax)
	}
	d += time.Duration((o.Random()*2 - 1) * backoffJitter * float64(d))
	var asked *gitremote.Error
	if errors.As(err, &asked) && asked.RetryAfter > 0 {
		d = max(d, min(asked.RetryAfter, backoffMax))
	}
	return min(max(d, backoffMin), backoffMax)
}

func (s *Source) setNext(wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Next = s.opts.Clock.Now().Add(wait)
}

// pause waits until the next poll is due, or for a wake. However many wakes come, polls are a second apart.
func (s *Source) pause(ctx context.Context, polled time.Time, wake <-chan struct{}) error {
	s.mu.Lock()
	due := s.state.Next
	s.mu.Unlock()
	woken, err := s.until(ctx, due, wake)
	if err != nil || !woken {
		return err
	}
	_, err = s.until(ctx, polled.Add(wakeGap), nil)
	return err
}

// until waits for a time or a wake, and says whether it was woken.
func (s *Source) until(ctx context.Context, t time.Time, wake <-chan struct{}) (bool, error) {
	due, stop := s.opts.Clock.After(max(t.Sub(s.opts.Clock.Now()), 0))
	defer stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-due:
		return false, nil
	case <-wake:
		return true, nil
	}
}
