package report_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/stretchr/testify/require"

	"dive-agent/gitremote"
	"dive-agent/report"
	"dive-agent/secrets"
	"dive-agent/state"
)

func pemOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// repository is a real bare repository, read back with git itself.
type repository struct {
	t   *testing.T
	dir string
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	r := &repository{t: t, dir: filepath.Join(t.TempDir(), "fleet.git")}
	require.NoError(t, exec.CommandContext(t.Context(), "git", "init", "--quiet", "--bare", r.dir).Run())
	return r
}

func (r *repository) git(args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "git", append([]string{"-C", r.dir}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, string(out))
	return strings.TrimRight(string(out), "\n")
}

func (r *repository) log(branch string) []string {
	out := r.git("for-each-ref", "--format=%(refname)", "refs/heads/"+branch)
	if out == "" {
		return nil
	}
	return strings.Split(r.git("log", "--format=%s", branch), "\n")
}

// remote is a real remote whose calls a test can make fail.
type remote struct {
	*gitremote.Remote
	before func(req gitremote.CommitRequest) error
	after  func(h plumbing.Hash, err error) error
}

func (r *remote) Commit(ctx context.Context, req gitremote.CommitRequest) (plumbing.Hash, error) {
	if r.before != nil {
		if err := r.before(req); err != nil {
			return plumbing.ZeroHash, err
		}
	}
	h, err := r.Remote.Commit(ctx, req)
	if r.after != nil {
		err = r.after(h, err)
	}
	return h, err
}

func newRemote(t *testing.T, repo *repository) *remote {
	t.Helper()
	g, err := gitremote.New(gitremote.Config{URL: repo.dir})
	require.NoError(t, err)
	t.Cleanup(g.Close)
	return &remote{Remote: g}
}

func toBranches(r report.Pusher) func(*report.Options) {
	return func(o *report.Options) { o.Branches = &report.Branches{Remote: r} }
}

func TestStatusBranchGetsACommitPerChange(t *testing.T) {
	repo := newRepository(t)
	f := newFixture(t, toBranches(newRemote(t, repo)))
	push := func(s *report.Status) {
		f.clock.advance(10 * time.Second)
		f.publish(s)
		require.NoError(t, f.Flush(t.Context()))
	}
	push(ready())
	push(ready()) // the same content right after: nothing to tell
	push(degraded())
	require.Equal(t, []string{
		"deu: Degraded, kas exits with 1; put back to 2.0.4",
		"deu: Ready at 5d6e7f8, 9/9 services, rs0 PRIMARY, 123 resources",
	}, repo.log("status/deu"))

	f.clock.advance(15 * time.Minute)
	push(degraded())
	require.Len(t, repo.log("status/deu"), 3, "the heartbeat")

	require.Equal(t, "README.md\nstatus.yaml", repo.git("ls-tree", "--name-only", "-r", "status/deu"))
	require.True(t, strings.HasPrefix(repo.git("show", "status/deu:README.md"), "# deu: Degraded since "))
	back, err := report.Parse([]byte(repo.git("show", "status/deu:status.yaml")))
	require.NoError(t, err)
	require.Equal(t, report.Degraded, back.Phase)
	require.Equal(t, "deu\n"+attempted+"\n"+applied+"\nDegraded\n8", repo.git("log", "-1",
		"--format=%(trailers:key=Dive-Instance,valueonly,separator=)%n%(trailers:key=Dive-Revision,valueonly,separator=)%n"+
			"%(trailers:key=Dive-Applied,valueonly,separator=)%n%(trailers:key=Dive-Phase,valueonly,separator=)%n"+
			"%(trailers:key=Dive-Generation,valueonly,separator=)", "status/deu"))
	require.Equal(t, f.clock.Now().Format(time.RFC3339), strings.Replace(repo.git("log", "-1", "--format=%cI", "status/deu"), "+00:00", "Z", 1))
	repo.git("fsck", "--strict")

	require.NoError(t, f.store.View(t.Context(), func(r state.Reader) error {
		pushed, err := r.Pushed("deu")
		require.Equal(t, repo.git("rev-parse", "status/deu"), pushed.Commit)
		return err
	}))
}

func TestOnlyTheNewestStatusMatters(t *testing.T) {
	repo := newRepository(t)
	away := newRemote(t, repo)
	away.before = func(gitremote.CommitRequest) error { return errors.New("connection refused") }
	f := newFixture(t, toBranches(away))
	stop := f.run()
	f.publish(degraded())
	eventually(t, "a failed attempt", func() bool {
		p := f.pending(state.KindStatus)
		return len(p) == 1 && p[0].Attempts == 1
	})
	wait := f.pending(state.KindStatus)[0].Next.Sub(f.clock.Now())
	require.GreaterOrEqual(t, wait, 750*time.Millisecond)
	require.LessOrEqual(t, wait, 825*time.Millisecond)
	f.publish(ready())
	fra := ready()
	fra.Instance = "fra"
	f.publish(fra)
	eventually(t, "the other instance's attempt", func() bool {
		p := f.pending(state.KindStatus)
		return len(p) == 2 && p[0].Attempts == 1 && p[1].Attempts == 1
	})
	require.Contains(t, f.pending(state.KindStatus)[0].Reason, "connection refused")

	require.NoError(t, f.GitAnswers(t.Context(), true))
	require.Len(t, f.pending(state.KindStatus), 2, "it was not known to be away")
	require.NoError(t, f.GitAnswers(t.Context(), false))
	stop()
	away.before = nil
	f.run()
	require.Len(t, f.pending(state.KindStatus), 2)
	require.NoError(t, f.GitAnswers(t.Context(), true))
	eventually(t, "an empty outbox", func() bool { return len(f.pending(state.KindStatus)) == 0 })
	require.Equal(t, []string{"deu: Ready at 5d6e7f8, 9/9 services, rs0 PRIMARY, 123 resources"}, repo.log("status/deu"))
	require.Len(t, repo.log("status/fra"), 1)
}

func TestLostLeaseReadsTheBranchAgain(t *testing.T) {
	repo := newRepository(t)
	r := newRemote(t, repo)
	f := newFixture(t, toBranches(r))
	push := func(s *report.Status) error {
		f.clock.advance(2 * time.Minute)
		f.publish(s)
		return f.Flush(t.Context())
	}
	require.NoError(t, push(ready()))

	// Somebody else put a commit on the branch.
	foreign := repo.git("commit-tree", "-p", "status/deu", "-m", "by hand", repo.git("rev-parse", "status/deu^{tree}"))
	repo.git("update-ref", "refs/heads/status/deu", foreign)
	require.NoError(t, push(degraded()))
	require.Equal(t, "by hand", repo.log("status/deu")[1])

	// The branch was deleted.
	repo.git("update-ref", "-d", "refs/heads/status/deu")
	require.NoError(t, push(ready()))
	require.Len(t, repo.log("status/deu"), 1)

	// The state was lost: the branch goes on where it is.
	fresh := newFixture(t, toBranches(r))
	fresh.clock.advance(time.Hour)
	fresh.publish(degraded())
	require.NoError(t, fresh.Flush(t.Context()))
	require.Len(t, repo.log("status/deu"), 2)

	// Whoever keeps moving the branch does not hold the agent for ever.
	moves := 0
	r.before = func(gitremote.CommitRequest) error {
		if moves++; moves > 10 {
			return errors.New("tried for ever")
		}
		repo.git("update-ref", "refs/heads/status/deu", repo.git("commit-tree", "-m", fmt.Sprint("move ", moves), "status/deu^{tree}"))
		return nil
	}
	fresh.clock.advance(2 * time.Minute)
	fresh.publish(ready())
	var rejected *gitremote.RejectedError
	require.ErrorAs(t, fresh.Flush(t.Context()), &rejected)
	require.True(t, rejected.LeaseLost)
	require.Equal(t, 3, moves)
	require.Equal(t, 1, fresh.pending(state.KindStatus)[0].Attempts)
}

// TestAForgeThatRefusesTheBranchIsToldOf: what waits in the outbox for a person is a condition of the instance.
func TestAForgeThatRefusesTheBranchIsToldOf(t *testing.T) {
	r := newRemote(t, newRepository(t))
	f := newFixture(t, toBranches(r))
	condition := func() (c report.Condition) {
		require.NoError(t, f.store.View(t.Context(), func(r state.Reader) (err error) {
			c, err = report.Delivered(r, "deu", f.clock.Now())
			return err
		}))
		return c
	}
	r.before = func(gitremote.CommitRequest) error { return errors.New("the line is down") }
	f.publish(ready())
	require.Error(t, f.Flush(t.Context()))
	require.True(t, condition().Status, "nobody has to do anything")
	r.before = func(req gitremote.CommitRequest) error {
		return &gitremote.RejectedError{Ref: req.Ref, Reason: "protected branch hook declined"}
	}
	require.Error(t, f.Flush(t.Context()))
	first := condition()
	require.False(t, first.Status)
	require.Equal(t, "StatusBranchRefused", first.Reason)
	require.Contains(t, first.Message, "refs/heads/status/deu (protected branch hook declined)")
	f.clock.advance(time.Hour)
	f.publish(degraded()) // replaces the one that waits
	require.Equal(t, first, condition(), "also before its first attempt")
	r.before = nil
	require.NoError(t, f.Flush(t.Context()))
	require.True(t, condition().Status)
}

// TestTheEndOfTheAgentDoesNotUndoADelivery: what was sent is recorded, or it would be sent again.
func TestTheEndOfTheAgentDoesNotUndoADelivery(t *testing.T) {
	r := newRemote(t, newRepository(t))
	f := newFixture(t, toBranches(r))
	ctx, end := context.WithCancel(t.Context())
	r.after = func(_ plumbing.Hash, err error) error { end(); return err }
	f.publish(ready())
	f.Run(ctx)
	require.Empty(t, f.pending(state.KindStatus))
}

func TestPushWhoseRecordWasLostIsNotRepeated(t *testing.T) {
	repo := newRepository(t)
	r := newRemote(t, repo)
	f := newFixture(t, toBranches(r))
	for n, s := range []*report.Status{ready(), degraded()} {
		r.after = func(_ plumbing.Hash, err error) error {
			require.NoError(t, err)
			return errors.New("killed before the answer was recorded")
		}
		f.clock.advance(2 * time.Minute)
		f.publish(s)
		require.Error(t, f.Flush(t.Context()))
		require.Len(t, repo.log("status/deu"), n+1)
		r.after = nil
		require.NoError(t, f.Flush(t.Context()))
		require.Empty(t, f.pending(state.KindStatus))
		require.Len(t, repo.log("status/deu"), n+1, "the same commit")
	}
}

func TestNothingSecretLeavesTheHost(t *testing.T) {
	repo, r := newRepository(t), newReceiver(t)
	const secret = "hunter2/hunter2+hunter2"
	redactor := secrets.NewRedactor(secret)
	f := newFixture(t, func(o *report.Options) {
		hookTo(r)(o)
		toBranches(newRemote(t, repo))(o)
		o.Redact = redactor.String
	})
	s := degraded()
	s.News, s.Why, s.Next, s.Logs = "x "+secret, []string{secret}, []string{secret}, []string{secret}
	s.Components[0].Values, s.Components[0].Notes = map[string]any{"x": secret}, []string{secret}
	s.Checks[0].Saw, s.Conditions[1].Message, s.Nodes[0].Message, s.Runs[0].Message = secret, secret, secret, secret
	f.publish(s)
	require.NoError(t, f.Flush(t.Context()))
	require.Len(t, r.all(), 1)
	require.NotContains(t, repo.git("log", "-p", "--format=%B", "status/deu"), "hunter2")
	require.NotContains(t, string(r.all()[0].event.Data()), "hunter2")
	require.Contains(t, r.all()[0].data.Why[0], secrets.Mark)
	_, err := report.Parse([]byte(repo.git("show", "status/deu:status.yaml")))
	require.NoError(t, err)
}
