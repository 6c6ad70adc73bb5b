package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// A member fails, and the set waits for it: what failed is tried again while the pass goes on, and not after it.
func TestWhatFailedIsTriedAgainWhileOthersWait(t *testing.T) {
	w := newWorld(t, [2]string{"member", "x"}, [2]string{"set", "y"}, [2]string{"front", "z"})
	w.ledger.entries["member"], w.ledger.entries["set"] = "x", "y"
	w.ledger.errs["member"] = errors.New("the disk is full")
	w.ledger.errs["set"] = &reconcilers.WaitError{For: "member", Again: time.Minute}
	w.instance.Graph.Nodes[2].Needs = []desired.Edge{{On: "member"}}
	w.clock.asked = make(chan time.Duration)
	ended := make(chan *pass, 1)
	go func() { ended <- w.run(t.Context()) }()
	asked := []time.Duration{<-w.clock.asked, <-w.clock.asked}
	require.ElementsMatch(t, []time.Duration{tryAgain, time.Minute}, asked)
	w.clock.move(tryAgain)
	require.Equal(t, 2*tryAgain, <-w.clock.asked, "it is tried ever more seldom")
	w.ledger.mu.Lock()
	clear(w.ledger.errs)
	w.ledger.mu.Unlock()
	w.clock.move(time.Minute)
	p := <-ended
	require.Equal(t, map[string]NodeState{"member": NodeDone, "set": NodeDone, "front": NodeDone}, states(p))
}

// A pass ends with a failure as soon as nothing else goes on in it.
func TestAFailureEndsThePassWhenNothingElseGoesOn(t *testing.T) {
	w := newWorld(t, [2]string{"member", "x"}, [2]string{"set", "y"}, [2]string{"front", "z"})
	w.ledger.entries["member"], w.ledger.entries["set"] = "x", "y"
	w.ledger.errs["member"] = errors.New("the disk is full")
	w.ledger.errs["set"] = &reconcilers.WaitError{For: "a vote", Again: time.Second}
	w.instance.Graph.Nodes[2].Needs = []desired.Edge{{On: "member"}}
	w.clock.asked = make(chan time.Duration)
	ended := make(chan *pass, 1)
	go func() { ended <- w.run(t.Context()) }()
	<-w.clock.asked
	<-w.clock.asked
	w.ledger.mu.Lock()
	delete(w.ledger.errs, "set")
	w.ledger.mu.Unlock()
	w.clock.move(time.Second)
	p := <-ended
	require.Equal(t, map[string]NodeState{"member": NodeFailed, "set": NodeDone, "front": NodeWaiting}, states(p))
}
