package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
)

// restarted makes another agent over the same state, as a restart does, and gives it a revision that declares the
// instance, or none.
func (w *worker) restarted(t *testing.T, declared bool) *Agent {
	w.keepSnapshot(t, "one")
	dir := w.snapshotDir("1111111")
	if !declared {
		require.NoError(t, os.Remove(filepath.Join(dir, "instances", "deu.yaml")))
	}
	a := New(t.Context(), w.Options)
	require.NoError(t, a.Recover(t.Context()))
	require.NoError(t, a.Take(Revision{Commit: "2222222", Dir: dir}))
	t.Cleanup(func() { require.NoError(t, a.Drain(context.WithoutCancel(t.Context()))) })
	return a
}

// afterRound gives the instance's status after the first round.
func (a *Agent) afterRound(t *testing.T) *report.Status {
	for seq := int64(0); ; {
		events, more := a.EventsAfter(seq)
		for _, e := range events {
			if seq = e.Seq; e.Kind == "round" {
				status, err := a.Status(t.Context(), "deu")
				require.NoError(t, err)
				return status
			}
		}
		select {
		case <-more:
		case <-t.Context().Done():
			t.Fatal("no round was made")
		}
	}
}

func TestAnInstanceWhoseManifestWentWhileTheAgentWasDownIsToldOf(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	w, _ := newHost(t, world)
	w.round(t.Context(), "test")
	seen := world.clock.Now()
	world.clock.move(time.Hour)
	for range 2 { // also by the second agent that never saw the manifest
		status := w.restarted(t, false).afterRound(t)
		require.Equal(t, report.Removed, status.Phase)
		require.Len(t, status.Nodes, 1, "what was seen of it last is told")
		require.Equal(t, seen, status.Seen)
		require.Equal(t, "Removed", w.stored(t).Phase)
	}
	require.Len(t, world.ledger.made(), 1)
	require.NoError(t, os.RemoveAll(filepath.Join(w.Dir, "instances", "deu")))
	_, err := w.restarted(t, false).Status(t.Context(), "deu")
	require.ErrorContains(t, err, "none is bound to this host", "its folder was deleted: it was taken away")
}

func TestOfASuspendedInstanceIsToldWhenItWasSeen(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	w, _ := newHost(t, world)
	w.workers[w.name] = w
	w.round(t.Context(), "test")
	seen := world.clock.Now()
	require.NoError(t, w.Suspend(t.Context(), "deu", "ann", "by hand"))
	world.clock.move(time.Hour)
	w.round(t.Context(), "test")
	for _, a := range []*Agent{w.Agent, w.restarted(t, true)} {
		if a != w.Agent {
			a.afterRound(t)
		}
		status, err := a.Status(t.Context(), "deu")
		require.NoError(t, err)
		require.Equal(t, report.Suspended, status.Phase)
		require.Len(t, status.Nodes, 1)
		require.Equal(t, seen, status.Seen)
		require.Contains(t, status.Text(report.TextOptions{Now: world.clock.Now()}), "as seen 1 h ago")
	}
	require.NoError(t, w.Resume(t.Context(), "deu"))
	w.round(t.Context(), "test")
	status, err := w.Status(t.Context(), "deu")
	require.NoError(t, err)
	require.Zero(t, status.Seen)
}
