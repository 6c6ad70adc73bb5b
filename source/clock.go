package source

import "time"

// Clock is the time, and waiting for it.
type Clock interface {
	Now() time.Time
	// After gives a channel that gets one value after d, and a function that frees it before that.
	After(d time.Duration) (<-chan time.Time, func())
}

// SystemClock is the machine's clock.
type SystemClock struct{}

// Now is the current time.
func (SystemClock) Now() time.Time { return time.Now() }

// After waits with a timer.
func (SystemClock) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}
