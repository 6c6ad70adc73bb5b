package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

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
