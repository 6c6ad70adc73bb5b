package bench

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dive-agent/testbed"
)

// A stack of 30 services on which there is nothing to do.
const (
	stackNothing = "stack-nothing"
	stackCalls   = "stack-nothing-calls"
	stackLists   = "stack-nothing-lists"
)

const stackServices = 30

// measureStackNothing times rounds over a stack, and counts at a door of the engine what they ask it. The times are of an agent
// that goes to the engine itself.
func measureStackNothing(ctx context.Context, r *run) error {
	w := r.world
	a, err := w.launch(ctx, "plain-01")
	if err != nil {
		return err
	}
	if err := w.bringPlain(ctx, a, "plain", plainProject, stackServices); err != nil {
		return err
	}
	took, whole, err := a.quietRounds(ctx, "plain")
	if err != nil {
		return err
	}
	r.record(stackNothing, milliseconds(median(took)), "ms", 60, "a round over %d services of a stack; %s; with poll and status, order to answer: %s", stackServices, spread(took), round(median(whole)))
	calls, err := w.callsOfRound(ctx, a, "plain")
	if err != nil {
		return err
	}
	kinds := testbed.ByKind(calls)
	r.record(stackLists, float64(kinds["GET /containers/json"]), "lists", 1, "of containers in such a round")
	r.record(stackCalls, float64(len(calls)), "calls", 4, "to the engine in such a round: %s; none of them inspects a container", countsOf(kinds))
	if n := kinds["GET /containers/*/json"]; n > 0 {
		return fmt.Errorf("%d containers were inspected in a round with nothing to do", n)
	}
	if err := a.stop(ctx); err != nil {
		return err
	}
	return testbed.RemoveProject(ctx, w.engine, plainProject)
}

// callsOfRound has the agent go to the engine through a door that counts, and gives what a round alone asked of it.
func (w *world) callsOfRound(ctx context.Context, a *agentProcess, instance string) (calls []testbed.Call, err error) {
	door, err := testbed.CountCalls(w.host, w.run.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = door.Close() }()
	direct := w.host
	w.host = door.Host
	defer func() { w.host = direct }()
	if err := a.stop(ctx); err != nil {
		return nil, err
	}
	if err := a.start(ctx, true); err != nil {
		return nil, err
	}
	for range 3 { // as it is new, and for what its watch may have missed
		if err := a.sync(ctx, instance); err != nil {
			return nil, err
		}
	}
	commit, err := w.head()
	if err != nil {
		return nil, err
	}
	if err := a.awaitReady(ctx, time.Minute, instance, commit); err != nil {
		return nil, err
	}
	for range 10 {
		before := door.Len()
		rounds, _, err := a.roundTime(ctx, instance)
		if err != nil {
			return nil, err
		}
		if err := a.sync(ctx, instance); err != nil {
			return nil, err
		}
		after, _, err := a.roundTime(ctx, instance)
		if err != nil {
			return nil, err
		}
		if calls = door.Since(before); after == rounds+1 && !scans(calls) {
			return calls, nil
		}
	}
	return nil, fmt.Errorf("none of 10 rounds over %s was alone", instance)
}

// scans says whether a scan of each minute fell among the calls: it inspects each container.
func scans(calls []testbed.Call) bool {
	kinds := testbed.ByKind(calls)
	return kinds["GET /containers/json"] > 1
}

func countsOf(kinds map[string]int) string {
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		words = append(words, fmt.Sprintf("%d %s", kinds[kind], kind))
	}
	return strings.Join(words, ", ")
}
