package gitremote_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"dive-agent/gitremote"
	"dive-agent/testbed/gitserver"
)

const mainRef = plumbing.ReferenceName("refs/heads/main")

// transports give a configuration that may write, for each way to reach a repository of a server.
var transports = map[string]func(*testing.T, *gitserver.Server, *gitserver.Repository) gitremote.Config{
	"https": func(_ *testing.T, s *gitserver.Server, r *gitserver.Repository) gitremote.Config {
		return gitremote.Config{URL: s.URL(r.Name), CAFile: s.CAFile(), Username: s.Writer().Name, Password: s.Writer().Password}
	},
	"ssh": func(t *testing.T, s *gitserver.Server, r *gitserver.Repository) gitremote.Config {
		known := filepath.Join(t.TempDir(), "known_hosts")
		require.NoError(t, os.WriteFile(known, []byte(s.KnownHosts()), 0o600))
		return gitremote.Config{URL: s.SSHURL(r.Name), IdentityFile: s.SSHKeyFile(), KnownHostsFile: known}
	},
	"file": func(_ *testing.T, _ *gitserver.Server, r *gitserver.Repository) gitremote.Config {
		return gitremote.Config{URL: r.Path}
	},
}

// open makes a remote that is closed at the end of the test.
func open(t *testing.T, cfg gitremote.Config) *gitremote.Remote {
	t.Helper()
	r, err := gitremote.New(cfg)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// overEach runs a test over every transport, on an empty repository, and finds what it leaves behind.
func overEach(t *testing.T, test func(*testing.T, *gitremote.Remote, *gitserver.Repository)) {
	for name, config := range transports {
		t.Run(name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
			server := gitserver.Start(t, gitserver.Options{})
			repo := server.NewRepository(t, "fleet")
			test(t, open(t, config(t, server, repo)), repo)
		})
	}
}

func TestRefFollowsTheBranch(t *testing.T) {
	overEach(t, func(t *testing.T, r *gitremote.Remote, repo *gitserver.Repository) {
		_, err := r.Ref(t.Context(), mainRef)
		require.ErrorIs(t, err, gitremote.ErrRefNotFound, "an empty repository has no main")
		kind, _ := gitremote.KindOf(err)
		require.Equal(t, gitremote.NotFound, kind)

		first := repo.Commit(t, "main", "First", gitserver.Files{"a": "1"})
		repo.Commit(t, "maintenance", "Another", gitserver.Files{"a": "2"})
		h, err := r.Ref(t.Context(), mainRef)
		require.NoError(t, err)
		require.Equal(t, first, h.String())

		second := repo.Commit(t, "main", "Second", gitserver.Files{"a": "3"})
		_, err = repo.Git("pack-refs", "--all")
		require.NoError(t, err)
		h, err = r.Ref(t.Context(), mainRef)
		require.NoError(t, err)
		require.Equal(t, second, h.String())

		_, err = r.Ref(t.Context(), "refs/heads/mai")
		require.ErrorIs(t, err, gitremote.ErrRefNotFound, "a prefix of a name is not the name")
	})
}

func TestRefPeelsTagsAndListsByPrefix(t *testing.T) {
	overEach(t, func(t *testing.T, r *gitremote.Remote, repo *gitserver.Repository) {
		first := repo.Commit(t, "main", "First", gitserver.Files{"a": "1"})
		status := repo.Commit(t, "status/deu", "Status", gitserver.Files{"b": "1"})
		_, err := repo.Git("-c", "user.name=t", "-c", "user.email=t@example.org", "tag", "-a", "-m", "v1", "v1", first)
		require.NoError(t, err)

		h, err := r.Ref(t.Context(), "refs/tags/v1")
		require.NoError(t, err)
		require.Equal(t, first, h.String())

		refs, err := r.Refs(t.Context(), "refs/heads/status/")
		require.NoError(t, err)
		require.Equal(t, map[plumbing.ReferenceName]plumbing.Hash{"refs/heads/status/deu": plumbing.NewHash(status)}, refs)
	})
}

func TestFetchCarriesWhatLiesBetween(t *testing.T) {
	overEach(t, func(t *testing.T, r *gitremote.Remote, repo *gitserver.Repository) {
		files := gitserver.Files{}
		for i := range 50 {
			files[fmt.Sprintf("dir%d/file%d.yaml", i%5, i)] = strings.Repeat(fmt.Sprintf("line %d\n", i), 100)
		}
		base := repo.Commit(t, "main", "Base", files)
		repo.Commit(t, "main", "Middle", gitserver.Files{"dir1/file1.yaml": strings.Repeat("line 1\n", 100) + "more\n"})
		tip := repo.Commit(t, "main", "Tip", gitserver.Files{"dir2/file2.yaml": "other\n"})

		o, err := r.Fetch(t.Context(), plumbing.NewHash(tip), []plumbing.Hash{plumbing.NewHash(base)}, 0)
		require.NoError(t, err)
		require.Equal(t, 8, o.Count, "two commits, with two trees and one file each")
		c, err := o.Commit(plumbing.NewHash(tip))
		require.NoError(t, err)
		require.Equal(t, "Tip", strings.TrimSpace(c.Message))
		parent, err := o.Commit(c.ParentHashes[0])
		require.NoError(t, err)
		require.Equal(t, base, parent.ParentHashes[0].String())

		whole, err := r.Fetch(t.Context(), plumbing.NewHash(tip), nil, 1)
		require.NoError(t, err)
		require.Equal(t, 1+6+50, whole.Count, "one commit with its trees and files")
		require.Equal(t, []plumbing.Hash{plumbing.NewHash(tip)}, whole.Shallow)

		_, err = r.Fetch(t.Context(), plumbing.NewHash("1234567890123456789012345678901234567890"), nil, 1)
		require.Error(t, err, "a commit that is not there")
	})
}

func TestFetchOfCommitsAlone(t *testing.T) {
	overEach(t, func(t *testing.T, r *gitremote.Remote, repo *gitserver.Repository) {
		base := repo.Commit(t, "main", "Base", gitserver.Files{"a": "1"})
		for i := range 5 {
			repo.Commit(t, "main", "More", gitserver.Files{"a": strings.Repeat("x", 2+i)})
		}
		tip := repo.Head("main")
		o, err := r.FetchHistory(t.Context(), plumbing.NewHash(tip), []plumbing.Hash{plumbing.NewHash(base)})
		require.NoError(t, err)
		require.Equal(t, 5, o.Count)
		_, err = repo.Git("config", "uploadpack.allowFilter", "false")
		require.NoError(t, err)
		_, err = r.FetchHistory(t.Context(), plumbing.NewHash(tip), nil)
		require.Error(t, err)
	})
}

func TestCommitMovesTheRefUnderALease(t *testing.T) {
	overEach(t, func(t *testing.T, r *gitremote.Remote, repo *gitserver.Repository) {
		repo.Commit(t, "main", "First", gitserver.Files{"a": "1"})
		ctx, ref := t.Context(), plumbing.ReferenceName("refs/heads/status/deu")
		req := gitremote.CommitRequest{
			Ref: ref, Message: "deu: Ready", Author: gitremote.Person{Name: "deu-01", Email: "deu-01@example.org"},
			When:  time.Unix(1_700_000_000, 0).UTC(),
			Files: map[string][]byte{"README.md": []byte("# deu\n"), "status.yaml": []byte("phase: Ready\n"), "runs/1/log": []byte("x"), "runs.txt": nil},
		}
		first, err := r.Commit(ctx, req)
		require.NoError(t, err)
		require.Equal(t, first.String(), repo.Head("status/deu"))
		out, err := repo.Git("fsck", "--strict", "--no-dangling")
		require.NoError(t, err, out)
		out, err = repo.Git("ls-tree", "-r", "--name-only", "status/deu")
		require.NoError(t, err)
		require.Equal(t, "README.md\nruns.txt\nruns/1/log\nstatus.yaml", out)

		again, err := r.Commit(ctx, req)
		require.NoError(t, err, "the same commit again is there already")
		require.Equal(t, first, again)

		child := req
		child.Old, child.Parent, child.Message = first, first, "deu: Degraded"
		second, err := r.Commit(ctx, child)
		require.NoError(t, err)
		out, err = repo.Git("log", "--format=%s %an <%ae>", "status/deu")
		require.NoError(t, err)
		require.Equal(t, "deu: Degraded deu-01 <deu-01@example.org>\ndeu: Ready deu-01 <deu-01@example.org>", out)

		late := req
		late.Old, late.Parent, late.Message = first, first, "deu: from the past"
		_, err = r.Commit(ctx, late)
		var rejected *gitremote.RejectedError
		require.ErrorAs(t, err, &rejected)
		require.True(t, rejected.LeaseLost)
		require.Equal(t, second, rejected.Current)
		require.Equal(t, second.String(), repo.Head("status/deu"))

		orphan := req
		orphan.Old, orphan.Message = second, "deu: alone"
		alone, err := r.Commit(ctx, orphan)
		require.NoError(t, err)
		out, err = repo.Git("rev-list", "status/deu")
		require.NoError(t, err)
		require.Equal(t, alone.String(), out, "a root commit in place of the last leaves no history")

		require.NoError(t, r.Push(ctx, ref, alone, plumbing.ZeroHash, nil))
		require.Empty(t, repo.Head("status/deu"))
	})
}

func TestPushDeclinedByAHook(t *testing.T) {
	overEach(t, func(t *testing.T, r *gitremote.Remote, repo *gitserver.Repository) {
		head := repo.Commit(t, "main", "First", gitserver.Files{"a": "1"})
		hook := filepath.Join(repo.Path, "hooks", "pre-receive")
		require.NoError(t, os.MkdirAll(filepath.Dir(hook), 0o755))
		require.NoError(t, os.WriteFile(hook, []byte("#!/bin/sh\necho branch main is protected >&2\nexit 1\n"), 0o755))
		_, err := r.Commit(t.Context(), gitremote.CommitRequest{
			Ref: mainRef, Old: plumbing.NewHash(head), Parent: plumbing.NewHash(head), Message: "No",
			Files: map[string][]byte{"a": []byte("2")}, When: time.Unix(1_700_000_000, 0),
		})
		var rejected *gitremote.RejectedError
		require.ErrorAs(t, err, &rejected)
		require.False(t, rejected.LeaseLost)
		require.Contains(t, err.Error(), "branch main is protected")
		require.Equal(t, head, repo.Head("main"))
	})
}

func TestRepositoryThatIsNotThere(t *testing.T) {
	for name, config := range transports {
		t.Run(name, func(t *testing.T) {
			server := gitserver.Start(t, gitserver.Options{})
			r := open(t, config(t, server, &gitserver.Repository{Name: "nothing", Path: filepath.Join(t.TempDir(), "nothing.git")}))
			_, err := r.Ref(t.Context(), mainRef)
			kind, _ := gitremote.KindOf(err)
			require.Equal(t, gitremote.NotFound, kind, "%v", err)
			require.False(t, errors.Is(err, gitremote.ErrRefNotFound), "a missing repository is not a missing ref")
		})
	}
}

func TestCancelledContext(t *testing.T) {
	overEach(t, func(t *testing.T, r *gitremote.Remote, repo *gitserver.Repository) {
		tip := repo.Commit(t, "main", "First", gitserver.Files{"a": "1"})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := r.Fetch(ctx, plumbing.NewHash(tip), nil, 1)
		kind, _ := gitremote.KindOf(err)
		require.Equal(t, gitremote.Canceled, kind, "%v", err)
	})
}

func TestRepositoryOfAnotherObjectFormat(t *testing.T) {
	overEach(t, func(t *testing.T, r *gitremote.Remote, repo *gitserver.Repository) {
		require.NoError(t, os.RemoveAll(repo.Path))
		cmd := exec.Command("git", "init", "--quiet", "--bare", "--initial-branch=main", "--object-format=sha256", repo.Path)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		repo.Commit(t, "main", "First", gitserver.Files{"a": "1"})
		_, err = r.Ref(t.Context(), mainRef)
		kind, _ := gitremote.KindOf(err)
		require.Contains(t, []gitremote.Kind{gitremote.BadAnswer, gitremote.ServerError}, kind, "%v", err)
		require.Regexp(t, "(?i)sha-?256", err.Error())
	})
}
