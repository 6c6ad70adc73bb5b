package source_test

import (
	"bufio"
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
	fmt.Println("ready")
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

// says waits for the child's next line; it may be anything when want is empty.
func says(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	select {
	case line, ok := <-lines:
		require.True(t, ok, "the child ended by itself")
		if want != "" {
			require.Equal(t, want, line)
		}
	case <-time.After(time.Minute):
		t.Fatal("the child says nothing")
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
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		lines := make(chan string, 100)
		go func() {
			defer close(lines)
			for scan := bufio.NewScanner(out); scan.Scan(); {
				lines <- scan.Text()
			}
		}()
		says(t, lines, "ready")
		b.commit("Another", gitserver.Files{"dir0/0": fmt.Sprintf("also in %d", round)})
		if round%4 == 3 { // after its work, the other times in the middle of it
			says(t, lines, "")
		} else {
			select {
			case _, ok := <-lines:
				require.True(t, ok, "the child ended by itself")
			case <-time.After(time.Duration(3*round) * time.Millisecond):
			}
		}
		require.NoError(t, child.Process.Kill())
		for range lines { // until its end
		}
		require.Error(t, child.Wait(), "killed")

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
	require.NoError(t, s.Accept(rev))
	require.NoError(t, s.Keep())
	list, err := filepath.Glob(filepath.Join(b.dir, "snapshots", ".tmp-*"))
	require.NoError(t, err)
	require.Empty(t, list)
}
