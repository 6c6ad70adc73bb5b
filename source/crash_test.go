package source_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/gitremote"
	"dive-agent/source"
	"dive-agent/testbed/gitserver"
)

const (
	crashDir    = "SOURCE_TEST_CRASH_DIR"
	crashRemote = "SOURCE_TEST_CRASH_REMOTE"
)

// followForEver is the process that is killed: it polls, accepts and removes without a pause, and ends with the pipe to its parent.
func followForEver(dir, url string) {
	remote, err := gitremote.New(gitremote.Config{URL: url})
	if err != nil {
		panic(err)
	}
	s, err := source.New(source.Options{Remote: remote, Dir: dir})
	if err != nil {
		panic(err)
	}
	for {
		rev, changed, err := s.Poll(context.Background())
		if err != nil {
			panic(err)
		}
		if changed {
			if err := s.Accept(rev); err != nil {
				panic(err)
			}
		}
		if err := s.Keep(); err != nil {
			panic(err)
		}
		if changed {
			if _, err := fmt.Println(rev.Commit); err != nil {
				return
			}
		}
	}
}

// TestKilledAnywhere kills the process at different points of its work. The next one always finds a whole revision that was
// on the branch, and goes on from there.
func TestKilledAnywhere(t *testing.T) {
	b := newBed(t)
	files := gitserver.Files{}
	for i := range 100 {
		files[fmt.Sprintf("dir%d/%d", i%10, i)] = fmt.Sprint(i)
	}
	b.commit("Start", files)
	accepted := 0
	for round := range 16 {
		// Two changes, of which the second comes while the first may be under way.
		b.commit("Change", gitserver.Files{fmt.Sprintf("dir%d/%d", round%10, round): fmt.Sprintf("changed in %d", round)})
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), crashDir+"="+b.dir, crashRemote+"="+b.repo.Path)
		require.NoError(t, child.Start())
		died := make(chan error, 1)
		go func() { died <- child.Wait() }()
		b.commit("Another", gitserver.Files{"dir0/0": fmt.Sprintf("also in %d", round)})
		select {
		case err := <-died:
			t.Fatalf("it ended by itself: %v", err)
		case <-time.After(time.Duration(10+7*round) * time.Millisecond):
		}
		require.NoError(t, child.Process.Kill())
		require.Error(t, <-died)

		s := b.open()
		require.Empty(t, s.Notices(), "the accepted snapshot is whole")
		if rev, ok := s.Current(); ok {
			accepted++
			tree, err := b.repo.Git("rev-parse", rev.Commit+"^{tree}")
			require.NoError(t, err)
			require.Equal(t, tree, rev.Tree)
			require.Len(t, content(t, rev.Dir), 100)
		}
	}
	require.Positive(t, accepted)
	s := b.open()
	rev, _, err := s.Poll(t.Context())
	require.NoError(t, err)
	require.Equal(t, b.repo.Head("main"), rev.Commit)
	if _, ok := s.Current(); ok {
		_ = s.Accept(rev)
	}
	require.NoError(t, s.Keep())
	list, err := filepath.Glob(filepath.Join(b.dir, "snapshots", ".tmp-*"))
	require.NoError(t, err)
	require.Empty(t, list)
}
