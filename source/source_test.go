package source_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/gitremote"
	"dive-agent/source"
	"dive-agent/testbed/gitserver"
)

func TestFollowsTheBranch(t *testing.T) {
	b := newBed(t)
	first := b.commit("Start the fleet\n\nWith care.", gitserver.Files{"fleet.yaml": "a: 1\n", "instances/usa.yaml": "usa\n", "shared": gitserver.Symlink("instances")})
	s := b.open()
	_, ok := s.Current()
	require.False(t, ok)

	rev, changed, err := s.Poll(t.Context())
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, first, rev.Commit)
	require.Equal(t, "Start the fleet", rev.Subject)
	require.Equal(t, "Test Bed <testbed@example.org>", rev.Author)
	require.Equal(t, "main", rev.Branch)
	require.Equal(t, map[string]string{"fleet.yaml": "a: 1\n", "instances/usa.yaml": "usa\n", "shared": "-> instances"}, content(t, rev.Dir))

	b.server.ResetRequests()
	same, changed, err := s.Poll(t.Context())
	require.NoError(t, err)
	require.True(t, changed, "a revision is handed out until it is accepted or refused")
	require.Equal(t, rev, same)
	require.Len(t, b.server.Requests(), 1, "and fetched once")
	require.NoError(t, s.Accept(rev))
	current, ok := s.Current()
	require.True(t, ok)
	require.Equal(t, rev, current)

	second := b.commit("Add FRA", gitserver.Files{"instances/fra.yaml": "fra\n"})
	b.server.ResetRequests()
	rev2 := b.accepted(s)
	require.Equal(t, second, rev2.Commit)
	require.Len(t, b.server.Requests(), 2, "one request asks, one fetches")
	require.Equal(t, map[string]string{"fleet.yaml": "a: 1\n", "instances/usa.yaml": "usa\n", "instances/fra.yaml": "fra\n", "shared": "-> instances"}, content(t, rev2.Dir))
	require.Equal(t, "a: 1\n", content(t, rev.Dir)["fleet.yaml"], "the older snapshot is as it was")

	b.server.ResetRequests()
	_, changed, err = s.Poll(t.Context())
	require.NoError(t, err)
	require.False(t, changed)
	require.Len(t, b.server.Requests(), 1)
	require.LessOrEqual(t, b.server.Requests()[0].Bytes, int64(65))

	require.NoError(t, s.Keep())
	_, err = os.Stat(rev.Dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.FileExists(t, filepath.Join(rev2.Dir, "fleet.yaml"))
}

func TestSnapshotIsReadOnly(t *testing.T) {
	b := newBed(t)
	b.commit("Start", gitserver.Files{"dir/a": "1"})
	_, err := b.repo.Git("config", "core.fileMode", "true")
	require.NoError(t, err)
	rev := b.accepted(b.open())
	for path, want := range map[string]fs.FileMode{"dir/a": 0o444, "dir": 0o555 | fs.ModeDir, ".": 0o555 | fs.ModeDir} {
		st, err := os.Stat(filepath.Join(rev.Dir, path))
		require.NoError(t, err)
		require.Equal(t, want, st.Mode(), path)
	}
	st, err := os.Stat(b.dir)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700)|fs.ModeDir, st.Mode())
}

func TestStartsWithoutGit(t *testing.T) {
	b := newBed(t)
	b.commit("Start", gitserver.Files{"fleet.yaml": "a: 1\n", "dir/b": "2\n"})
	rev := b.accepted(b.open())
	b.server.Stop()

	s := b.open()
	current, ok := s.Current()
	require.True(t, ok)
	require.Equal(t, rev, current)
	_, changed, err := s.Poll(t.Context())
	require.Error(t, err)
	require.False(t, changed)
	require.Equal(t, source.Unreachable, s.State().Problem)

	require.NoError(t, b.server.Up())
	b.commit("Go on", gitserver.Files{"dir/c": "3\n"})
	b.server.ResetRequests()
	next := b.accepted(s)
	require.Len(t, b.server.Requests(), 2, "what did not change comes from the snapshot, also after a restart")
	require.Equal(t, map[string]string{"fleet.yaml": "a: 1\n", "dir/b": "2\n", "dir/c": "3\n"}, content(t, next.Dir))
	require.Equal(t, source.None, s.State().Problem)
}

func TestRewrittenBranchKeepsTheLastGoodRevision(t *testing.T) {
	b := newBed(t)
	first := b.commit("First", gitserver.Files{"a": "1"})
	b.commit("Second", gitserver.Files{"a": "2"})
	s := b.open()
	rev := b.accepted(s)

	for name, rewrite := range map[string]func() string{
		"another history": func() string {
			id := b.repo.Commit(t, "other", "Other", gitserver.Files{"a": "other"})
			_, err := b.repo.Git("update-ref", "refs/heads/main", id)
			require.NoError(t, err)
			return id
		},
		"back to the parent": func() string {
			_, err := b.repo.Git("update-ref", "refs/heads/main", first)
			require.NoError(t, err)
			return first
		},
		"amended": func() string {
			_, err := b.repo.Git("update-ref", "refs/heads/main", first)
			require.NoError(t, err)
			return b.commit("Second, amended", gitserver.Files{"a": "3"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			found := rewrite()
			_, changed, err := s.Poll(t.Context())
			var rewritten *source.RewrittenError
			require.ErrorAs(t, err, &rewritten)
			require.False(t, changed)
			require.Equal(t, rev.Commit, rewritten.Accepted)
			require.Equal(t, found, rewritten.Found)
			current, ok := s.Current()
			require.True(t, ok)
			require.Equal(t, rev, current)
			require.Equal(t, map[string]string{"a": "2"}, content(t, current.Dir))
			require.Equal(t, source.Rewritten, s.State().Problem)

			b.server.ResetRequests()
			_, _, err = s.Poll(t.Context())
			require.ErrorAs(t, err, &rewritten)
			require.Len(t, b.server.Requests(), 1, "it is not fetched again")
		})
	}
	_, err := b.repo.Git("update-ref", "refs/heads/main", rev.Commit)
	require.NoError(t, err)
	_, changed, err := s.Poll(t.Context())
	require.NoError(t, err)
	require.False(t, changed)
	require.Equal(t, source.None, s.State().Problem)
}

// TestMuchBetween: what lies between two polls may be more than a fetch may carry; the branch is followed all the same.
func TestMuchBetween(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"a": "1"})
	limits := gitremote.Limits{Wire: 64 << 10, Object: 256 << 10}
	remote, err := gitremote.New(gitremote.Config{
		URL: b.server.URL("fleet"), CAFile: b.server.CAFile(), Username: b.server.Reader().Name, Password: b.server.Reader().Password, Limits: limits,
	})
	require.NoError(t, err)
	defer remote.Close()
	s := b.open(func(o *source.Options) { o.Remote = remote })
	good := b.accepted(s)
	noise := make([]byte, 100<<10)
	_, err = rand.Read(noise)
	require.NoError(t, err)
	b.commit("Large", gitserver.Files{"large": string(noise)})
	last := b.commit("Without it", gitserver.Files{"large": gitserver.Remove, "a": "2"})
	rev := b.accepted(s)
	require.Equal(t, last, rev.Commit)
	require.Equal(t, map[string]string{"a": "2"}, content(t, rev.Dir))

	// A history that is too much and leads elsewhere is known for what it is.
	b.repo.Commit(t, "other", "Other", gitserver.Files{"large": string(noise)})
	other := b.repo.Commit(t, "other", "Other", gitserver.Files{"large": gitserver.Remove, "a": "3"})
	_, err = b.repo.Git("update-ref", "refs/heads/main", other)
	require.NoError(t, err)
	_, _, err = s.Poll(t.Context())
	require.ErrorAs(t, err, new(*source.RewrittenError))

	// Without filters it stays in force too, with the limit as the reason.
	_, err = b.repo.Git("config", "uploadpack.allowFilter", "false")
	require.NoError(t, err)
	s = b.open(func(o *source.Options) { o.Remote = remote })
	_, _, err = s.Poll(t.Context())
	require.ErrorAs(t, err, new(*gitremote.LimitError))
	require.NotEqual(t, good.Commit, rev.Commit)
}

func TestMergeThatBringsTheAcceptedCommitIn(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"a": "1"})
	s := b.open()
	b.accepted(s)
	_, err := b.repo.Git("branch", "feature", "main")
	require.NoError(t, err)
	b.commit("On main", gitserver.Files{"a": "2"})
	b.repo.Commit(t, "feature", "On feature", gitserver.Files{"b": "1"})
	tree, err := b.repo.Git("rev-parse", "feature^{tree}")
	require.NoError(t, err)
	merge, err := b.repo.Git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit-tree", "-p", "feature", "-p", "main", "-m", "Merge", tree)
	require.NoError(t, err)
	_, err = b.repo.Git("update-ref", "refs/heads/main", merge)
	require.NoError(t, err)
	require.Equal(t, merge, b.accepted(s).Commit)
}

func TestRefusedRevisionIsNotFetchedAgain(t *testing.T) {
	b := newBed(t)
	b.commit("Good", gitserver.Files{"a": "1"})
	s := b.open()
	good := b.accepted(s)
	bad := b.commit("Bad", gitserver.Files{"a": "broken"})
	rev, changed, err := s.Poll(t.Context())
	require.NoError(t, err)
	require.True(t, changed)
	s.Refuse(rev, "a:1:1: broken")
	for range 2 {
		b.server.ResetRequests()
		rev, changed, err = s.Poll(t.Context())
		require.NoError(t, err)
		require.False(t, changed)
		require.Equal(t, good, rev)
		require.Len(t, b.server.Requests(), 1)
		require.Equal(t, source.Refused, s.State().Problem)
		require.Equal(t, "a:1:1: broken", s.State().Message)
	}
	s = b.open()
	rev, changed, err = s.Poll(t.Context())
	require.NoError(t, err)
	require.True(t, changed, "another process, such as a newer agent, judges again")
	require.Equal(t, bad, rev.Commit)
	s.Refuse(rev, "a:1:1: broken")

	_, err = b.repo.Git("update-ref", "refs/heads/main", good.Commit)
	require.NoError(t, err)
	rev, changed, err = s.Poll(t.Context())
	require.NoError(t, err)
	require.False(t, changed)
	require.Equal(t, good, rev)
	require.Equal(t, source.None, s.State().Problem)
	fix := b.commit("Fix", gitserver.Files{"a": "2"})
	require.Equal(t, fix, b.accepted(s).Commit)
	require.Equal(t, source.None, s.State().Problem)
}

func TestAcceptingAnOlderOpenRevision(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"a": "1"})
	s := b.open()
	b.accepted(s)
	b.commit("Second", gitserver.Files{"a": "2"})
	second, _, err := s.Poll(t.Context())
	require.NoError(t, err)
	b.commit("Third", gitserver.Files{"b": "3"})
	third, _, err := s.Poll(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Accept(second))
	require.NoError(t, s.Accept(third), "it descends from the second one")
	require.Error(t, s.Accept(second), "there is no way back")
	fourth := b.commit("Fourth", gitserver.Files{"c": "4"})
	require.Equal(t, fourth, b.accepted(s).Commit)
}

func TestFollowsAFolder(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"fleets/eu/fleet.yaml": "1", "fleets/us/fleet.yaml": "2", "README": "x"})
	eu := func(o *source.Options) { o.Path = "/fleets/eu/" }
	s := b.open(eu)
	rev := b.accepted(s)
	require.Equal(t, map[string]string{"fleet.yaml": "1"}, content(t, rev.Dir))
	b.commit("Elsewhere", gitserver.Files{"README": "y"})
	b.server.ResetRequests()
	rev = b.accepted(s)
	require.Equal(t, map[string]string{"fleet.yaml": "1"}, content(t, rev.Dir))
	require.Len(t, b.server.Requests(), 2)
	_, err := b.repo.Git("gc", "--quiet")
	require.NoError(t, err)
	b.commit("Here", gitserver.Files{"fleets/eu/more.yaml": "3"})
	s = b.open(eu)
	require.Equal(t, map[string]string{"fleet.yaml": "1", "more.yaml": "3"}, content(t, b.accepted(s).Dir))

	other := b.open(func(o *source.Options) { o.Path = "fleets/us" })
	require.Equal(t, map[string]string{"fleet.yaml": "2"}, content(t, b.accepted(other).Dir))
	none := b.open(func(o *source.Options) { o.Path = "fleets/none" })
	_, _, err = none.Poll(t.Context())
	require.ErrorAs(t, err, new(*source.EmptyTreeError))
}

func TestBranchThatIsNotThere(t *testing.T) {
	b := newBed(t)
	s := b.open()
	_, _, err := s.Poll(t.Context())
	require.ErrorAs(t, err, new(*source.BranchMissingError), "an empty repository")
	b.commit("First", gitserver.Files{"a": "1"})
	rev := b.accepted(s)
	_, err = b.repo.Git("update-ref", "-d", "refs/heads/main")
	require.NoError(t, err)
	_, changed, err := s.Poll(t.Context())
	require.ErrorAs(t, err, new(*source.BranchMissingError))
	require.False(t, changed)
	current, ok := s.Current()
	require.True(t, ok)
	require.Equal(t, rev, current)
}

func TestManyRevisionsOverEachTransport(t *testing.T) {
	b := newBed(t)
	known := filepath.Join(t.TempDir(), "known_hosts")
	require.NoError(t, os.WriteFile(known, []byte(b.server.KnownHosts()), 0o600))
	for name, cfg := range map[string]gitremote.Config{
		"ssh":  {URL: b.server.SSHURL("fleet"), IdentityFile: b.server.SSHKeyFile(), KnownHostsFile: known},
		"file": {URL: b.repo.Path},
	} {
		t.Run(name, func(t *testing.T) {
			remote, err := gitremote.New(cfg)
			require.NoError(t, err)
			defer remote.Close()
			b.dir = filepath.Join(t.TempDir(), "state")
			t.Cleanup(func() { makeWritable(b.dir) })
			s := b.open(func(o *source.Options) { o.Remote = remote })
			for i := range 5 {
				id := b.commit("Commit", gitserver.Files{fmt.Sprintf("%s/%d", name, i): strings.Repeat("x", i)})
				rev, changed, err := s.Poll(t.Context())
				require.NoError(t, err)
				require.True(t, changed)
				require.Equal(t, id, rev.Commit)
				require.NoError(t, s.Accept(rev))
				require.Contains(t, content(t, rev.Dir), fmt.Sprintf("%s/%d", name, i))
			}
		})
	}
}

func TestPollThatIsGivenUpSaysNothingAboutTheRemote(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"a": "1"})
	s := b.open()
	b.accepted(s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := s.Poll(ctx)
	require.Error(t, err)
	require.Equal(t, source.None, s.State().Problem)
}
