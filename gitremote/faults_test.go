package gitremote_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"dive-agent/gitremote"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/heap"
)

// operations are all that a remote can do, each failing with an error of its own.
var operations = map[string]func(context.Context, *gitremote.Remote, plumbing.Hash) error{
	"ref": func(ctx context.Context, r *gitremote.Remote, _ plumbing.Hash) error {
		_, err := r.Ref(ctx, mainRef)
		return err
	},
	"fetch": func(ctx context.Context, r *gitremote.Remote, tip plumbing.Hash) error {
		_, err := r.Fetch(ctx, tip, nil, 1)
		return err
	},
	"push": func(ctx context.Context, r *gitremote.Remote, _ plumbing.Hash) error {
		_, err := r.Commit(ctx, gitremote.CommitRequest{
			Ref: "refs/heads/status/deu", Message: "x", Files: map[string][]byte{"a": []byte("b")}, When: time.Unix(1_700_000_000, 0),
		})
		return err
	},
}

func TestFaultsOverHTTPS(t *testing.T) {
	for name, test := range map[string]struct {
		fault gitserver.Fault
		kinds []gitremote.Kind
	}{
		"silence":       {gitserver.Fault{Kind: gitserver.Silence}, []gitremote.Kind{gitremote.Timeout}},
		"hang":          {gitserver.Fault{Kind: gitserver.Hang}, []gitremote.Kind{gitremote.Timeout}},
		"trickle":       {gitserver.Fault{Kind: gitserver.Trickle}, []gitremote.Kind{gitremote.Timeout, gitremote.BadAnswer}},
		"cut at once":   {gitserver.Fault{Kind: gitserver.Cut, Bytes: 0}, []gitremote.Kind{gitremote.Unreachable}},
		"cut":           {gitserver.Fault{Kind: gitserver.Cut, Bytes: 40}, []gitremote.Kind{gitremote.Unreachable}},
		"clean end":     {gitserver.Fault{Kind: gitserver.CutClean, Bytes: 40}, []gitremote.Kind{gitremote.Unreachable, gitremote.BadAnswer}},
		"empty":         {gitserver.Fault{Kind: gitserver.Empty}, []gitremote.Kind{gitremote.BadAnswer}},
		"error page":    {gitserver.Fault{Kind: gitserver.Page}, []gitremote.Kind{gitremote.ServerError}},
		"page as 200":   {gitserver.Fault{Kind: gitserver.Page, Status: 200}, []gitremote.Kind{gitremote.BadAnswer}},
		"garbage":       {gitserver.Fault{Kind: gitserver.Garbage}, []gitremote.Kind{gitremote.BadAnswer}},
		"much garbage":  {gitserver.Fault{Kind: gitserver.Garbage, Bytes: 300 << 20}, []gitremote.Kind{gitremote.BadAnswer}},
		"unauthorised":  {gitserver.Fault{Kind: gitserver.Status, Status: 401}, []gitremote.Kind{gitremote.Authentication}},
		"forbidden":     {gitserver.Fault{Kind: gitserver.Status, Status: 403}, []gitremote.Kind{gitremote.Forbidden}},
		"gone":          {gitserver.Fault{Kind: gitserver.Status, Status: 410}, []gitremote.Kind{gitremote.NotFound}},
		"too many":      {gitserver.Fault{Kind: gitserver.Status, Status: 429, RetryAfter: 7 * time.Second}, []gitremote.Kind{gitremote.ServerError}},
		"not available": {gitserver.Fault{Kind: gitserver.Status, Status: 503}, []gitremote.Kind{gitremote.ServerError}},
		"redirect":      {gitserver.Fault{Kind: gitserver.Redirect, Location: "https://elsewhere.test/fleet.git/info/refs?token=secret"}, []gitremote.Kind{gitremote.Misconfigured}},
	} {
		t.Run(name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
			server := gitserver.Start(t, gitserver.Options{})
			repo := server.NewRepository(t, "fleet")
			tip := plumbing.NewHash(repo.Commit(t, "main", "First", gitserver.Files{"a": "1"}))
			cfg := transports["https"](t, server, repo)
			cfg.Timeout = 700 * time.Millisecond
			for op, run := range operations {
				r := open(t, cfg)
				server.SetFault(test.fault)
				var err error
				grew, took := heap.Peak(func() { err = run(t.Context(), r, tip) })
				kind, _ := gitremote.KindOf(err)
				require.Contains(t, test.kinds, kind, "%s: %v", op, err)
				require.Less(t, took, 5*time.Second, op)
				require.Less(t, grew, uint64(8<<20), op)
				require.NotContains(t, err.Error(), "secret")
				require.NotContains(t, err.Error(), server.Writer().Password)
				if test.fault.RetryAfter > 0 {
					var e *gitremote.Error
					require.ErrorAs(t, err, &e)
					require.Equal(t, test.fault.RetryAfter, e.RetryAfter)
				}
				server.ClearFault()
				require.NoError(t, operations["ref"](t.Context(), r, tip), "it works again afterwards")
				r.Close()
			}
			if test.fault.Kind != gitserver.Cut && test.fault.Kind != gitserver.CutClean { // those let git do its work
				require.Empty(t, repo.Head("status/deu"), "nothing was pushed")
			}
		})
	}
}

func TestServerThatIsAway(t *testing.T) {
	for _, name := range []string{"https", "ssh"} {
		t.Run(name, func(t *testing.T) {
			server := gitserver.Start(t, gitserver.Options{})
			repo := server.NewRepository(t, "fleet")
			r := open(t, transports[name](t, server, repo))
			server.Stop()
			for op, run := range operations {
				err := run(t.Context(), r, plumbing.NewHash("1234567890123456789012345678901234567890"))
				kind, _ := gitremote.KindOf(err)
				require.Equal(t, gitremote.Unreachable, kind, "%s: %v", op, err)
			}
		})
	}
}

func TestSilentSSHServer(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	server := gitserver.Start(t, gitserver.Options{})
	cfg := transports["ssh"](t, server, server.NewRepository(t, "fleet"))
	cfg.Timeout = 500 * time.Millisecond
	r := open(t, cfg)
	server.SetFault(gitserver.Fault{Kind: gitserver.Silence})
	start := time.Now()
	_, err := r.Ref(t.Context(), mainRef)
	kind, _ := gitremote.KindOf(err)
	require.Equal(t, gitremote.Timeout, kind, "%v", err)
	require.Less(t, time.Since(start), 3*time.Second)
	server.ClearFault()
}

// TestPushWhoseAnswerIsLost: the server moved the ref and the answer did not come. That is a success once the ref was read.
func TestPushWhoseAnswerIsLost(t *testing.T) {
	for name, fault := range map[string]gitserver.Fault{
		"cut":       {Kind: gitserver.Cut, Service: "git-receive-pack", Times: 1},
		"clean end": {Kind: gitserver.CutClean, Bytes: 10, Service: "git-receive-pack", Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			server := gitserver.Start(t, gitserver.Options{})
			repo := server.NewRepository(t, "fleet")
			r := open(t, transports["https"](t, server, repo))
			server.SetFault(fault)
			require.NoError(t, operations["push"](t.Context(), r, plumbing.ZeroHash))
			require.NotEmpty(t, repo.Head("status/deu"))
		})
	}
}

func TestServerWithoutVersion2(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	base := plumbing.NewHash(repo.Commit(t, "main", "First", gitserver.Files{"a": "1"}))
	_, err := repo.Git("config", "protocol.version", "0")
	require.NoError(t, err)
	_, err = repo.Git("tag", "v1")
	require.NoError(t, err)
	front := oldFront(t, server)
	cfg := transports["https"](t, server, repo)
	cfg.URL, cfg.AllowLoopbackHTTP, cfg.CAFile = front, true, ""
	r := open(t, cfg)
	h, err := r.Ref(t.Context(), mainRef)
	require.NoError(t, err)
	require.Equal(t, base, h)
	tip := plumbing.NewHash(repo.Commit(t, "main", "Second", gitserver.Files{"a": "2"}))
	for haves, want := range map[*[]plumbing.Hash]int{{base}: 3, {}: 6} {
		o, err := r.Fetch(t.Context(), tip, *haves, 0)
		require.NoError(t, err)
		require.Equal(t, want, o.Count)
	}
	o, err := r.Fetch(t.Context(), tip, nil, 1)
	require.NoError(t, err)
	require.Equal(t, 3, o.Count)
	require.Equal(t, []plumbing.Hash{tip}, o.Shallow)
	o, err = r.FetchHistory(t.Context(), tip, []plumbing.Hash{base})
	require.NoError(t, err)
	require.Equal(t, 1, o.Count)
	_, err = r.Ref(t.Context(), "refs/heads/none")
	require.ErrorIs(t, err, gitremote.ErrRefNotFound)
}

func TestTrust(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	other := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	repo.Commit(t, "main", "First", gitserver.Files{"a": "1"})
	file := func(content string) string {
		p := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(p, []byte(content), 0o600))
		return p
	}
	host, port, err := net.SplitHostPort(server.SSHURL("x")[len("ssh://git@"):][:len("127.0.0.1:00000")])
	require.NoError(t, err)
	for name, test := range map[string]struct {
		change func(*gitremote.Config)
		way    string
		kind   gitremote.Kind
	}{
		"system's authorities": {func(c *gitremote.Config) { c.CAFile = "" }, "https", gitremote.Untrusted},
		"another authority":    {func(c *gitremote.Config) { c.CAFile = other.CAFile() }, "https", gitremote.Untrusted},
		"wrong password":       {func(c *gitremote.Config) { c.Password = "wrong-password" }, "https", gitremote.Authentication},
		"no credentials":       {func(c *gitremote.Config) { c.Username, c.Password = "", "" }, "https", gitremote.Authentication},
		"unknown host key": {func(c *gitremote.Config) {
			c.KnownHostsFile = file("example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmeGkzvKYs4AjGWjFMHwLdYcMYJyzA8hQzBy1HwQxk1\n")
		}, "ssh", gitremote.Untrusted},
		"changed host key": {func(c *gitremote.Config) {
			c.KnownHostsFile = file("[" + host + "]:" + port + " ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmeGkzvKYs4AjGWjFMHwLdYcMYJyzA8hQzBy1HwQxk1\n")
		}, "ssh", gitremote.Untrusted},
		"identity that is no one": {func(c *gitremote.Config) { c.IdentityFile = other.SSHKeyFile() }, "ssh", gitremote.Authentication},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := transports[test.way](t, server, repo)
			test.change(&cfg)
			_, err := open(t, cfg).Ref(t.Context(), mainRef)
			kind, _ := gitremote.KindOf(err)
			require.Equal(t, test.kind, kind, "%v", err)
			require.NotContains(t, err.Error(), "password-")
		})
	}
}

func TestReaderMayNotPush(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	cfg := transports["https"](t, server, repo)
	cfg.Username, cfg.Password = "", ""
	cfg.TokenFile = filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(cfg.TokenFile, []byte(server.Reader().Password+"\n"), 0o600))
	r := open(t, cfg)
	err := operations["push"](t.Context(), r, plumbing.ZeroHash)
	kind, _ := gitremote.KindOf(err)
	require.Equal(t, gitremote.Forbidden, kind, "%v", err)

	require.NoError(t, os.WriteFile(cfg.TokenFile, []byte(server.Writer().Password+"\n"), 0o600))
	require.NoError(t, operations["push"](t.Context(), r, plumbing.ZeroHash), "a rotated token is read anew")
}

// TestPollsKeepOneConnection: polls do not pile up connections, also after answers that were not read.
func TestPollsKeepOneConnection(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	repo.Commit(t, "main", "First", gitserver.Files{"a": "1"})
	r := open(t, transports["https"](t, server, repo))
	require.NoError(t, operations["ref"](t.Context(), r, plumbing.ZeroHash))
	before := runtime.NumGoroutine()
	for i := range 60 {
		if i%3 == 0 {
			server.SetFault(gitserver.Fault{Kind: gitserver.Page, Bytes: 1 << 20, Times: 1})
		}
		err := operations["ref"](t.Context(), r, plumbing.ZeroHash)
		require.Equal(t, i%3 == 0, err != nil)
		require.False(t, errors.Is(err, context.DeadlineExceeded))
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), before+8)
}

// TestServerThatWasRestartedBetweenPolls: a connection that died while it was idle is no failure.
func TestServerThatWasRestartedBetweenPolls(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	tip := plumbing.NewHash(repo.Commit(t, "main", "First", gitserver.Files{"a": "1"}))
	r := open(t, transports["https"](t, server, repo))
	for range 5 {
		require.NoError(t, operations["ref"](t.Context(), r, tip))
		server.Stop()
		require.NoError(t, server.Up())
	}
}
