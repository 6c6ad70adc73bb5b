package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/state"
)

func runAndSteps(t *testing.T, f *fixture) {
	run := state.Run{ID: "r1", Instance: "deu", Revision: "1a2b3c4", Trigger: "revision", Started: at(0)}
	f.update(func(tx state.Tx) error { return tx.StartRun(run) })
	f.update(func(tx state.Tx) error {
		for i, node := range []string{"stack/mongodb", "database"} {
			seq, err := tx.StartStep(state.Step{Run: "r1", Node: node, Action: "create", Address: "x", Started: at(i)})
			require.NoError(t, err)
			require.EqualValues(t, i+1, seq)
		}
		return nil
	})
	f.update(func(tx state.Tx) error { return tx.FinishStep("r1", 1, at(4), state.Done, "started") })
	f.update(func(tx state.Tx) error { return tx.FinishRun("r1", at(5), state.Waiting, "for the primary") })
	f.view(func(r state.Reader) error {
		got, err := r.Runs("deu", 0)
		require.NoError(t, err)
		run.Finished, run.Outcome, run.Message = at(5), state.Waiting, "for the primary"
		require.Equal(t, []state.Run{run}, got)
		steps, err := r.Steps("r1")
		require.Equal(t, []state.Step{
			{Run: "r1", Seq: 1, Node: "stack/mongodb", Action: "create", Address: "x", Started: at(0), Finished: at(4), Outcome: state.Done, Message: "started"},
			{Run: "r1", Seq: 2, Node: "database", Action: "create", Address: "x", Started: at(1)},
		}, steps)
		return err
	})
	err := f.Update(f.ctx, func(tx state.Tx) error { return tx.StartRun(run) })
	require.Error(t, err, "an id is used once")
}

func runsNewestFirst(t *testing.T, f *fixture) {
	ids := state.NewIDs(func() time.Time { return clock }, zeros{})
	var made []string
	f.update(func(tx state.Tx) error {
		for i := range 6 {
			id, err := ids.New()
			require.NoError(t, err)
			made = append(made, id)
			require.NoError(t, tx.StartRun(state.Run{ID: id, Instance: fmt.Sprintf("i%d", i%2), Started: at(i)}))
		}
		return nil
	})
	names := func(instance string, limit int) (out []string) {
		f.view(func(r state.Reader) error {
			runs, err := r.Runs(instance, limit)
			for _, run := range runs {
				out = append(out, run.ID)
			}
			return err
		})
		return out
	}
	require.Equal(t, []string{made[4], made[2]}, names("i0", 2))
	require.Equal(t, []string{made[5], made[3], made[1]}, names("i1", 0))
	require.Len(t, names("", 0), 6)
	require.Empty(t, names("other", 0))
}

// zeros is randomness for tests that need none.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func finishedRunKeepsEnd(t *testing.T, f *fixture) {
	f.update(func(tx state.Tx) error {
		require.NoError(t, tx.StartRun(state.Run{ID: "r1", Instance: "deu", Started: at(0)}))
		require.NoError(t, tx.FinishRun("r1", at(1), state.Cancelled, "suspended"))
		return tx.FinishRun("r1", at(9), state.Done, "")
	})
	f.view(func(r state.Reader) error {
		runs, err := r.Runs("deu", 0)
		require.Len(t, runs, 1)
		require.Equal(t, state.Cancelled, runs[0].Outcome)
		require.Equal(t, at(1), runs[0].Finished)
		return err
	})
}

func unknownIsNotFound(t *testing.T, f *fixture) {
	f.view(func(r state.Reader) error {
		_, err := r.Instance("x")
		require.ErrorIs(t, err, state.ErrNotFound)
		_, err = r.Pushed("x")
		require.ErrorIs(t, err, state.ErrNotFound)
		_, err = r.Value("x")
		require.ErrorIs(t, err, state.ErrNotFound)
		steps, err := r.Steps("x")
		require.NoError(t, err)
		require.Empty(t, steps)
		return nil
	})
	for what, fn := range map[string]func(state.Tx) error{
		"finish run":  func(tx state.Tx) error { return tx.FinishRun("x", at(0), state.Done, "") },
		"finish step": func(tx state.Tx) error { return tx.FinishStep("x", 1, at(0), state.Done, "") },
		"start step":  func(tx state.Tx) error { _, err := tx.StartStep(state.Step{Run: "x"}); return err },
	} {
		require.ErrorIs(t, f.Update(f.ctx, fn), state.ErrNotFound, what)
	}
}

func recoverMarksOpenRuns(t *testing.T, f *fixture) {
	f.update(func(tx state.Tx) error {
		require.NoError(t, tx.StartRun(state.Run{ID: "r1", Instance: "deu", Started: at(0)}))
		require.NoError(t, tx.FinishRun("r1", at(1), state.Done, ""))
		require.NoError(t, tx.StartRun(state.Run{ID: "r2", Instance: "deu", Started: at(2)}))
		for i, node := range []string{"stack/kas", "database"} {
			_, err := tx.StartStep(state.Step{Run: "r2", Node: node, Action: "create", Address: "rs0", Started: at(3 + i)})
			require.NoError(t, err)
		}
		require.NoError(t, tx.FinishStep("r2", 1, at(7), state.Done, ""))
		return tx.StartRun(state.Run{ID: "r3", Instance: "fra"})
	})
	crashed, err := f.Recover(f.ctx)
	require.NoError(t, err)
	require.Len(t, crashed, 2)
	require.Equal(t, state.Run{
		ID: "r2", Instance: "deu", Started: at(2), Finished: at(7), Outcome: state.Crashed,
		Message: "the agent stopped during database: create rs0",
	}, crashed[0])
	require.Equal(t, state.Crashed, crashed[1].Outcome)
	f.view(func(r state.Reader) error {
		got, err := r.Runs("deu", 1)
		require.Equal(t, crashed[:1], got)
		steps, err2 := r.Steps("r2")
		require.NoError(t, err2)
		require.Equal(t, state.Done, steps[0].Outcome)
		require.Equal(t, state.Crashed, steps[1].Outcome)
		require.Equal(t, at(7), steps[1].Finished)
		return err
	})
	again, err := f.Recover(f.ctx)
	require.NoError(t, err)
	require.Empty(t, again)
}

func eventsInSequence(t *testing.T, f *fixture) {
	var seqs []int64
	f.update(func(tx state.Tx) error {
		for i := range 5 {
			seq, err := tx.AddEvent(state.Event{
				Time: at(i), Instance: []string{"deu", "fra"}[i%2], Node: "database",
				Kind: "ready", Message: fmt.Sprint(i), Run: "r1",
			})
			require.NoError(t, err)
			seqs = append(seqs, seq)
		}
		return nil
	})
	require.IsIncreasing(t, seqs)
	f.view(func(r state.Reader) error {
		got, err := r.EventsAfter(seqs[2])
		require.NoError(t, err)
		require.Equal(t, []state.Event{
			{Seq: seqs[3], Time: at(3), Instance: "fra", Node: "database", Kind: "ready", Message: "3", Run: "r1"},
			{Seq: seqs[4], Time: at(4), Instance: "deu", Node: "database", Kind: "ready", Message: "4", Run: "r1"},
		}, got)
		got, err = r.EventsAfter(seqs[4])
		require.Empty(t, got)
		return err
	})
}
