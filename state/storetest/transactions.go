package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/state"
)

var errOnPurpose = errors.New("on purpose")

func updateIsAtomic(t *testing.T, f *fixture) {
	err := f.Update(f.ctx, func(tx state.Tx) error {
		require.NoError(t, tx.PutInstance(full()))
		_, err := tx.AddEvent(state.Event{Instance: "deu"})
		require.NoError(t, err)
		return fmt.Errorf("later: %w", errOnPurpose)
	})
	require.ErrorIs(t, err, errOnPurpose)
	requireEmpty(t, f)
	require.Panics(t, func() {
		_ = f.Update(f.ctx, func(tx state.Tx) error {
			require.NoError(t, tx.PutInstance(full()))
			panic("on purpose")
		})
	})
	requireEmpty(t, f)
	f.update(func(tx state.Tx) error { return tx.PutInstance(full()) })
}

func requireEmpty(t *testing.T, f *fixture) {
	t.Helper()
	f.view(func(r state.Reader) error {
		all, err := r.Instances()
		require.NoError(t, err)
		require.Empty(t, all)
		events, err := r.EventsAfter(0)
		require.NoError(t, err)
		require.Empty(t, events)
		pending, err := r.Outbox("")
		require.Empty(t, pending)
		return err
	})
}

func updateSeesItself(t *testing.T, f *fixture) {
	f.update(func(tx state.Tx) error {
		require.NoError(t, tx.PutInstance(full()))
		got, err := tx.Instance("deu")
		require.Equal(t, full(), got)
		require.NoError(t, f.View(f.ctx, func(r state.Reader) error {
			_, err := r.Instance("deu")
			require.ErrorIs(t, err, state.ErrNotFound, "others see it after the commit")
			return nil
		}))
		return err
	})
}

func cancelledChangesNothing(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	err := f.Update(ctx, func(tx state.Tx) error {
		require.NoError(t, tx.PutInstance(full()))
		cancel()
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	called := false
	err = f.Update(ctx, func(state.Tx) error { called = true; return nil })
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, called)
	err = f.View(ctx, func(state.Reader) error { return nil })
	require.ErrorIs(t, err, context.Canceled)
	requireEmpty(t, f)
}

func viewIsOneSnapshot(t *testing.T, f *fixture) {
	f.view(func(r state.Reader) error {
		before, err := r.Instances()
		require.NoError(t, err)
		require.Empty(t, before)
		f.update(func(tx state.Tx) error { return tx.PutInstance(full()) })
		after, err := r.Instances()
		require.Empty(t, after, "a snapshot does not move")
		return err
	})
	f.view(func(r state.Reader) error {
		_, err := r.Instance("deu")
		return err
	})
}

func writersTakeTurns(t *testing.T, f *fixture) {
	const writers, rounds = 8, 10
	f.update(func(tx state.Tx) error { return tx.PutInstance(state.Instance{Name: "deu"}) })
	var wg sync.WaitGroup
	errs := make(chan error, writers*rounds*2)
	for range writers {
		wg.Go(func() {
			for range rounds {
				errs <- f.Update(f.ctx, func(tx state.Tx) error {
					in, err := tx.Instance("deu")
					if err != nil {
						return err
					}
					in.Generation++
					return tx.PutInstance(in)
				})
				errs <- f.View(f.ctx, func(r state.Reader) error {
					_, err := r.Instance("deu")
					return err
				})
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	f.view(func(r state.Reader) error {
		in, err := r.Instance("deu")
		require.EqualValues(t, writers*rounds, in.Generation)
		return err
	})
}

func committedWakes(t *testing.T, f *fixture) {
	woken := f.Committed()
	require.Error(t, f.Update(f.ctx, func(state.Tx) error { return errOnPurpose }))
	select {
	case <-woken:
		t.Fatal("woken by a change that was not made")
	default:
	}
	f.update(func(tx state.Tx) error { return tx.PutInstance(full()) })
	select {
	case <-woken:
	case <-f.ctx.Done():
		t.Fatal("not woken by a commit")
	}
}

// failingLeavesNothing fails each call of a combined write in turn.
func failingLeavesNothing(t *testing.T, f *fixture) {
	broken := state.NewFailing(f.Store, 0, errOnPurpose)
	combined := func(tx state.Tx) error {
		if err := tx.PutInstance(full()); err != nil {
			return err
		}
		if err := tx.StartRun(state.Run{ID: "r1", Instance: "deu", Started: at(0)}); err != nil {
			return err
		}
		seq, err := tx.AddEvent(state.Event{Time: at(0), Instance: "deu", Kind: "ready"})
		if err != nil {
			return err
		}
		_, err = tx.Enqueue(state.Entry{Kind: state.KindWebhook, Instance: "deu", Event: seq, Payload: []byte("{}")})
		return err
	}
	const calls = 6 // Update, four writes, the commit
	for n := 1; n <= calls; n++ {
		broken.FailAt(n)
		require.ErrorIs(t, broken.Update(f.ctx, combined), errOnPurpose, "call %d", n)
		requireEmpty(t, f)
	}
	broken.FailAt(calls + 1)
	require.NoError(t, broken.Update(f.ctx, combined))
	require.Equal(t, calls, broken.Calls())
	broken.FailAt(-1)
	require.ErrorIs(t, broken.View(f.ctx, func(state.Reader) error { return nil }), errOnPurpose)
	_, err := broken.Recover(f.ctx)
	require.ErrorIs(t, err, errOnPurpose)
}

func closedRefuses(t *testing.T, f *fixture) {
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.Update(f.ctx, func(state.Tx) error { return nil }), state.ErrClosed)
	require.ErrorIs(t, f.View(f.ctx, func(state.Reader) error { return nil }), state.ErrClosed)
	_, err := f.Recover(f.ctx)
	require.ErrorIs(t, err, state.ErrClosed)
}
