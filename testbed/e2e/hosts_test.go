package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/gitserver"
)

// verdict is what verify-status says of a branch.
type verdict struct {
	Verdict, Why, Key, Commit, Phase string
}

// verify runs verify-status on the host and gives what it says of the instance, and whether all was well.
func verify(t *testing.T, h *agenttest.Host, args ...string) (v verdict, ok bool) {
	t.Helper()
	out, err := h.Try(append([]string{"verify-status", "one", "--output", "json"}, args...)...)
	var exit *exec.ExitError
	require.True(t, err == nil || errors.As(err, &exit) && exit.ExitCode() == 1, "%v", err)
	var told struct {
		OK       bool
		Branches []verdict
	}
	require.NoError(t, json.Unmarshal([]byte(out), &told))
	require.Len(t, told.Branches, 1)
	require.Equal(t, err == nil, told.OK)
	return told.Branches[0], told.OK
}

// TestAStatusIsSignedByItsHost: from the first status to a rotated key, with a forger who may push and has no key of the host, and a
// machine that takes the host's name.
func TestAStatusIsSignedByItsHost(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	const file, branch = "hosts/host-01.yaml", "status/one"
	h, _ := s.ready(agenttest.HostOptions{})
	awaitVerdict := func(what string, is func(verdict) bool, args ...string) (v verdict) {
		t.Helper()
		testbed.Eventually(t, soon, what, func() error {
			if v, _ = verify(t, h, args...); !is(v) {
				return fmt.Errorf("it is %+v", v)
			}
			return nil
		})
		return v
	}
	verified := func(v verdict) bool { return v.Verdict == "verified" && v.Phase == string(report.Ready) }
	awaitVerdict("the status is pushed, by a host that nobody knows", func(v verdict) bool { return v.Verdict == "no key" })

	s.Merge("Enroll host-01", map[string]string{file: h.Do("enroll")})
	first := awaitVerdict("what the host signs is verified", verified)

	clone := filepath.Join(t.TempDir(), "clone")
	user := s.Server.Writer()
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte(user.Password), 0o600))
	elsewhere := []string{"--dir", clone, "--remote", s.Server.URL("fleet"), "--username", user.Name, "--password-file", password, "--ca-file", s.Server.CAFile()}
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", clone}, args...)...).CombinedOutput()
		return string(out), err
	}
	pull := func() {
		t.Helper()
		out, err := git("pull", "--quiet", "origin", "main")
		require.NoError(t, err, out)
	}
	out, err := exec.CommandContext(t.Context(), "git", "clone", "--quiet", s.Repo.Path, clone).CombinedOutput()
	require.NoError(t, err, string(out))
	v, ok := verify(t, h, elsewhere...)
	require.True(t, ok, "%+v", v)

	plain := func() (string, error) { // git alone, with the list that is printed
		t.Helper()
		signers := filepath.Join(t.TempDir(), "signers")
		require.NoError(t, os.WriteFile(signers, []byte(h.Do("verify-status", "--allowed-signers")), 0o600))
		out, err := git("fetch", "--quiet", "origin", "+refs/heads/status/*:refs/remotes/origin/status/*")
		require.NoError(t, err, out)
		return git("-c", "gpg.ssh.allowedSignersFile="+signers, "verify-commit", "origin/"+branch)
	}
	said, err := plain()
	require.NoError(t, err, said)
	require.Contains(t, said, `Good "git" signature for host-01 with ED25519 key `+first.Key)

	content, err := s.Repo.Git("show", branch+":status.yaml")
	require.NoError(t, err)
	s.Repo.Commit(t, branch, "one: Ready", gitserver.Files{"status.yaml": strings.ReplaceAll(content, "phase: Ready", "phase: Blocked") + "\n"})
	v, ok = verify(t, h)
	require.False(t, ok)
	require.Equal(t, "refused", v.Verdict)
	require.Equal(t, "it is not signed", v.Why)
	said, err = plain()
	require.Error(t, err, said)

	both := h.Do("enroll", "--rotate")
	s.Merge("Rotate the keys of host-01", map[string]string{file: both})
	next := awaitVerdict("the next status is verified, and signed with the new key", func(v verdict) bool { return verified(v) && v.Key != first.Key })
	former := filepath.Join(t.TempDir(), "former")
	require.NoError(t, os.CopyFS(former, os.DirFS(filepath.Join(h.Dir, "state", "host", "0001"))))
	var kept []string
	for line := range strings.Lines(both) {
		if !strings.Contains(line, "to be taken out") {
			kept = append(kept, line)
		}
	}
	s.Merge("Take the former keys of host-01 out", map[string]string{file: strings.Join(kept, "")})
	testbed.Eventually(t, soon, "the agent deletes the former private halves", func() error {
		if _, err := os.Stat(filepath.Join(h.Dir, "state", "host", "0001")); !os.IsNotExist(err) {
			return fmt.Errorf("they are there: %w", err)
		}
		return nil
	})
	require.Contains(t, h.Do("events"), "KeysDeleted")
	v = awaitVerdict("the status is the host's", verified)
	require.Equal(t, next.Key, v.Key)
	said, err = plain()
	require.NoError(t, err, said)

	pull()
	require.NoError(t, os.Chmod(filepath.Join(former, "signing-key"), 0o600))
	tree, err := s.Repo.Git("rev-parse", branch+"^{tree}")
	require.NoError(t, err)
	forged, err := git("-c", "gpg.format=ssh", "-c", "user.signingKey="+filepath.Join(former, "signing-key"), "-c", "user.name=a", "-c", "user.email=a@b",
		"commit-tree", "-S", "-m", "one: Ready", strings.TrimSpace(tree))
	require.NoError(t, err, forged)
	out2, err := git("push", "--quiet", "--force", "origin", strings.TrimSpace(forged)+":refs/heads/"+branch)
	require.NoError(t, err, out2)
	v, _ = verify(t, h, elsewhere...)
	require.Equal(t, "former key", v.Verdict, "%+v", v)
	v, _ = verify(t, h)
	require.Equal(t, "refused", v.Verdict, "without the history nobody knows of it")

	s.Merge("News", map[string]string{"README.md": "the next status\n"})
	awaitVerdict("the agent's next status takes its place", verified)
	s.aMachineOfTheSameNameDoesNothing(h)
}

// aMachineOfTheSameNameDoesNothing starts another machine under the host's name.
func (s *small) aMachineOfTheSameNameDoesNothing(h *agenttest.Host) {
	s.t.Helper()
	before, ran := s.Repo.Head("status/one"), s.running()
	other := agenttest.NewHost(s.t, s.Fleet, agenttest.HostOptions{})
	text, err := os.ReadFile(other.Config())
	require.NoError(s.t, err)
	lines := strings.SplitAfter(string(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "machineID:") {
			lines[i] = "machineID: " + strings.Repeat("0", 31) + "1\n"
		}
	}
	require.NoError(s.t, os.WriteFile(other.Config(), []byte(strings.Join(lines, "")), 0o600))
	other.Start()
	status := other.AwaitPhase(soon, "one", report.Blocked, "")
	require.Contains(s.t, strings.Join(status.Why, " "), "hosts/host-01.yaml names the machine")
	require.NoDirExists(s.t, filepath.Join(other.Dir, "state", "host"), "it makes no keys")
	other.Stop()
	require.Equal(s.t, before, s.Repo.Head("status/one"))
	require.Equal(s.t, ran, s.running())
	v, ok := verify(s.t, h)
	require.True(s.t, ok, "%+v", v)
}
