package testbed

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// Eventually asks again and again until ask returns nil, and fails the test when it has not within the limit, with the
// last answer. It is the one place where tests wait for something that gives no event.
func Eventually(tb testing.TB, limit time.Duration, what string, ask func() error) {
	tb.Helper()
	if err := Until(tb.Context(), limit, 20*time.Millisecond, what, ask); err != nil {
		tb.Fatal(err)
	}
}

// Until asks at once and then every interval, until ask returns nil, the limit has passed or the context has ended. The
// error says what was waited for, and wraps the last answer.
func Until(ctx context.Context, limit, every time.Duration, what string, ask func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; last answer: %w", what, ctx.Err(), err)
		case <-deadline.C:
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		case <-tick.C:
		}
	}
}
