package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
	"dive-agent/secrets"
)

func TestAPlanTellsOfAMissingSecret(t *testing.T) {
	w, _ := newHost(t, newWorld(t, [2]string{"a", "one"}))
	w.keepSnapshot(t, "one")
	dir := w.snapshotDir("1111111")
	file := filepath.Join(dir, "instances", "deu.yaml")
	manifest, err := os.ReadFile(file)
	require.NoError(t, err)
	declared := strings.Replace(string(manifest), "role: spoke", "role: spoke, secrets: {LICENCE: {provide: true}, PIN: {provide: true}}", 1)
	require.NoError(t, os.WriteFile(file, []byte(declared), 0o600))
	preview := func() Preview {
		previews, err := w.Preview(t.Context(), Revision{Commit: "2222222", Dir: dir}, "")
		require.NoError(t, err)
		require.Len(t, previews, 1)
		require.Len(t, previews[0].Nodes[0].Changes, 1)
		return previews[0]
	}
	require.Contains(t, preview().Blocked, "secret LICENCE of deu has to be provided")
	require.Contains(t, preview().Do, "dive-agent secrets set deu PIN")
	store, err := secrets.Open(secrets.Options{Instance: "deu", Dir: filepath.Join(w.Dir, "instances/deu/secrets"), Random: zeros{}, Now: w.Clock.Now})
	require.NoError(t, err)
	for _, name := range []string{"LICENCE", "PIN"} {
		require.NoError(t, store.Set(t.Context(), name, []byte("a value")))
	}
	require.Empty(t, preview().Blocked)
}

func TestAPlanWritesNothingWhereTheAgentWorks(t *testing.T) {
	w, _ := newHost(t, newWorld(t, [2]string{"a", "one"}))
	w.keepSnapshot(t, "one")
	live, previews := filepath.Join(w.Dir, "instances/deu/components/a"), filepath.Join(w.Dir, scratchDir)
	require.NoError(t, os.MkdirAll(filepath.Join(live, "inner"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(live, "inner/state"), []byte("kept"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(live, "program"), []byte("#!"), 0o700))
	require.NoError(t, os.Symlink("inner/state", filepath.Join(live, "link")))
	dead := filepath.Join(previews, "999999999-x")
	require.NoError(t, os.MkdirAll(dead, 0o700))

	looked := false
	w.Reconcilers = map[string]reconcilers.Reconciler{"Ledger": &peeping{ledger: newLedger(), look: func(target reconcilers.Target) {
		looked = true
		require.Equal(t, live, target.CopyOf)
		require.True(t, strings.HasPrefix(target.Dir, previews), target.Dir)
		kept, err := os.ReadFile(filepath.Join(target.Dir, "link"))
		require.NoError(t, err)
		require.Equal(t, "kept", string(kept))
		info, err := os.Stat(filepath.Join(target.Dir, "inner/state"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		require.NoError(t, os.WriteFile(filepath.Join(target.Dir, "inner/state"), []byte("spoilt"), 0o600))
		require.NoError(t, os.Remove(filepath.Join(target.Dir, "program")))
	}}}
	_, err := w.Preview(t.Context(), Revision{Commit: "2222222", Dir: w.snapshotDir("1111111")}, "")
	require.NoError(t, err)
	require.True(t, looked)
	kept, err := os.ReadFile(filepath.Join(live, "inner/state"))
	require.NoError(t, err)
	require.Equal(t, "kept", string(kept))
	require.FileExists(t, filepath.Join(live, "program"))
	left, err := os.ReadDir(previews)
	require.NoError(t, err)
	require.Empty(t, left, "the copy has secrets: it goes, and so does what a plan that was killed left")
}

// peeping is a ledger that is watched.
type peeping struct {
	*ledger
	look func(reconcilers.Target)
}

func (p *peeping) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	p.look(t)
	return p.ledger.Observe(ctx, t)
}
