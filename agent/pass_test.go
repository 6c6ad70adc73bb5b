package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/state"
)

func TestOutputsDecideTheOrder(t *testing.T) {
	w := newWorld(t, [2]string{"c", "c after ${b.value}"}, [2]string{"b", "b after ${a.value}"}, [2]string{"a", "first"})
	w.instance.Graph.Nodes[0], w.instance.Graph.Nodes[2] = w.instance.Graph.Nodes[2], w.instance.Graph.Nodes[0]
	p := w.run(t.Context())
	require.Equal(t, []string{"a", "b", "c"}, w.ledger.made())
	require.Equal(t, "c after b after first", w.ledger.entries["c"])
	require.Equal(t, map[string]NodeState{"a": NodeDone, "b": NodeDone, "c": NodeDone}, states(p))
	outcome, _ := p.outcome(t.Context())
	require.Equal(t, state.Done, outcome)
}

func TestASecondPassChangesAndRecordsNothing(t *testing.T) {
	w := newWorld(t, [2]string{"a", "first"}, [2]string{"b", "${a.value}"})
	w.run(t.Context())
	recorded := len(w.recorder.lines)
	w.run(t.Context())
	require.Len(t, w.recorder.lines, recorded)
	require.Len(t, w.ledger.made(), 2)
}

func TestAChangedOutputUpdatesExactlyItsConsumers(t *testing.T) {
	w := newWorld(t, [2]string{"a", "${1 + 1}"}, [2]string{"b", "uses ${a.value}"}, [2]string{"c", "alone"})
	w.run(t.Context())
	changed, _ := desired.ParseExpr("three", desired.Position{})
	w.instance.Components[0].Spec.(*entry).Value = changed
	w.run(t.Context())
	require.Equal(t, []string{"a", "b"}, w.ledger.made()[3:])
	require.Equal(t, "uses three", w.ledger.entries["b"])
}

func TestWhatTheSurveyPlannedIsNotPlannedAgain(t *testing.T) {
	w := newWorld(t, [2]string{"a", "first"}, [2]string{"b", "b after ${a.value}"}, [2]string{"c", "alone"})
	w.instance.Graph.Nodes[2].Needs = []desired.Edge{{On: "b"}}
	w.run(t.Context())
	require.Equal(t, map[string]int{"a": 1, "b": 2, "c": 2}, w.ledger.looks, "only what builds on nothing that changes keeps its plan")
}

func TestAnOldPlanIsMadeAgain(t *testing.T) {
	w := newWorld(t, [2]string{"a", "first"})
	p := newPass(w.options)
	require.True(t, p.survey(t.Context()))
	w.ledger.entries["a"] = "first" // somebody did it meanwhile
	w.clock.move(fresh)
	p.apply(t.Context())
	require.Empty(t, w.ledger.made())
	require.Equal(t, NodeDone, states(p)["a"])
}

func TestAPlanWithUnknownValuesIsNotApplied(t *testing.T) {
	w := newWorld(t, [2]string{"a", "first"}, [2]string{"b", ""})
	w.options.scope = desired.NewScope(map[string]desired.Value{"later": desired.Unknown()})
	w.instance.Components[1].Spec.(*entry).Value, _ = desired.ParseExpr("uses ${later}", desired.Position{})
	done := make(chan struct{})
	close(done)
	w.options.interrupt = done
	p := w.run(t.Context())
	require.Equal(t, []string{"a"}, w.ledger.made())
	require.Equal(t, NodeWaiting, states(p)["b"])
	require.Equal(t, "waits for later", p.views()[1].Message)
}

func TestADestroyWaitsForItsDigest(t *testing.T) {
	w := newWorld(t, [2]string{"a", "one"}, [2]string{"b", "uses ${a.value}"})
	w.run(t.Context())
	spec := w.instance.Components[0].Spec.(*entry)
	spec.Value, spec.Destroys = desired.Literal("two"), true
	p := w.run(t.Context())
	view := p.views()[0]
	require.Equal(t, NodeBlocked, view.State)
	require.Equal(t, "ApprovalRequired", view.Reason)
	require.Len(t, view.Digest, 16)
	require.Equal(t, "waits for approval of 1 destroy ("+view.Digest+"): a", view.Message)
	require.Contains(t, view.Do, "instances/deu.yaml")
	require.Contains(t, view.Do, "approve: {a: "+view.Digest+"}")
	require.Equal(t, "one", w.ledger.entries["a"])

	w.instance.Approve["a"] = "0123456789abcdef"
	require.Equal(t, NodeBlocked, states(w.run(t.Context()))["a"], "another digest lets nothing through")
	w.instance.Approve["a"] = view.Digest
	require.Equal(t, NodeDone, states(w.run(t.Context()))["a"])
	require.Equal(t, "two", w.ledger.entries["a"])
	require.Equal(t, "uses two", w.ledger.entries["b"])
}

func TestARejectedPartStopsWhatHasNotBegun(t *testing.T) {
	w := newWorld(t, [2]string{"a", "one"}, [2]string{"b", "uses ${a.value}"})
	w.ledger.hook["a"] = func(context.Context, reconcilers.Progress) error {
		return &reconcilers.RejectedError{Message: "exited with 3", PutBack: "put back to 2.0.4", Logs: []string{"config: no"}}
	}
	p := w.run(t.Context())
	require.Equal(t, []string{"a"}, w.ledger.made())
	view := rejection(p)
	require.NotNil(t, view)
	require.Equal(t, "exited with 3; put back to 2.0.4", view.Message)
	require.Equal(t, []string{"config: no"}, view.Logs)
	require.NotEqual(t, NodeDone, states(p)["b"])
}

func TestARejectedPartEndsTheWaitsOfOthers(t *testing.T) {
	w := newWorld(t, [2]string{"a", "one"}, [2]string{"b", "two"})
	w.ledger.entries["b"] = "two"
	w.ledger.errs["b"] = &reconcilers.WaitError{For: "a vote"}
	w.ledger.hook["a"] = func(context.Context, reconcilers.Progress) error {
		return &reconcilers.RejectedError{Message: "exited with 3"}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	p := w.run(ctx)
	require.Equal(t, map[string]NodeState{"a": NodeRejected, "b": NodePending}, states(p))
	require.Equal(t, errRejected.Error(), p.views()[1].Message)
}

// TestNothingIsTouchedBeforeTheImagesAreThere, in an instance that runs no less than in a new one.
func TestNothingIsTouchedBeforeTheImagesAreThere(t *testing.T) {
	for _, applied := range []bool{false, true} {
		w := newWorld(t, [2]string{"a", "one"}, [2]string{"b", "two"})
		w.instance.Graph.Nodes[0].Part = "@images"
		w.options.applied = applied
		w.ledger.hook["a/@images"] = func(context.Context, reconcilers.Progress) error { return errors.New("no such image") }
		p := w.run(t.Context())
		require.Equal(t, []string{"a/@images"}, w.ledger.made())
		require.Equal(t, map[string]NodeState{"a": NodeFailed, "b": NodeWaiting}, states(p))
	}
}

func TestStartedIsEnoughWhereTheEdgeSaysSo(t *testing.T) {
	w := newWorld(t, [2]string{"service", "up"}, [2]string{"set", "initiated"})
	w.instance.Graph.Nodes[1].Needs = []desired.Edge{{On: "service", Started: true}}
	w.ledger.hook["service"] = func(ctx context.Context, p reconcilers.Progress) error {
		p.Started()
		for { // healthy only once the set is there
			w.ledger.mu.Lock()
			_, there := w.ledger.entries["set"]
			w.ledger.mu.Unlock()
			if there {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.Equal(t, map[string]NodeState{"service": NodeDone, "set": NodeDone}, states(w.run(ctx)))
}

func TestAChangeThatIsStillGoingOnIsSeenByWhatNeedsOnlyItsStart(t *testing.T) {
	w := newWorld(t, [2]string{"service", "up"}, [2]string{"set", "initiated"})
	w.instance.Graph.Nodes[1].Needs = []desired.Edge{{On: "service", Started: true}}
	w.ledger.entries["set"] = "initiated"
	again := make(chan struct{})
	w.ledger.looked = func(id string, times int) {
		if id == "set" && times == 2 {
			close(again)
		}
	}
	w.ledger.hook["service"] = func(ctx context.Context, p reconcilers.Progress) error {
		p.Started()
		select {
		case <-again:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.Equal(t, map[string]NodeState{"service": NodeDone, "set": NodeDone}, states(w.run(ctx)))
}

func TestACancelledPassStopsAtTheSafePoint(t *testing.T) {
	w := newWorld(t, [2]string{"a", "one"}, [2]string{"b", "uses ${a.value}"})
	ctx, cancel := context.WithCancelCause(t.Context())
	w.ledger.hook["a"] = func(context.Context, reconcilers.Progress) error { cancel(errSuperseded); return nil }
	p := w.run(ctx)
	require.Equal(t, []string{"a"}, w.ledger.made(), "the change that had begun was finished, no other one begun")
	outcome, message := p.outcome(ctx)
	require.Equal(t, state.Cancelled, outcome)
	require.Equal(t, errSuperseded.Error(), message)
}

func TestACancelledPassBeginsNoChange(t *testing.T) {
	w := newWorld(t, [2]string{"a", "one"})
	ctx, cancel := context.WithCancelCause(t.Context())
	p := newPass(w.options)
	require.True(t, p.survey(ctx))
	cancel(errSuspended) // the plan is made already; what is left is to begin
	p.apply(ctx)
	require.Empty(t, w.ledger.made())
	require.Empty(t, w.recorder.lines)
	require.Equal(t, NodePending, states(p)["a"])
}

func TestAStepThatCannotBeRecordedIsNotDone(t *testing.T) {
	w := newWorld(t, [2]string{"a", "one"})
	w.recorder.fails = errors.New("no space left")
	p := w.run(t.Context())
	require.Empty(t, w.ledger.made())
	require.Equal(t, NodeFailed, states(p)["a"])
	require.Contains(t, p.views()[0].Message, "no space left")
}

func TestWaitingIsNoFailureAndEndsWhenInterrupted(t *testing.T) {
	w := newWorld(t, [2]string{"other", "x"}, [2]string{"a", "one"})
	w.ledger.entries["a"] = "one"
	w.ledger.errs["a"] = &reconcilers.WaitError{For: "approval by the hub", Again: 7 * time.Second}
	w.clock.asked = make(chan time.Duration, 1)
	interrupt := make(chan struct{})
	w.options.interrupt = interrupt
	ended := make(chan *pass, 1)
	go func() { ended <- w.run(t.Context()) }()
	require.Equal(t, 7*time.Second, <-w.clock.asked)
	close(interrupt)
	p := <-ended
	require.Equal(t, NodeWaiting, states(p)["a"])
	require.Equal(t, "waits for approval by the hub", p.views()[1].Message)
	require.Equal(t, 7*time.Second, p.again())
	outcome, _ := p.outcome(t.Context())
	require.Equal(t, state.Waiting, outcome)
}

func TestWhatWaitedIsLookedAtAgain(t *testing.T) {
	w := newWorld(t, [2]string{"other", "x"}, [2]string{"a", "one"})
	w.ledger.entries["a"] = "one"
	w.ledger.errs["a"] = &reconcilers.WaitError{For: "a vote", Again: time.Second}
	w.clock.asked = make(chan time.Duration, 1)
	ended := make(chan *pass, 1)
	go func() { ended <- w.run(t.Context()) }()
	<-w.clock.asked
	w.ledger.mu.Lock()
	delete(w.ledger.errs, "a")
	w.ledger.mu.Unlock()
	w.clock.move(time.Second)
	require.Equal(t, NodeDone, states(<-ended)["a"])
}

func TestAWaitLooksAgainEverMoreSeldomAndEnds(t *testing.T) {
	w := newWorld(t, [2]string{"other", "x"}, [2]string{"a", "one"})
	w.ledger.entries["a"] = "one"
	w.ledger.errs["a"] = &reconcilers.WaitError{For: "a vote"}
	w.clock.asked = make(chan time.Duration)
	ended := make(chan *pass, 1)
	go func() { ended <- w.run(t.Context()) }()
	var pauses []time.Duration
	for begun, p := w.clock.Now(), (*pass)(nil); p == nil; {
		select {
		case pause := <-w.clock.asked:
			pauses = append(pauses, pause)
			w.clock.move(pause)
			require.LessOrEqual(t, w.clock.Now().Sub(begun), patience+waitLast, "the pass never ends")
		case p = <-ended:
			require.Equal(t, NodeWaiting, states(p)["a"])
			require.Greater(t, w.clock.Now().Sub(begun), patience)
		}
	}
	require.Equal(t, []time.Duration{waitFirst, 2 * waitFirst, 4 * waitFirst}, pauses[:3])
	require.Equal(t, waitLast, pauses[len(pauses)-1])
}

func TestHealingDoesNotWaitForWhatIsNotReady(t *testing.T) {
	for _, applied := range []bool{false, true} {
		w := newWorld(t, [2]string{"hub", "x"}, [2]string{"front", "y"})
		w.instance.Graph.Nodes[1].Needs = []desired.Edge{{On: "hub"}}
		w.ledger.entries["hub"] = "x"
		w.ledger.errs["hub"] = errors.New("the hub is away")
		w.options.applied = applied
		p := w.run(t.Context())
		require.Equal(t, NodeFailed, states(p)["hub"])
		if applied {
			require.Equal(t, NodeDone, states(p)["front"], "what ran before is healed")
		} else {
			require.Equal(t, NodeWaiting, states(p)["front"])
		}
	}
}

func TestASecretOutputIsKnownToTheRedactorBeforeAnyoneUsesIt(t *testing.T) {
	w := newWorld(t, [2]string{"a", "one"}, [2]string{"b", "uses ${a.token}"})
	var learned []string
	w.options.learn = func(v desired.Value) { learned = append(learned, v.Text()) }
	p := w.run(t.Context())
	require.Contains(t, learned, "token-of-one")
	require.Contains(t, p.views()[1].Plan[0].Reason, "(secret)")
	require.NotContains(t, p.views()[1].Plan[0].Reason, "token-of-one")
}

func TestPlanDigestIsOfContentAlone(t *testing.T) {
	plan := reconcilers.Plan{Changes: []reconcilers.Change{{Action: reconcilers.Delete, Address: "realm", Destroys: true}}, Content: "x"}
	same := reconcilers.Plan{Changes: []reconcilers.Change{{Action: reconcilers.Delete, Address: "realm", Destroys: true}}, Content: "x", State: 1}
	require.Equal(t, PlanDigest("identity", plan), PlanDigest("identity", same))
	same.Content = "y"
	require.NotEqual(t, PlanDigest("identity", plan), PlanDigest("identity", same))
}

func TestBackoffDoublesToAQuarterOfAnHour(t *testing.T) {
	b := backoff{random: zeros{}}
	waits := []time.Duration{b.next(), b.next(), b.next()}
	require.Equal(t, []time.Duration{750 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second}, waits)
	for range 30 {
		require.LessOrEqual(t, b.next(), backoffLast)
	}
	require.Equal(t, backoffLast, b.next())
	b.reset()
	require.Equal(t, 750*time.Millisecond, b.next())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// That a person wants another try of what was given up reaches the reconcilers.
func TestRetryReachesReconcilers(t *testing.T) {
	w := newWorld(t, [2]string{"a", "1"})
	for _, asked := range []bool{true, false} {
		w.options.retry = asked
		p := newPass(w.options)
		target, err := p.target(p.nodes["a"])
		require.NoError(t, err)
		require.Equal(t, asked, target.Retry)
	}
}
