package state_test

import (
	"strconv"
	"testing"

	"dive-agent/state"
)

// BenchmarkStep is what a recorded change costs: its begin and its end, each
// durable.
func BenchmarkStep(b *testing.B) {
	s, _, err := state.Open(b.Context(), state.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	start := func(tx state.Tx) error { return tx.StartRun(state.Run{ID: "r", Instance: "deu"}) }
	if err := s.Update(b.Context(), start); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		var seq int64
		if err := s.Update(b.Context(), func(tx state.Tx) (err error) {
			seq, err = tx.StartStep(state.Step{Run: "r", Node: "stack/" + strconv.Itoa(i%20), Started: now})
			return err
		}); err != nil {
			b.Fatal(err)
		}
		if err := s.Update(b.Context(), func(tx state.Tx) error {
			return tx.FinishStep("r", seq, now, state.Done, "")
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDue is what the outbox costs each time something was committed.
func BenchmarkDue(b *testing.B) {
	s, _, err := state.Open(b.Context(), state.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if err := s.View(b.Context(), func(r state.Reader) error {
			_, err := r.Due(state.KindWebhook, now, 0)
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
}
