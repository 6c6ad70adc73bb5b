package state_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"dive-agent/state"
	"dive-agent/testbed/disk"
)

// TestACommitIsOnTheDisk when Update returns: it fails when the disk cannot say so.
func TestACommitIsOnTheDisk(t *testing.T) {
	s, _ := open(t, t.TempDir())
	put(t, s, "before")
	disk.WithoutSync(t, func() {
		err := s.Update(t.Context(), func(tx state.Tx) error { return tx.PutValue("key", []byte("lost by a power cut")) })
		assert.ErrorContains(t, err, "disk I/O error")
	})
	put(t, s, "after")
	require.Equal(t, []string{"after", "before"}, names(t, s))
}

func TestRealFullDisk(t *testing.T) {
	disk.Small(t, "1m", func(dir string) { fullDisk(t, dir) })
}

func fullDisk(t *testing.T, dir string) {
	s, _ := open(t, dir)
	put(t, s, "before")

	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	var full *state.DiskFullError
	wrote := 0
	for err := error(nil); err == nil; wrote++ {
		require.Less(t, wrote, 10_000, "the disk never gets full")
		err = s.Update(t.Context(), func(tx state.Tx) error {
			return tx.PutValue(fmt.Sprint("key", wrote), make([]byte, 8<<10))
		})
		if err != nil {
			require.ErrorAs(t, err, &full)
		}
	}
	require.Contains(t, names(t, s), "before", "what was written is still read")

	_, _, err := state.Open(t.Context(), state.Options{Dir: mkdir(t, dir)})
	require.ErrorAs(t, err, &full, "a new state needs room too")

	require.NoError(t, os.Remove(ballast))
	put(t, s, "after")
	require.NoError(t, s.Close())
	s, notices := open(t, dir)
	require.Empty(t, notices, "a full disk damages nothing")
	require.Equal(t, []string{"after", "before"}, names(t, s))
	require.NoError(t, s.Close())

	// The same, started on a full disk.
	fill(t, ballast)
	again, _, err := state.Open(t.Context(), state.Options{Dir: dir})
	if err != nil {
		require.ErrorAs(t, err, &full)
	} else {
		require.NoError(t, again.Close())
	}
	require.NoError(t, os.Remove(ballast))
	s, notices = open(t, dir)
	require.Empty(t, notices)
	require.Equal(t, []string{"after", "before"}, names(t, s))
}

func mkdir(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "another")
	require.NoError(t, os.MkdirAll(path, 0o700))
	return path
}

// fill takes all room there is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for _, size := range []int{64 << 10, 4 << 10} {
		for range 1000 {
			if _, err = f.Write(make([]byte, size)); err != nil {
				break
			}
		}
		require.True(t, errors.Is(err, syscall.ENOSPC), "%v", err)
	}
}
