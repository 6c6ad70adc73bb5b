package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/report"
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
	w.retry = true
	require.Positive(t, w.round(t.Context(), "test"), "it is tried again")
	failing.FailAt(0)
	require.Equal(t, "1111111", w.stored(t).Applied)
	require.ErrorContains(t, w.view.Err, "the disk is away")
	require.True(t, w.retry, "what a person asked for is not forgotten")
}

func TestARunWhoseEndCouldNotBeRecordedIsNotToldToBeRunning(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	w, failing := newHost(t, world)
	world.ledger.hook["a"] = func(context.Context, reconcilers.Progress) error { failing.FailAt(-1); return nil }
	w.round(t.Context(), "test")
	failing.FailAt(0)
	w.round(t.Context(), "test")
	require.NoError(t, w.Store.View(t.Context(), func(r state.Reader) error {
		runs, err := r.Runs(w.name, 0)
		require.NoError(t, err)
		require.Len(t, runs, 1)
		require.Equal(t, state.Done, runs[0].Outcome)
		steps, err := r.Steps(runs[0].ID)
		require.Equal(t, state.Done, steps[0].Outcome)
		return err
	}))
	require.Empty(t, w.owed)
}

// TestNewsAreToldOnceTheyAreKept: on a full disk neither the socket nor the log tells of a phase that the state does not know,
// and the log tells once that it cannot be kept.
func TestNewsAreToldOnceTheyAreKept(t *testing.T) {
	w, failing := newHost(t, newWorld(t, [2]string{"a", "one"}))
	var log bytes.Buffer
	w.log = slog.New(slog.NewTextHandler(&log, nil))
	phases := func() (told []string) {
		events, _ := w.bus.after(0)
		for _, e := range events {
			if e.Kind == "phase" {
				told = append(told, e.State)
			}
		}
		return told
	}
	w.round(t.Context(), "test")
	told := phases()
	require.Equal(t, "Ready", told[len(told)-1])
	suspended := state.Instance{Name: w.name, Applied: "1111111", Suspended: &state.Suspension{By: "ann"}}
	publish := func() { (&round{worker: w, known: suspended, next: w.assigned}).publish(t.Context(), nil, nil) }
	failing.FailAt(-1)
	for range 3 {
		publish()
	}
	require.Equal(t, 1, strings.Count(log.String(), "cannot keep the status"))
	for n := 1; w.view.Unkept != nil; n++ { // up to the commit
		require.Equal(t, told, phases())
		failing.FailAt(n)
		publish()
	}
	require.Equal(t, append(told, "Suspended"), phases())
}

// TestAReportThatIsRefusedStandsInTheStatus: who reads the status need not read the log for it.
func TestAReportThatIsRefusedStandsInTheStatus(t *testing.T) {
	w, _ := newHost(t, newWorld(t, [2]string{"a", "one"}))
	w.workers[w.name] = w
	w.round(t.Context(), "test")
	require.NoError(t, w.Store.Update(t.Context(), func(tx state.Tx) error {
		id, err := tx.Enqueue(state.Entry{Kind: state.KindStatus, Instance: w.name, Key: "status"})
		require.NoError(t, err)
		return tx.Failed(id, w.Clock.Now(), "the forge refuses the status branch: protected")
	}))
	status, err := w.Status(t.Context(), w.name)
	require.NoError(t, err)
	require.Equal(t, report.Ready, status.Phase)
	require.Len(t, status.Visible(), 1)
	require.Equal(t, "StatusBranchRefused", status.Visible()[0].Reason)
	require.Contains(t, status.Why[0], "protected")
}

// TestAComponentThatLeftIsToldOf: what it made runs on, and the status says so until its folder is taken away.
func TestAComponentThatLeftIsToldOf(t *testing.T) {
	w, _ := newHost(t, newWorld(t, [2]string{"a", "one"}))
	w.workers[w.name] = w
	folder := filepath.Join(w.Dir, "instances", w.name, "components", "stack")
	require.NoError(t, os.MkdirAll(folder, 0o700))
	why := func() []string {
		w.round(t.Context(), "test")
		status, err := w.Status(t.Context(), w.name)
		require.NoError(t, err)
		require.Equal(t, report.Ready, status.Phase)
		return status.Why
	}
	require.Empty(t, why(), "it kept nothing")
	require.NoError(t, os.WriteFile(filepath.Join(folder, "@shared.json"), nil, 0o600))
	require.Equal(t, []string{"no longer declared, what they made was left and may still run: stack"}, why())
	require.NoError(t, os.RemoveAll(folder))
	require.Empty(t, why())
}

func TestAnInstanceWithoutComponentsSaysWhyItIsPending(t *testing.T) {
	w, _ := newHost(t, newWorld(t))
	w.workers[w.name] = w
	w.round(t.Context(), "test")
	status, err := w.Status(t.Context(), w.name)
	require.NoError(t, err)
	require.Equal(t, report.Pending, status.Phase)
	require.Equal(t, []string{"it declares no components: there is nothing to do"}, status.Why)
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

// inTheMiddle makes an instance of two entries, of which the second is made of the first, and does something while the
// first is being made.
func inTheMiddle(t *testing.T, do func(*worker) error) (*worker, *ledger) {
	world := newWorld(t, [2]string{"a", "one"}, [2]string{"b", "after ${a.value}"})
	w, _ := newHost(t, world)
	w.workers[w.name] = w
	world.ledger.hook["a"] = func(context.Context, reconcilers.Progress) error { return do(w) }
	w.round(t.Context(), "test")
	require.Equal(t, []string{"a"}, world.ledger.made(), "what had begun was finished, no other change begun")
	return w, world.ledger
}

func TestASuspensionEndsTheRoundAndHoldsUntilResumed(t *testing.T) {
	w, ledger := inTheMiddle(t, func(w *worker) error { return w.Suspend(t.Context(), w.name, "ann", "by hand") })
	require.Equal(t, heartbeat, w.round(t.Context(), "test"), "others see that the agent lives")
	require.Equal(t, []string{"a"}, ledger.made())
	require.Equal(t, "Suspended", w.stored(t).Phase)
	require.Equal(t, "ann", w.stored(t).Suspended.By)
	require.NoError(t, w.Resume(t.Context(), w.name))
	w.round(t.Context(), "test")
	require.Equal(t, []string{"a", "b"}, ledger.made())
	require.Equal(t, "Ready", w.stored(t).Phase)
}

func TestWhatARoundPublishesKeepsASuspensionThatCameMeanwhile(t *testing.T) {
	w, _ := inTheMiddle(t, func(w *worker) error {
		return errors.Join(w.Suspend(t.Context(), w.name, "ann", "by hand"), &reconcilers.RejectedError{Message: "exited with 3"})
	})
	require.NotNil(t, w.stored(t).Rejected)
	require.NotNil(t, w.stored(t).Suspended)
}

func TestAnotherContentEndsTheRound(t *testing.T) {
	w, ledger := inTheMiddle(t, func(w *worker) error { w.declare("2222222", "second", "two"); return nil })
	w.round(t.Context(), "test")
	require.Equal(t, []string{"a", "a"}, ledger.made())
	require.Equal(t, "2222222", w.stored(t).Applied)
}

func TestADrainEndsTheRoundAndBeginsNoOther(t *testing.T) {
	w, ledger := inTheMiddle(t, func(w *worker) error { return w.Drain(t.Context()) })
	w.round(t.Context(), "test")
	require.Equal(t, []string{"a"}, ledger.made())
	require.NoError(t, w.Store.View(t.Context(), func(r state.Reader) error {
		runs, err := r.Runs(w.name, 0)
		require.Len(t, runs, 1)
		require.Equal(t, state.Cancelled, runs[0].Outcome)
		return err
	}))
}

func TestAForeignMachineTouchesNothing(t *testing.T) {
	for name, spoil := range map[string]func(*worker){
		"by the manifest": func(w *worker) {
			w.assigned.fleet.Hosts = map[string]*desired.Host{"host-01": {MachineID: "another"}}
		},
		"by the state": func(w *worker) {
			bound := state.Instance{Name: w.name, Host: w.Host, MachineID: "another", Attempted: "1111111"}
			require.NoError(t, w.Store.Update(t.Context(), func(tx state.Tx) error { return tx.PutInstance(bound) }))
		},
	} {
		world := newWorld(t, [2]string{"a", "one"})
		w, _ := newHost(t, world)
		spoil(w)
		require.Equal(t, w.resync(), w.round(t.Context(), "test"), name)
		require.Empty(t, world.ledger.made(), name)
		require.ErrorContains(t, w.view.Err, "another", name)
	}
}

func TestEachMissingSecretHasItsOwnWayOut(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	world.instance.Secrets = []desired.SecretSpec{{Name: "LICENCE", Provide: true}, {Name: "PIN", Provide: true}}
	w, _ := newHost(t, world)
	w.workers[w.name] = w
	w.round(t.Context(), "test")
	status, err := w.Status(t.Context(), "deu")
	require.NoError(t, err)
	require.Equal(t, []string{"Put it there with: dive-agent secrets set deu LICENCE", "Put it there with: dive-agent secrets set deu PIN", "more on this: docs/blocked.md#secretmissing"}, status.Next)
}

func TestFailuresAreTriedAgainEverLaterUntilASuccess(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	w, _ := newHost(t, world)
	fail := func(want ...time.Duration) {
		t.Helper()
		world.ledger.errs["a"] = errors.New("away")
		for _, pause := range want {
			require.Equal(t, pause, w.round(t.Context(), "test"))
		}
		delete(world.ledger.errs, "a")
	}
	require.Equal(t, w.resync(), w.round(t.Context(), "test"))
	fail(backoffFirst, 2*backoffFirst, 4*backoffFirst)
	require.Equal(t, w.resync(), w.round(t.Context(), "test"))
	fail(backoffFirst)
}

func TestTheSnapshotOfWhatWasAppliedIsInUse(t *testing.T) {
	w, _ := newHost(t, newWorld(t, [2]string{"a", "one"}))
	w.round(t.Context(), "test")
	w.revision = &Revision{Commit: "2222222"}
	commits, err := w.InUse(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"1111111", "2222222"}, commits)
}
