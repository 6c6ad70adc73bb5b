// Package storetest holds the conformance suite of state.Store: what every
// store promises, whatever it is built on.
package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/state"
)

// Run runs the suite. open returns a fresh, empty store that keeps at least
// 10 runs of each instance and 100 events; the test closes it.
func Run(t *testing.T, open func(t *testing.T) state.Store) {
	tests := map[string]func(*testing.T, *fixture){
		"instance round trip":               instanceRoundTrip,
		"machine stays bound":               machineStaysBound,
		"run and its steps":                 runAndSteps,
		"runs newest first":                 runsNewestFirst,
		"a finished run keeps its end":      finishedRunKeepsEnd,
		"unknown things are not found":      unknownIsNotFound,
		"recover marks open runs":           recoverMarksOpenRuns,
		"node keeps since and duration":     nodeKeepsSince,
		"node facts must be JSON":           nodeFactsMustBeJSON,
		"events in sequence":                eventsInSequence,
		"outbox keeps order per line":       outboxOrder,
		"outbox coalesces by key":           outboxCoalesces,
		"outbox gives up":                   outboxGivesUp,
		"outbox wakes":                      outboxWakes,
		"pushed status":                     pushedStatus,
		"imports of other instances":        importsOfOthers,
		"values by key":                     valuesByKey,
		"update is all or nothing":          updateIsAtomic,
		"update sees its own writes":        updateSeesItself,
		"cancelled context changes nothing": cancelledChangesNothing,
		"view is one snapshot":              viewIsOneSnapshot,
		"writers take turns":                writersTakeTurns,
		"committed wakes":                   committedWakes,
		"every failing call leaves nothing": failingLeavesNothing,
		"closed store refuses":              closedRefuses,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			t.Cleanup(cancel)
			test(t, &fixture{Store: s, t: t, ctx: ctx})
		})
	}
}

// fixture is a store with the calls that a test expects to succeed.
type fixture struct {
	state.Store
	t   *testing.T
	ctx context.Context
}

func (f *fixture) update(fn func(tx state.Tx) error) {
	f.t.Helper()
	require.NoError(f.t, f.Update(f.ctx, fn))
}

func (f *fixture) view(fn func(r state.Reader) error) {
	f.t.Helper()
	require.NoError(f.t, f.View(f.ctx, fn))
}

// clock is a moment with nanoseconds, in another zone than UTC.
var clock = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("east", 3600))

// at is a moment some seconds after clock, as a store gives it back.
func at(seconds int) time.Time { return clock.Add(time.Duration(seconds) * time.Second).UTC() }
