package compose

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// counted has the reconciler of a world go to the engine through a door that counts.
func (w *world) counted() *testbed.Calls {
	door, err := testbed.CountCalls(testbed.Host(w.t), w.t.TempDir())
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, door.Close()) })
	straight := w.engine
	w.engine, err = testbed.Connect(door.Host)
	require.NoError(w.t, err)
	through := w.engine
	w.t.Cleanup(func() { _ = through.Close() })
	w.restart()
	w.engine = straight
	return door
}

// survey looks at parts as a round does, gives what is planned for each, and what the engine was asked for it. To find whose a
// container is that came or left a network the watch asks by its ID: that is not the survey's, and may be about another stack.
func (w *world) survey(door *testbed.Calls, parts ...string) (changes map[string]int, kinds map[string]int) {
	w.t.Helper()
	begin := door.Len()
	ctx, changes := (&reconcilers.Survey{}).In(w.t.Context()), map[string]int{}
	for _, part := range parts {
		o, err := w.r.Observe(ctx, w.target(part))
		require.NoError(w.t, err, part)
		p, err := w.r.Plan(w.target(part), o)
		require.NoError(w.t, err, part)
		if len(p.Changes) > 0 {
			changes[part] = len(p.Changes)
		}
	}
	calls := slices.DeleteFunc(door.Since(begin), func(c testbed.Call) bool {
		return c.Path == "/containers/json" && strings.Contains(c.Query, url.QueryEscape(`"id":`))
	})
	return changes, testbed.ByKind(calls)
}

// scanned waits until the first scan of a watch is over, and so many containers at rest were seen. A late event of one makes it
// be forgotten again: it is seen by the next look.
func (w *world) scanned(containers int, looks ...func()) {
	testbed.Eventually(w.t, 10*time.Second, "the first scan is over", func() error {
		for _, look := range looks {
			look()
		}
		w.r.stream.scanning.Lock()
		defer w.r.stream.scanning.Unlock()
		w.r.witness.mu.Lock()
		defer w.r.witness.mu.Unlock()
		if seen := len(w.r.witness.seen); seen != containers {
			return fmt.Errorf("%d containers were seen, of %d", seen, containers)
		}
		return nil
	})
}

const (
	inspects = "GET /containers/*/json"
	lists    = "GET /containers/json"
)

// A round over a stack of which nothing was heard asks for one list, and inspects no container; one of which something was heard
// is inspected, and it alone.
func TestASurveyAsksForOneListAndInspectsWhatIsNew(t *testing.T) {
	t.Parallel()
	const services = 6
	file := "services:\n"
	parts := []string{SharedPart}
	for i := range services {
		parts = append(parts, fmt.Sprintf("s%d", i))
		file += "  " + parts[i+1] + ": {image: \"${IMAGE}\", init: true, command: [sleep, \"1000\"], volumes: [\"data:/data\"]}\n"
	}
	w := newWorld(t, file+"volumes: {data: {}}\n")
	door := w.counted()
	w.up(parts[1:]...)

	changes, kinds := w.survey(door, parts...)
	require.Empty(t, changes)
	require.Equal(t, services, kinds[inspects], "nobody hears the engine: each is inspected")

	woken := w.watching(t)
	w.scanned(services, func() { w.survey(door, parts...) })
	for range 3 {
		changes, kinds = w.survey(door, parts...)
		require.Empty(t, changes)
	}
	require.Equal(t, map[string]int{lists: 1, "GET /networks": 1, "GET /volumes": 1, "GET /images/*/json": 1}, kinds, "no container is inspected")

	_, err := w.engine.ContainerUpdate(t.Context(), w.inspect("s1").ID, client.ContainerUpdateOptions{Resources: &container.Resources{CPUShares: 100}})
	require.NoError(t, err)
	hear(t, woken, "s1")
	changes, kinds = w.survey(door, parts...)
	require.Equal(t, map[string]int{"s1": 1}, changes, "what the list does not tell")
	require.Equal(t, 1, kinds[inspects], "the one of which an event told: %v", kinds)
	changes, kinds = w.survey(door, parts...)
	require.Equal(t, map[string]int{"s1": 1}, changes, "it is still so")
	require.Zero(t, kinds[inspects])

	_, err = w.engine.ContainerPause(t.Context(), w.inspect("s2").ID, client.ContainerPauseOptions{})
	require.NoError(t, err)
	hear(t, woken, "s2")
	for range 2 { // what is about to change is not kept
		changes, kinds = w.survey(door, parts...)
		require.Equal(t, map[string]int{"s1": 1, "s2": 1}, changes)
		require.Equal(t, 1, kinds[inspects], "%v", kinds)
	}
}

// What inspect said is not used once the engine's events are not heard any more.
func TestAWitnessThatHearsNothingIsNotAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, oneService)
	door := w.counted()
	w.up("web")
	ctx, cancel := context.WithCancel(t.Context())
	ended, woken := make(chan error, 1), make(chan string, 100)
	go func() { ended <- w.r.Watch(ctx, w.target(""), func(part string) { woken <- part }) }()
	hear(t, woken, "")
	w.scanned(1)
	_, kinds := w.survey(door, "web")
	require.Zero(t, kinds[inspects])
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	_, kinds = w.survey(door, "web")
	require.Equal(t, 1, kinds[inspects])
}

// Two stacks are told of what happens to their own containers, by one stream.
func TestOneStreamForAllStacks(t *testing.T) {
	t.Parallel()
	one, other := newWorld(t, oneService), newWorld(t, oneService)
	door := one.counted()
	other.r = one.r
	one.up("web")
	other.up("web")
	begin := door.Len()
	first, second := one.watching(t), other.watching(t)
	_, err := one.engine.ContainerPause(t.Context(), one.inspect("web").ID, client.ContainerPauseOptions{})
	require.NoError(t, err)
	hear(t, first, "web")
	_, err = other.engine.NetworkDisconnect(t.Context(), other.project+"_default", client.NetworkDisconnectOptions{Container: other.inspect("web").ID})
	require.NoError(t, err)
	hear(t, second, "web")
	require.Equal(t, 1, testbed.ByKind(door.Since(begin))["GET /events"])
	require.Empty(t, first, "the other stack's container")
}
