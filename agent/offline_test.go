package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

func TestOfflineComparesManifests(t *testing.T) {
	instance := func(name, more string) string {
		return "kind: Instance\nmetadata: {name: " + name + "}\nspec:\n  role: spoke\n  host: host-01\n  secrets: {PIN: {generate: {}}}\n  components:\n" + more
	}
	component := func(name, value string) string { return "    " + name + ": {kind: Ledger, value: \"" + value + "\"}\n" }
	write := func(instances map[string]string) string {
		dir := t.TempDir()
		for name, text := range map[string]string{"fleet.yaml": "kind: Fleet\nmetadata: {name: test}\nspec: {}\n", "hosts/host-01.yaml": "kind: Host\nmetadata: {name: host-01}\nspec: {}\n"} {
			instances[name] = text
		}
		for name, text := range instances {
			path := filepath.Join(dir, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
			require.NoError(t, os.WriteFile(path, []byte("apiVersion: dive/v1alpha1\n"+text), 0o600))
		}
		return dir
	}
	base := write(map[string]string{
		"instances/deu.yaml": instance("deu", component("a", "one ${PIN}")+component("old", "x")),
		"instances/est.yaml": instance("est", component("a", "one")),
		"instances/fra.yaml": instance("fra", component("a", "one")),
	})
	head := write(map[string]string{
		"instances/deu.yaml": instance("deu", component("a", "two ${upper(PIN)} ${b.token} ${b.value}")+component("b", "x")),
		"instances/est.yaml": instance("est", component("a", "one")),
		"instances/gbr.yaml": instance("gbr", component("a", "one")),
	})
	options := OfflineOptions{
		Kinds:       []desired.Kind{{Name: "Ledger", New: func() any { return &entry{} }}},
		Reconcilers: map[string]reconcilers.Reconciler{"Ledger": newLedger()},
	}
	previews, unchanged, err := Offline(t.Context(), head, base, options)
	require.NoError(t, err)
	require.Equal(t, 1, unchanged)
	var lines []string
	for _, p := range previews {
		require.True(t, p.Offline)
		for _, n := range p.Nodes {
			for _, c := range n.Changes {
				line := p.Instance + " " + string(c.Action) + " " + c.Address
				for _, d := range c.Differences {
					line += " " + d.Path + ": " + d.Before + " -> " + d.After
				}
				lines = append(lines, line)
			}
		}
	}
	require.Equal(t, []string{
		"deu create component b",
		"deu update component a value: one (secret) -> two (secret) (secret) (known after apply)",
		"deu delete component old", "fra delete instance fra", "gbr create component a",
	}, lines)

	previews, unchanged, err = Offline(t.Context(), head, head, options)
	require.NoError(t, err)
	require.Empty(t, previews)
	require.Equal(t, 3, unchanged)

	options.Instance = "gbr"
	previews, _, err = Offline(t.Context(), head, "", options)
	require.NoError(t, err)
	require.Len(t, previews, 1)
	options.Instance = "xyz"
	_, _, err = Offline(t.Context(), head, "", options)
	var unknown *UnknownError
	require.ErrorAs(t, err, &unknown)

	require.NoError(t, os.WriteFile(filepath.Join(head, "instances/gbr.yaml"), []byte("kind: nonsense\n"), 0o600))
	var problems desired.Problems
	_, _, err = Offline(t.Context(), head, base, options)
	require.ErrorAs(t, err, &problems)
	_, _, err = Offline(t.Context(), filepath.Join(head, "none"), "", options)
	require.ErrorContains(t, err, "is not a folder")
}

// outliner is a ledger whose entries cannot be planned yet.
type outliner struct{ *ledger }

func (outliner) Outline(_ context.Context, t reconcilers.Target) (reconcilers.Outline, error) {
	secret, err := t.Component.Spec.(*entry).Value.Eval(t.Scope)
	return reconcilers.Outline{Items: []reconcilers.Item{{Address: "thing " + withoutStandIns.Replace(secret.Text())}}, Note: "by its text"}, err
}

func TestAPlanTellsWhatAComponentThatWaitsWillConsistOf(t *testing.T) {
	w, _ := newHost(t, newWorld(t, [2]string{"a", "one"}))
	w.keepSnapshot(t, "one")
	engine := outliner{newLedger()}
	w.Reconcilers = map[string]reconcilers.Reconciler{"Ledger": engine}
	engine.errs["a"] = &reconcilers.WaitError{For: "its server"}
	engine.entries["a"] = "one"
	preview := func() PreviewNode {
		previews, err := w.Preview(t.Context(), Revision{Commit: "2222222", Dir: w.snapshotDir("1111111")}, "")
		require.NoError(t, err)
		return previews[0].Nodes[0]
	}
	told := preview()
	require.Equal(t, "waits for its server", told.Waits)
	require.Equal(t, "thing one", told.Changes[0].Address)
	require.Equal(t, "by its text", told.Note)
	engine.errs["a"] = nil
	require.Empty(t, preview().Changes, "what can be planned is planned")
}
