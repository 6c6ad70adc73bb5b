package agent

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

// leaving is a ledger in which an entry that is not wanted any more, its address with "former", goes last. Its first apply
// has to wait.
type leaving struct {
	*ledger
	waited *bool
}

func (l leaving) Plan(t reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	p, err := l.ledger.Plan(t, o)
	l.mu.Lock()
	defer l.mu.Unlock()
	if former := "former " + t.ID(); l.entries[former] != "" {
		p.Changes = append(p.Changes, reconcilers.Change{Action: reconcilers.Delete, Address: former, Last: true})
	}
	return p, err
}

func (l leaving) Apply(_ context.Context, t reconcilers.Target, p reconcilers.Plan, _ reconcilers.Progress) (reconcilers.Applied, error) {
	if !*l.waited {
		*l.waited = true
		return reconcilers.Applied{}, &reconcilers.WaitError{For: "a moment"}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, change := range p.Changes {
		l.order = append(l.order, change.Address)
		if change.Last {
			delete(l.entries, change.Address)
		} else {
			l.entries[t.ID()] = p.State.(string)
		}
	}
	return reconcilers.Applied{Outputs: outputsOf(l.entries[t.ID()])}, nil
}

// rolling is a ledger that has a say in when parts are interrupted.
type rolling struct{ *ledger }

func (rolling) Turn(context.Context, reconcilers.Target, reconcilers.Turn, reconcilers.Progress) error {
	return nil
}

func (rolling) Back(context.Context, reconcilers.Target, reconcilers.Turn, reconcilers.Progress) error {
	return nil
}

// What is made last comes after all else, also when its node had to be tried again.
func TestWhatIsMadeLastComesAfterAWait(t *testing.T) {
	w := newWorld(t, [2]string{"stack", "two"}, [2]string{"set", "after ${stack.value}"})
	waited := false
	w.options.reconcilers["Stack"], w.options.reconcilers["Set"] = leaving{w.ledger, &waited}, rolling{w.ledger}
	w.instance.Components[0].Kind, w.instance.Components[1].Kind = "Stack", "Set"
	w.ledger.entries["former stack"] = "one"
	w.clock.asked = make(chan time.Duration)
	go func() {
		for pause := range w.clock.asked {
			w.clock.move(pause)
		}
	}()
	p := w.run(t.Context())
	close(w.clock.asked)
	require.True(t, waited)
	require.Equal(t, []string{"stack", "set", "former stack"}, w.ledger.made())
	require.Equal(t, map[string]NodeState{"stack": NodeDone, "set": NodeDone}, states(p))
}
