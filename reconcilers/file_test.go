package reconcilers_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

func TestReadInsideKeepsToItsFolder(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "folder")
	require.NoError(t, os.Mkdir(folder, 0o700))
	whole := strings.Repeat("x", 1<<20)
	for name, content := range map[string]string{"outside": "o", "folder/ca": whole, "folder/large": whole + "x"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	require.NoError(t, os.Symlink("../outside", filepath.Join(folder, "link")))

	text, err := reconcilers.ReadInside(folder, "ca")
	require.NoError(t, err)
	require.Equal(t, whole, text)
	_, err = reconcilers.ReadInside(folder, "large")
	require.EqualError(t, err, "large is larger than 1048576 bytes")
	for _, name := range []string{"link", "../outside", filepath.Join(dir, "outside")} {
		_, err = reconcilers.ReadInside(folder, name)
		require.ErrorContains(t, err, "escapes", name)
	}
	_, err = reconcilers.ReadInside(folder, "missing")
	require.ErrorIs(t, err, os.ErrNotExist)
}
