package keycloak

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A disk that was full while the state was written leaves it cut off, and the whole of it as errored.tfstate in the working
// directory: that one is put back, since it is newer than every copy.
func TestAStateThatCouldNotBeWrittenIsPutBack(t *testing.T) {
	dir := t.TempDir()
	w := &workspace{dir: dir, module: filepath.Join(dir, "module"), state: filepath.Join(dir, "terraform.tfstate"), copies: filepath.Join(dir, "copies")}
	require.NoError(t, os.MkdirAll(w.module, 0o700))
	state := func(serial, resources int) []byte {
		text := fmt.Sprintf(`{"version":4,"serial":%d,"lineage":"one","resources":[{"mode":"managed","type":"keycloak_role","name":"each","instances":[`, serial)
		for i := range resources {
			text += fmt.Sprintf(`{"index_key":%d,"attributes":{}},`, i)
		}
		return []byte(text[:len(text)-1] + "]}]}")
	}
	require.NoError(t, os.WriteFile(w.state, state(3, 3), 0o600))
	_, err := keepCopy(w.state, w.copies)
	require.NoError(t, err)
	whole := state(7, 8)
	require.NoError(t, os.WriteFile(w.state, whole[:len(whole)/2], 0o600))
	errored := filepath.Join(w.module, "errored.tfstate")
	require.NoError(t, os.WriteFile(errored, whole, 0o600))

	r := &record{Serial: 3, Lineage: "one"}
	broken, err := readState(w.state)
	require.ErrorContains(t, lost(broken, err, r), "the state file cannot be read")
	from, err := restore(w, r, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	require.NoError(t, err)
	require.Equal(t, "errored", from)
	back, err := readState(w.state)
	require.NoError(t, err)
	require.NoError(t, lost(back, nil, r))
	require.Equal(t, 8, back.managed())
	require.NoFileExists(t, errored)
	require.FileExists(t, w.state+".lost-20260301T120000.000", "what was cut off is kept aside")
}
