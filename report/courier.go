package report

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"dive-agent/state"
)

// courier delivers the entries of one kind from the outbox: those of a line
// (one target, one instance) in order, different lines at the same time.
type courier struct {
	kind  string
	store state.Store
	clock Clock
	log   *slog.Logger
	// deliver sends an entry. Done, when not nil, is written together with the
	// entry's removal.
	deliver func(ctx context.Context, e state.Entry) (done func(state.Tx) error, err error)
	// pause is how long to wait after a number of failed attempts.
	pause func(attempts int) time.Duration
	// lifetime is how long an entry is tried; 0 means for ever.
	lifetime time.Duration
}

// goneError says that an entry can never be delivered.
type goneError struct{ err error }

func (e *goneError) Error() string { return e.err.Error() }
func (e *goneError) Unwrap() error { return e.err }

// laterError says when the receiver wants to be asked again.
type laterError struct {
	after time.Duration
	err   error
}

func (e *laterError) Error() string { return e.err.Error() }
func (e *laterError) Unwrap() error { return e.err }

const (
	// together is how many deliveries of a kind are on their way at a time.
	together = 8
	// storePause is how long a courier waits when the state cannot be used.
	storePause = 5 * time.Second
	// recordLimit bounds the write of an outcome, which the end of the agent
	// does not cut short: a sent entry that is not recorded is sent twice.
	recordLimit = 10 * time.Second
)

// line names what has to be in order.
type line struct{ target, instance string }

func lineOf(e state.Entry) line { return line{e.Target, e.Instance} }

var farFuture = time.Unix(0, math.MaxInt64)

// run delivers until ctx ends, and returns when nothing is on its way any more. Entries of one line go one after the
// other; lines do not wait for each other. Entries, retries and ends of attempts wake it, so that it never polls.
func (c *courier) run(ctx context.Context) {
	var (
		wg       sync.WaitGroup
		onTheWay = map[line]bool{}
		finished = make(chan line, together)
	)
	defer wg.Wait()
	for {
		changed := c.store.Committed()
		first, wait, err := c.next(ctx, onTheWay)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.log.Error("cannot read the outbox", "kind", c.kind, "error", err)
			wait, changed = storePause, nil
		}
		for _, e := range first {
			onTheWay[lineOf(e)] = true
			wg.Go(func() {
				if !c.attempt(ctx, e) {
					c.rest(ctx)
				}
				finished <- lineOf(e) // room for all: see together
			})
		}
		var alarm <-chan time.Time
		if wait > 0 {
			alarm = c.clock.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case l := <-finished:
			delete(onTheWay, l)
		case <-changed:
		case <-alarm:
		}
	}
}

// rest waits when an outcome could not be recorded, so that the same entry is
// not sent again and again.
func (c *courier) rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-c.clock.After(storePause):
	}
}

// next gives the entries to send now, and otherwise how long until one is due;
// 0 when there is none to wait for.
func (c *courier) next(ctx context.Context, onTheWay map[line]bool) (first []state.Entry, wait time.Duration, err error) {
	heads, err := c.heads(ctx)
	if err != nil {
		return nil, 0, err
	}
	now := c.clock.Now()
	for _, e := range heads {
		switch {
		case onTheWay[lineOf(e)]:
		case e.Next.After(now) && e.Next.Sub(now) <= 2*longestPause: // one further away was set before the clock went back
			if until := e.Next.Sub(now); wait == 0 || until < wait {
				wait = until
			}
		case len(onTheWay)+len(first) < together:
			first = append(first, e)
		}
	}
	return first, wait, nil
}

// heads gives the first entry of each line, due or not.
func (c *courier) heads(ctx context.Context) (heads []state.Entry, err error) {
	err = c.store.View(ctx, func(r state.Reader) error {
		heads, err = r.Due(c.kind, farFuture, 0)
		return err
	})
	return heads, err
}

// attempt sends one entry and records what came of it. It returns false when
// that could not be recorded.
func (c *courier) attempt(ctx context.Context, e state.Entry) bool {
	err := c.send(ctx, e)
	var unrecorded *recordError
	if errors.As(err, &unrecorded) {
		c.log.Error("cannot record a delivery", "kind", c.kind, "instance", e.Instance, "error", err)
		return false
	}
	return true
}

// recordError says that the outcome of a delivery could not be written down.
type recordError struct{ err error }

func (e *recordError) Error() string { return e.err.Error() }
func (e *recordError) Unwrap() error { return e.err }

// send delivers one entry and records the outcome. The error is the delivery's,
// or a *recordError.
func (c *courier) send(ctx context.Context, e state.Entry) error {
	done, err := c.deliver(ctx, e)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("deliver a %s of %s: %w", c.kind, e.Instance, ctx.Err())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordLimit)
	defer cancel()
	now := c.clock.Now()
	recordErr := c.store.Update(ctx, func(tx state.Tx) error {
		if err != nil {
			return c.recordFailure(tx, e, now, err)
		}
		if done != nil {
			if err := done(tx); err != nil {
				return err
			}
		}
		return tx.Delivered(e.ID)
	})
	if recordErr != nil {
		return &recordError{recordErr}
	}
	return err
}

func (c *courier) recordFailure(tx state.Tx, e state.Entry, now time.Time, err error) error {
	reason := cut(clean(err.Error()), 500)
	log := c.log.With("kind", c.kind, "instance", e.Instance, "target", e.Target, "attempts", e.Attempts+1, "error", reason)
	var gone *goneError
	if errors.As(err, &gone) || (c.lifetime > 0 && now.Sub(e.Created) >= c.lifetime) {
		log.Error("a report was given up")
		return tx.Dead(e.ID, now, reason)
	}
	pause := c.pause(e.Attempts)
	var later *laterError
	if errors.As(err, &later) {
		pause = min(max(pause, later.after), longestPause)
	}
	log.Warn("a report could not be delivered", "again", pause.Round(time.Second).String())
	return tx.Failed(e.ID, now.Add(pause), reason)
}

// flush tries each line until it is empty or fails.
func (c *courier) flush(ctx context.Context) error {
	failed := map[line]error{}
	for {
		heads, err := c.heads(ctx)
		if err != nil {
			return err
		}
		tried := false
		for _, e := range heads {
			if _, ok := failed[lineOf(e)]; ok {
				continue
			}
			tried = true
			if err := c.send(ctx, e); err != nil {
				failed[lineOf(e)] = fmt.Errorf("deliver a %s of %s: %w", c.kind, e.Instance, err)
			}
		}
		if !tried {
			break
		}
	}
	var problems []error
	for _, err := range failed {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}
