package atomicfile_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/atomicfile"
)

// TestFullDisk works on a small filesystem of its own, in a process with its
// own mounts so that nothing is left of it.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv("ATOMICFILE_TEST_DISK"); dir != "" {
		onSmallDisk(t, dir)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), "ATOMICFILE_TEST_DISK="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS: TestFullDisk")
}

func onSmallDisk(t *testing.T, dir string) {
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	path := filepath.Join(dir, "file")
	require.True(t, write(t, path, "old", atomicfile.Options{Mode: 0o640}))
	_, err := atomicfile.Write(path, bytes.Repeat([]byte("new"), 40<<10), atomicfile.Options{})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, path)
	require.False(t, write(t, path, "old", atomicfile.Options{Mode: 0o640}), "the old file is as it was, and no part of the new one is left")
	require.True(t, write(t, path, "short", atomicfile.Options{}), "there is room for what fits")
}
