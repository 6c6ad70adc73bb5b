package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/report"
)

// removable is a ledger whose entries can be taken away.
type removable struct {
	*ledger
	orders []reconcilers.Removal
	err    error
}

func (r *removable) Trace(t reconcilers.Target) (string, error) { return "of " + t.Component.Name, nil }

func (r *removable) Remove(ctx context.Context, order reconcilers.Removal, progress reconcilers.Progress) error {
	change := reconcilers.Change{Action: reconcilers.Delete, Address: order.Component}
	if err := progress.Begin(ctx, change); err != nil {
		return err
	}
	r.orders = append(r.orders, order)
	progress.End(change, r.err)
	return r.err
}

// departing is a worker whose instance runs, and its manifest said what becomes of that.
func departing(t *testing.T, onRemove string, volumes bool) (*worker, *removable) {
	world := newWorld(t, [2]string{"a", "one"}, [2]string{"b", "two"})
	engine := &removable{ledger: world.ledger}
	world.options.reconcilers = map[string]reconcilers.Reconciler{"Ledger": engine}
	world.instance.OnRemove, world.instance.DestroyVolumes = onRemove, volumes
	w, _ := newHost(t, world)
	w.workers[w.name] = w
	w.round(t.Context(), "test")
	require.Equal(t, "1111111", w.stored(t).Applied)
	return w, engine
}

// gone makes the round in which the worker learns that its manifest is gone, together with those of others.
func (w *worker) gone(t *testing.T, with, meant []string) *report.Status {
	w.noteRemovals(append([]string{w.name}, with...), meant)
	w.remove("")
	w.round(t.Context(), "removed")
	status, err := w.Status(t.Context(), w.name)
	require.NoError(t, err)
	return status
}

func TestWhatAManifestSaidIsDoneWhenItIsGone(t *testing.T) {
	for _, c := range []struct {
		onRemove, news string
		volumes        bool
	}{
		{desired.OnRemoveKeep, "its manifest is gone, what runs was left running", false},
		{desired.OnRemoveStop, "its manifest is gone, and its containers were stopped; its data is left", false},
		{desired.OnRemoveDestroy, "its manifest is gone, and its containers and networks were removed; its volumes are left", false},
		{desired.OnRemoveDestroy, "its manifest is gone, and its containers, networks and volumes were removed; what the volumes held is in ", true},
	} {
		w, engine := departing(t, c.onRemove, c.volumes)
		status := w.gone(t, nil, nil)
		require.Equal(t, report.Removed, status.Phase)
		require.Contains(t, status.News, c.news)
		if c.onRemove == desired.OnRemoveKeep {
			require.Empty(t, engine.orders)
			require.NotEmpty(t, status.Nodes, "what runs is told")
			continue
		}
		require.Empty(t, status.Nodes, "nothing runs any more")
		require.Len(t, engine.orders, 2)
		for i, component := range []string{"b", "a"} {
			order := engine.orders[i]
			require.Equal(t, []any{component, "of " + component, c.onRemove == desired.OnRemoveDestroy}, []any{order.Component, order.Trace, order.Destroy})
			require.Equal(t, c.volumes, order.Archive != "")
		}
		w.round(t.Context(), "removed")
		require.Len(t, engine.orders, 2, "it is done once")
	}
}

func TestARemovalThatFailedIsTriedAgain(t *testing.T) {
	w, engine := departing(t, desired.OnRemoveDestroy, true)
	engine.err = errors.New("no space left")
	status := w.gone(t, nil, nil)
	require.Equal(t, report.Degraded, status.Phase)
	require.Contains(t, status.Why[0], "take away component b: no space left")
	first := engine.orders[0].Archive
	engine.err = nil
	require.Equal(t, report.Removed, w.gone(t, nil, nil).Phase)
	require.Equal(t, first, engine.orders[1].Archive, "what was archived already is found again")
}

func TestInstancesThatVanishTogetherWaitForAWord(t *testing.T) {
	w, engine := departing(t, desired.OnRemoveStop, false)
	require.NoError(t, os.MkdirAll(folderOf(w.Dir, "fra"), 0o700))
	require.NoError(t, removal{OnRemove: desired.OnRemoveDestroy}.write(w.Dir, "fra"))
	status := w.gone(t, []string{"fra"}, nil)
	require.Equal(t, report.Blocked, status.Phase)
	require.Contains(t, status.Next[0], "Merge `removed: [deu]` into the spec of fleet.yaml")
	require.Empty(t, engine.orders)
	require.Equal(t, report.Blocked, w.gone(t, nil, nil).Phase, "also when the other one is no longer there")
	require.Equal(t, report.Removed, w.gone(t, nil, []string{"deu"}).Phase)
	require.Len(t, engine.orders, 2)
}

func TestOnlyWhatWasMergedBeforeCounts(t *testing.T) {
	w, engine := departing(t, desired.OnRemoveKeep, false)
	w.assigned.instance.OnRemove = desired.OnRemoveDestroy // never taken by a round
	w.gone(t, nil, nil)
	require.Empty(t, engine.orders)
	require.NoError(t, os.Remove(filepath.Join(folderOf(w.Dir, w.name), "removal.json")))
	require.Equal(t, report.Removed, w.gone(t, nil, nil).Phase, "an older agent kept nothing")
	require.Empty(t, engine.orders)
}
