package atomicfile_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/atomicfile"
)

func write(t *testing.T, path, content string, opts atomicfile.Options) bool {
	t.Helper()
	changed, err := atomicfile.Write(path, []byte(content), opts)
	require.NoError(t, err)
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, content, string(got))
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing else is left beside the file")
	return changed
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestWriteSaysWhetherItChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.True(t, write(t, path, "one", atomicfile.Options{}))
	require.False(t, write(t, path, "one", atomicfile.Options{}))
	first := inode(t, path)
	require.True(t, write(t, path, "two", atomicfile.Options{}))
	require.NotEqual(t, first, inode(t, path), "a reader of the old file keeps it whole")
	require.True(t, write(t, path, "", atomicfile.Options{}))
	require.False(t, write(t, path, "", atomicfile.Options{}))
}

func TestModeAndOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	check := func(mode os.FileMode, uid, gid int) {
		t.Helper()
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode())
		require.Equal(t, [2]uint32{uint32(uid), uint32(gid)},
			[2]uint32{info.Sys().(*syscall.Stat_t).Uid, info.Sys().(*syscall.Stat_t).Gid})
	}
	me, mine := os.Getuid(), os.Getgid()
	write(t, path, "x", atomicfile.Options{})
	check(0o600, me, mine)
	before := inode(t, path)
	require.True(t, write(t, path, "x", atomicfile.Options{Mode: 0o440}))
	check(0o440, me, mine)
	require.Equal(t, before, inode(t, path), "the mode alone is changed in place")

	owner := &atomicfile.Owner{UID: me, GID: mine}
	require.False(t, write(t, path, "x", atomicfile.Options{Mode: 0o440, Owner: owner}))
	if me != 0 {
		_, err := atomicfile.Write(path, []byte("y"), atomicfile.Options{Owner: &atomicfile.Owner{UID: 999, GID: 999}})
		require.ErrorIs(t, err, os.ErrPermission)
		return
	}
	owner = &atomicfile.Owner{UID: 999, GID: 998}
	require.True(t, write(t, path, "x", atomicfile.Options{Mode: 0o400, Owner: owner}))
	check(0o400, 999, 998)
	require.True(t, write(t, path, "z", atomicfile.Options{Mode: 0o400, Owner: owner}))
	check(0o400, 999, 998)
}

func TestLinkIsReplacedNotFollowed(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(elsewhere, []byte("same"), 0o644))
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.Symlink(elsewhere, path))
	require.True(t, write(t, path, "same", atomicfile.Options{}))
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.True(t, info.Mode().IsRegular())
	got, err := os.ReadFile(elsewhere)
	require.NoError(t, err)
	require.Equal(t, "same", string(got))
}

func TestErrorsLeaveTheOldFile(t *testing.T) {
	dir := t.TempDir()
	_, err := atomicfile.Write(filepath.Join(dir, "missing", "file"), []byte("x"), atomicfile.Options{})
	require.ErrorIs(t, err, os.ErrNotExist)
	folder := filepath.Join(dir, "folder")
	require.NoError(t, os.Mkdir(folder, 0o700))
	_, err = atomicfile.Write(folder, []byte("x"), atomicfile.Options{})
	require.ErrorContains(t, err, "a folder of that name")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestConcurrentWritersLeaveOneOfTheContents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, err := atomicfile.Write(path, bytes.Repeat([]byte{byte('a' + i)}, 5000), atomicfile.Options{})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat(got[:1], 5000), got)
}

// TestKilledWriter kills a process that rewrites a file as fast as it can.
func TestKilledWriter(t *testing.T) {
	const size = 64 << 10
	if path := os.Getenv("ATOMICFILE_TEST_PATH"); path != "" {
		for i := 0; ; i++ {
			if _, err := atomicfile.Write(path, bytes.Repeat([]byte{byte('a' + i%26)}, size), atomicfile.Options{}); err != nil {
				t.Fatal(err)
			}
			fmt.Println(i)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for round := range 5 {
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilledWriter$")
		cmd.Env = append(os.Environ(), "ATOMICFILE_TEST_PATH="+path)
		lines := 0
		cmd.Stdout = writerFunc(func(p []byte) (int, error) {
			if lines += bytes.Count(p, []byte("\n")); lines > 10+round {
				_ = cmd.Process.Kill()
			}
			return len(p), nil
		})
		require.Error(t, cmd.Run())
		require.NoError(t, ctx.Err())
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Len(t, got, size)
		require.True(t, bytes.Equal(bytes.Repeat(got[:1], size), got), "the file is whole")
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".file.writing-123"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "others.writing-1"), nil, 0o600))
	require.NoError(t, atomicfile.Sweep(dir))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2, "only what Write left is swept away")
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
