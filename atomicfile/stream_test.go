package atomicfile_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/atomicfile"
)

func TestStreamIsWholeOrNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	full := errors.New("full")
	_, err := atomicfile.Stream(path, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return full
	})
	require.ErrorIs(t, err, full)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Empty(t, entries)

	size, err := atomicfile.Stream(path, func(w io.Writer) error {
		_, err := io.WriteString(w, "whole")
		return err
	})
	require.NoError(t, err)
	require.EqualValues(t, 5, size)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}
