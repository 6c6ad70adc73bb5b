package atomicfile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"dive-agent/atomicfile"
	"dive-agent/testbed/disk"
)

func TestFullDisk(t *testing.T) {
	disk.Small(t, "64k", func(dir string) {
		path := filepath.Join(dir, "file")
		require.True(t, write(t, path, "old", atomicfile.Options{Mode: 0o640}))
		_, err := atomicfile.Write(path, bytes.Repeat([]byte("new"), 40<<10), atomicfile.Options{})
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorContains(t, err, path)
		require.False(t, write(t, path, "old", atomicfile.Options{Mode: 0o640}), "the old file is as it was, and no part of the new one is left")
		require.True(t, write(t, path, "short", atomicfile.Options{}), "there is room for what fits")
	})
}

// TestContentIsSyncedBeforeItHasItsName: a name that leads to content which never reached the disk is an empty file after
// a power cut.
func TestContentIsSyncedBeforeItHasItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "old", atomicfile.Options{})
	var err error
	disk.WithoutSync(t, func() { _, err = atomicfile.Write(path, []byte("new"), atomicfile.Options{}) })
	require.ErrorIs(t, err, syscall.EIO)
	require.False(t, write(t, path, "old", atomicfile.Options{}), "the old file is as it was, and nothing is beside it")
}

// TestARenameIsSynced: the folder is synced too, and one that cannot be opened for that is an error.
func TestARenameIsSynced(t *testing.T) {
	t.Chdir(t.TempDir())
	const nobody = 65534
	require.NoError(t, os.Chmod(".", 0o300))
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(".", nobody, nobody))
	}
	done := make(chan error)
	go func() {
		if os.Geteuid() == 0 { // root can open anything
			runtime.LockOSThread() // never unlocked: the thread with the other user ends here
			if _, err := unix.SetfsuidRetUid(nobody); err != nil {
				t.Error(err)
			}
		}
		_, err := atomicfile.Write("file", []byte("x"), atomicfile.Options{})
		done <- err
	}()
	require.ErrorIs(t, <-done, os.ErrPermission)
	require.FileExists(t, "file")
}
