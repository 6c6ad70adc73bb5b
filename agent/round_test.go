package agent

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/secrets"
	"dive-agent/state"
)

// newHost makes an agent with a store on disk and one worker that is assigned an instance of the world's graph.
func newHost(t *testing.T, w *world) (*worker, *state.Failing) {
	store, notices, err := state.Open(t.Context(), state.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	require.Empty(t, notices)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	failing := state.NewFailing(store, 0, errors.New("the disk is away"))
	a := New(t.Context(), Options{
		Host: "host-01", MachineID: "machine", Dir: t.TempDir(), Store: failing, Clock: w.clock, Random: zeros{},
		IDs: state.NewIDs(w.clock.Now, zeros{}), Reconcilers: w.options.reconcilers, Redactor: secrets.NewRedactor(),
		Secrets: HostSecrets{Random: zeros{}, Now: w.clock.Now},
	})
	on := newWorker(a, w.instance.Name)
	on.assigned = &assignment{
		revision: Revision{Commit: "1111111", Dir: t.TempDir()}, fleet: &desired.Fleet{}, instance: w.instance,
	}
	return on, failing
}

func (w *worker) stored(t *testing.T) (kept state.Instance) {
	require.NoError(t, w.Store.View(t.Context(), func(r state.Reader) (err error) {
		kept, err = r.Instance(w.name)
		return err
	}))
	return kept
}

func TestAStateThatCannotBeReadIsNotWrittenOver(t *testing.T) {
	w, failing := newHost(t, newWorld(t, [2]string{"a", "one"}))
	w.round(t.Context(), "test")
	require.Equal(t, "1111111", w.stored(t).Applied)
	failing.FailAt(1)
	require.Positive(t, w.round(t.Context(), "test"), "it is tried again")
	failing.FailAt(0)
	require.Equal(t, "1111111", w.stored(t).Applied)
	require.ErrorContains(t, w.view.Err, "the disk is away")
}

func TestARejectionIsKeptWhenTheAgentStopsMeanwhile(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	w, _ := newHost(t, world)
	world.ledger.hook["a"] = func(context.Context, reconcilers.Progress) error {
		w.stop()
		return &reconcilers.RejectedError{Message: "exited with 3", PutBack: "put back to 2.0.4"}
	}
	w.round(t.Context(), "test")
	require.NotNil(t, w.stored(t).Rejected)
	require.Equal(t, "1111111", w.stored(t).Rejected.Revision)
}

func TestASuspensionThatFallsIntoTheBeginningOfARoundHoldsForIt(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	w, failing := newHost(t, world)
	w.workers[w.name] = w
	w.Store = &afterView{Store: failing, do: func() { require.NoError(t, w.Suspend(t.Context(), w.name, "ann", "by hand")) }}
	w.round(t.Context(), "test")
	require.Empty(t, world.ledger.made())
}

// afterView is a store that does something after its first View.
type afterView struct {
	state.Store
	once sync.Once
	do   func()
}

func (s *afterView) View(ctx context.Context, fn func(state.Reader) error) error {
	err := s.Store.View(ctx, fn)
	s.once.Do(s.do)
	return err
}
