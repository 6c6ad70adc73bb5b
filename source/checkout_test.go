package source_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/source"
	"dive-agent/testbed/gitserver"
)

func TestFetchOfAnotherRevision(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"a": "1"})
	s := b.open()
	good := b.accepted(s)
	_, err := b.repo.Git("branch", "add-deu", "main")
	require.NoError(t, err)
	proposed := b.repo.Commit(t, "add-deu", "Add DEU", gitserver.Files{"instances/deu.yaml": "deu"})
	_, err = b.repo.Git("update-ref", "refs/pull/7/head", proposed)
	require.NoError(t, err)
	_, err = b.repo.Git("-c", "user.name=t", "-c", "user.email=t@example.org", "tag", "-a", "-m", "v1", "v1", proposed)
	require.NoError(t, err)

	for _, what := range []string{"add-deu", "refs/pull/7/head", "v1", proposed} {
		rev, remove, err := s.Fetch(t.Context(), what)
		require.NoError(t, err, what)
		require.Equal(t, proposed, rev.Commit)
		require.Equal(t, "Add DEU", rev.Subject)
		require.Equal(t, map[string]string{"a": "1", "instances/deu.yaml": "deu"}, content(t, rev.Dir))
		require.NoError(t, remove())
		require.NoError(t, remove())
		require.NoDirExists(t, rev.Dir)
	}
	for _, what := range []string{"no-such-branch", proposed[:10], strings.Repeat("1", 40), "-x", "a b", ""} {
		_, _, err := s.Fetch(t.Context(), what)
		require.Error(t, err, what)
	}
	_, _, err = s.Fetch(t.Context(), proposed[:10])
	require.ErrorContains(t, err, "all of its 40 digits")
	current, _ := s.Current()
	require.Equal(t, good, current)
}

func TestFetchRefusesTheSameTrees(t *testing.T) {
	b := newBed(t)
	b.repo.Commit(t, "evil", "Evil", gitserver.Files{"a": "1", "l": gitserver.Symlink("../../x")})
	_, _, err := b.open().Fetch(t.Context(), "evil")
	require.ErrorAs(t, err, new(*source.TreeError))
	require.NoDirExists(t, filepath.Join(b.dir, "checkouts"))
}

func TestKeepRemovesWhatInterruptedWritesLeft(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"a": "1"})
	s := b.open()
	first := b.accepted(s)
	b.commit("Second", gitserver.Files{"a": "2"})
	second := b.accepted(s)
	b.commit("Third", gitserver.Files{"a": "3"})
	open, _, err := s.Poll(t.Context())
	require.NoError(t, err)
	left := filepath.Join(b.dir, "snapshots", ".tmp-half")
	require.NoError(t, os.MkdirAll(filepath.Join(left, "dir"), 0o700))
	require.NoError(t, os.Symlink(second.Dir, filepath.Join(left, "dir", "link")))
	require.NoError(t, os.Chmod(filepath.Join(left, "dir"), 0o500))

	require.NoError(t, s.Keep(first.Commit))
	var names []string
	list, err := os.ReadDir(filepath.Join(b.dir, "snapshots"))
	require.NoError(t, err)
	for _, d := range list {
		names = append(names, d.Name())
	}
	require.ElementsMatch(t, []string{first.Commit, second.Commit, open.Commit}, names)
	require.Equal(t, map[string]string{"a": "2"}, content(t, second.Dir), "what a link led to is still there")
	require.NoError(t, s.Keep())
	_, err = os.Stat(first.Dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
}
