package agent

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
	"dive-agent/state"
)

// returning is a ledger that puts back by itself what was there.
type returning struct{ *ledger }

func (returning) RollsBack() {}

// canReturn is a host with one instance, whose first content can be brought back.
func canReturn(t *testing.T) (*world, *worker, *state.Failing) {
	world := newWorld(t, [2]string{"a", "one"})
	world.options.reconcilers = map[string]reconcilers.Reconciler{"Ledger": returning{world.ledger}}
	world.instance.Digest = "first"
	w, failing := newHost(t, world)
	w.workers[w.name] = w
	w.keepSnapshot(t, "one")
	return world, w, failing
}

func TestAPersonGoesBackToWhatWasReadyBefore(t *testing.T) {
	world, w, _ := canReturn(t)
	_, _, err := w.Rollback(t.Context(), "deu", "ann", "")
	require.ErrorContains(t, err, "deu was never ready")
	w.round(t.Context(), "test")
	_, _, err = w.Rollback(t.Context(), "deu", "ann", "")
	require.ErrorContains(t, err, "no revision before 1111111 is known under which deu was ready")

	w.declare("2222222", "second", "two")
	w.round(t.Context(), "test")
	require.Equal(t, "two", world.ledger.entries["a"])
	kept, err := w.InUse(t.Context())
	require.NoError(t, err)
	require.Subset(t, kept, []string{"1111111", "2222222"}, "the snapshot that one may go back to is kept")

	from, to, err := w.Rollback(t.Context(), "deu", "ann", "wrong audience")
	require.NoError(t, err)
	require.Equal(t, []string{"2222222", "1111111"}, []string{from, to})
	w.round(t.Context(), "rollback")
	require.Equal(t, "one", world.ledger.entries["a"])
	stored := w.stored(t)
	require.Equal(t, []string{"1111111", "2222222", "rolled back by ann: wrong audience", "Degraded"}, []string{stored.Applied, stored.Rejected.Revision, stored.Rejected.Reason, stored.Phase})
	status, err := w.Status(t.Context(), "deu")
	require.NoError(t, err)
	require.Equal(t, []string{"rolled back by ann: wrong audience"}, status.Why)

	// It stays so: over rounds, over a restart, and under another commit of the same content.
	w.declare("3333333", "second", "two")
	w.round(t.Context(), "test")
	require.Equal(t, "one", world.ledger.entries["a"])
	_, _, err = w.Rollback(t.Context(), "deu", "ann", "")
	require.ErrorContains(t, err, "was rejected already")

	_, err = w.Sync("deu", true)
	require.NoError(t, err)
	w.round(t.Context(), "sync")
	require.Equal(t, "two", world.ledger.entries["a"])
	require.Nil(t, w.stored(t).Rejected)
	_, to, err = w.Rollback(t.Context(), "deu", "ann", "")
	require.NoError(t, err)
	require.Equal(t, "1111111", to)
}

func TestWhatIsUnderWayIsRolledBackToWhatWasReadyLast(t *testing.T) {
	world, w, _ := canReturn(t)
	w.round(t.Context(), "test")
	world.ledger.hook["a"] = func(context.Context, reconcilers.Progress) error {
		world.ledger.entries["a"] = "two"
		return errors.New("it is not ready")
	}
	w.declare("2222222", "second", "two")
	w.round(t.Context(), "test")
	require.Equal(t, "1111111", w.stored(t).Applied)
	delete(world.ledger.hook, "a")
	_, to, err := w.Rollback(t.Context(), "deu", "ann", "")
	require.NoError(t, err)
	require.Equal(t, "1111111", to)
	w.round(t.Context(), "rollback")
	require.Equal(t, "one", world.ledger.entries["a"])
}

func TestARollbackThatCannotBeRecordedIsNotCarriedOut(t *testing.T) {
	world, w, failing := canReturn(t)
	w.round(t.Context(), "test")
	w.declare("2222222", "second", "two")
	w.round(t.Context(), "test")
	_, _, err := w.Rollback(context.WithoutCancel(t.Context()), "deu", "ann", "")
	require.NoError(t, err)
	failing.FailAt(2)
	w.round(t.Context(), "rollback")
	failing.FailAt(0)
	require.Equal(t, "two", world.ledger.entries["a"])
	require.Equal(t, "2222222", w.stored(t).Applied)
}
