package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// keepSnapshot puts the fleet of a world's first revision where the source keeps its snapshot.
func (w *worker) keepSnapshot(t *testing.T, value string) {
	w.Kinds = []desired.Kind{{Name: "Ledger", New: func() any { return &entry{} }}}
	for name, text := range map[string]string{
		"fleet.yaml":         "kind: Fleet\nmetadata: {name: test}\nspec: {}\n",
		"hosts/host-01.yaml": "kind: Host\nmetadata: {name: host-01}\nspec: {}\n",
		"instances/deu.yaml": "kind: Instance\nmetadata: {name: deu}\nspec: {role: spoke, host: host-01, components: {a: {kind: Ledger, value: " + value + "}}}\n",
	} {
		path := filepath.Join(w.snapshotDir("1111111"), name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte("apiVersion: dive/v1alpha1\n"+text), 0o600))
	}
}

// declare assigns another content as a merge does.
func (w *worker) declare(commit, digest, value string) {
	instance := *w.assigned.instance
	instance.Digest = digest
	component := *instance.Components[0]
	component.Spec = &entry{Value: desired.Literal(value)}
	instance.Components = []*desired.Component{&component}
	instance.Graph = &desired.Graph{Nodes: []*desired.Node{{ID: "a", Component: &component}}}
	w.assign(&assignment{revision: Revision{Commit: commit, Dir: w.assigned.revision.Dir}, fleet: w.assigned.fleet, instance: &instance})
}

// What was rejected for now is tried again by itself, ever later; meanwhile what was applied is kept.
func TestWhatIsRejectedForNowIsTriedAgain(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	w, _ := newHost(t, world)
	w.keepSnapshot(t, "one")
	w.round(t.Context(), "test")
	world.ledger.hook["a"] = func(context.Context, reconcilers.Progress) error {
		world.ledger.entries["a"] = "one"
		return &reconcilers.RejectedError{Message: "the registry does not answer", PutBack: "nothing was changed", Again: true}
	}
	w.declare("2222222", "second", "two")
	tried, last := len(world.ledger.made()), time.Duration(0)
	for range 4 {
		require.Zero(t, w.round(t.Context(), "test"))
		tried++
		require.Len(t, world.ledger.made(), tried)
		wait := w.round(t.Context(), "test")
		require.Len(t, world.ledger.made(), tried, "it is not time yet")
		require.Greater(t, wait, last)
		require.Equal(t, "1111111", w.stored(t).Applied)
		require.Equal(t, NodeDone, w.view.Nodes[0].State, "what runs is held against what was applied")
		world.clock.move(wait)
		last = wait
	}
	delete(world.ledger.hook, "a")
	w.round(t.Context(), "test")
	require.Equal(t, "2222222", w.stored(t).Applied)
	require.Equal(t, "Ready", w.stored(t).Phase)
}

func TestARejectedContentIsTriedAgainOnlyWhenItChangesOrAPersonAsks(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	w, _ := newHost(t, world)
	w.keepSnapshot(t, "one")
	w.round(t.Context(), "test")
	world.ledger.hook["a"] = func(context.Context, reconcilers.Progress) error {
		world.ledger.entries["a"] = "one"
		return &reconcilers.RejectedError{Message: "exited with 3", PutBack: "put back to one"}
	}
	w.declare("2222222", "second", "two")
	w.take()
	require.Zero(t, w.round(t.Context(), "test"))
	require.Equal(t, "rejected", w.take(), "the next round, at the applied revision, is due at once")
	tried := 2
	for _, commit := range []string{"2222222", "3333333"} { // the same content under another commit is the same
		w.declare(commit, "second", "two")
		require.Equal(t, w.resync(), w.round(t.Context(), "test"))
		require.Len(t, world.ledger.made(), tried)
		kept := w.stored(t)
		require.Equal(t, "1111111", kept.Applied)
		require.Equal(t, "2222222", kept.Rejected.Revision)
		require.Equal(t, "Degraded", kept.Phase)
		require.Equal(t, NodeDone, w.view.Nodes[0].State, "what runs is held against what was applied")
	}
	world.ledger.entries["a"] = "drifted"
	w.round(t.Context(), "test")
	require.Len(t, world.ledger.made(), tried, "an engine that puts nothing back by itself is only observed")

	w.retry = true
	w.round(t.Context(), "test")
	require.Len(t, world.ledger.made(), tried+1)
	require.Equal(t, "3333333", w.stored(t).Rejected.Revision)

	delete(world.ledger.hook, "a")
	w.declare("4444444", "fourth", "four")
	w.round(t.Context(), "test")
	kept := w.stored(t)
	require.Equal(t, "4444444", kept.Applied)
	require.Nil(t, kept.Rejected)
	require.Equal(t, "Ready", kept.Phase)
}

func TestAFirstDeploymentIsTriedAgainWhenWhatWasLeftRunningGetsHealthy(t *testing.T) {
	for name, stays := range map[string]bool{"it was left running": true, "an earlier version was put back": false} {
		world := newWorld(t, [2]string{"a", "one"}, [2]string{"b", "after ${a.value}"})
		w, _ := newHost(t, world)
		world.instance.Components[0].Position = desired.Position{File: "blueprints/b.yaml", Line: 7, Column: 5}
		world.ledger.hook["a"] = func(context.Context, reconcilers.Progress) error {
			delete(world.ledger.hook, "a")
			world.ledger.entries["a"] = "starting"
			return &reconcilers.RejectedError{Message: "not healthy within 3m", Stays: stays}
		}
		require.Zero(t, w.round(t.Context(), "test"))
		require.Equal(t, w.resync(), w.round(t.Context(), "test"), "%s: it is only looked at", name)
		require.Equal(t, []string{"a"}, world.ledger.made(), name)
		next := statusOf(w.situation(w.stored(t), w.assigned, nil)).Next[0]
		require.Equal(t, stays, strings.Contains(next, "1111111 is tried again when a is healthy"), next)
		require.Contains(t, next, "See blueprints/b.yaml:7:5", name)

		world.ledger.health = "healthy"
		again := w.round(t.Context(), "event")
		if !stays {
			require.Equal(t, w.resync(), again, name)
			require.False(t, w.retry, name)
			continue
		}
		require.Equal(t, backoffFirst, again, name)
		w.round(t.Context(), "schedule")
		require.Equal(t, []string{"a", "a", "b"}, world.ledger.made(), name)
		require.Equal(t, "Ready", w.stored(t).Phase, name)
		require.Nil(t, w.stored(t).Rejected, name)
	}
}
