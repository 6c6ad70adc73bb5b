package attest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/stretchr/testify/require"

	"dive-agent/attest"
	"dive-agent/desired"
	"dive-agent/gitremote"
	"dive-agent/hostkeys"
	"dive-agent/published"
	"dive-agent/report"
	"dive-agent/source"
	"dive-agent/testbed/gitserver"
)

var now = time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC)

// bed is a real Git server with status branches, and a fleet of two hosts: deu and est run on the first, usa on the second.
type bed struct {
	*testing.T
	repo   *gitserver.Repository
	remote *gitremote.Remote
	fleet  *desired.Fleet
	signer map[string]gitremote.Signer // by host
	keys   map[string]string           // public halves by host
}

func newBed(t *testing.T) *bed {
	t.Helper()
	server := gitserver.Start(t, gitserver.Options{})
	b := &bed{T: t, repo: server.NewRepository(t, "fleet"), signer: map[string]gitremote.Signer{}, keys: map[string]string{}}
	user := server.Writer()
	remote, err := gitremote.New(gitremote.Config{URL: server.URL("fleet"), CAFile: server.CAFile(), Username: user.Name, Password: user.Password, Limits: attest.Limits})
	require.NoError(t, err)
	t.Cleanup(remote.Close)
	b.remote = remote
	for _, host := range []string{"edge-01", "usa-01", "nobody"} {
		keys, _, err := hostkeys.Ensure(filepath.Join(t.TempDir(), host), now)
		require.NoError(t, err)
		pem, _ := keys.Signer(nil)
		b.signer[host], err = gitremote.NewSSHSigner(pem)
		require.NoError(t, err)
		b.keys[host] = keys.Public()[0].SigningKey
	}
	b.fleet = &desired.Fleet{
		Hosts: map[string]*desired.Host{
			"edge-01": {Name: "edge-01", SigningKeys: []string{b.keys["edge-01"]}},
			"usa-01":  {Name: "usa-01", SigningKeys: []string{b.keys["usa-01"]}},
		},
		Instances: map[string]*desired.Instance{
			"deu": {Name: "deu", Host: "edge-01"}, "est": {Name: "est", Host: "edge-01"}, "usa": {Name: "usa", Host: "usa-01"},
		},
	}
	return b
}

// documents are the files of a status branch.
func documents(t *testing.T, instance, host string) map[string][]byte {
	t.Helper()
	files, err := (&report.Status{APIVersion: report.APIVersion, Kind: report.Kind, Instance: instance, Host: host, Phase: report.Ready, Updated: now}).Files()
	require.NoError(t, err)
	return files
}

// push puts a commit on top of a branch, by somebody who may push.
func (b *bed) push(branch string, by gitremote.Signer, files map[string][]byte, at time.Time) string {
	b.Helper()
	old := plumbing.NewHash(b.repo.Head("status/" + branch))
	h, err := b.remote.Commit(b.Context(), gitremote.CommitRequest{
		Ref: plumbing.NewBranchReferenceName("status/" + branch), Old: old, Parent: old, Files: files, Message: branch + ": Ready",
		Author: gitremote.Person{Name: "dive-agent", Email: "a@b"}, When: at, Signer: by,
	})
	require.NoError(b, err)
	return h.String()
}

func (b *bed) check(name string) attest.Result {
	b.Helper()
	results, err := attest.Check(b.Context(), b.fleet, []string{name}, attest.Options{Remote: b.remote, Now: func() time.Time { return now }, Former: b.former})
	require.NoError(b, err)
	require.Len(b, results, 1)
	return results[0]
}

// former knows that the key of nobody was one of edge-01 once.
func (b *bed) former(host, key string) string {
	if host == "edge-01" && key == b.keys["nobody"] {
		return "1a2b3c4 of 2026-08-01"
	}
	return ""
}

// verifyCommit is plain git with the list of signers that is printed.
func (b *bed) verifyCommit(commit string, names ...string) (string, error) {
	b.Helper()
	text, err := attest.AllowedSigners(b.fleet, names)
	require.NoError(b, err)
	file := filepath.Join(b.TempDir(), "allowed-signers")
	require.NoError(b, os.WriteFile(file, []byte(text), 0o600))
	out, err := exec.CommandContext(b.Context(), "git", "-C", b.repo.Path, "-c", "gpg.ssh.allowedSignersFile="+file, "verify-commit", commit).CombinedOutput()
	return string(out), err
}

func TestAStatusOfItsHostIsVerified(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	missing := b.check("deu")
	require.Equal(t, attest.Missing, missing.Verdict)
	require.Contains(t, missing.Do, "edge-01")

	commit := b.push("deu", b.signer["edge-01"], documents(t, "deu", "edge-01"), now.Add(-time.Minute))
	require.Equal(t, attest.Result{
		Instance: "deu", Host: "edge-01", Verdict: attest.Verified, Commit: commit, Key: source.Fingerprint(b.keys["edge-01"]),
		Written: now.Add(-time.Minute), Phase: "Ready",
	}, b.check("deu"))
	said, err := b.verifyCommit(commit)
	require.NoError(t, err, said)
	require.Contains(t, said, `Good "git" signature for edge-01 with ED25519 key `+source.Fingerprint(b.keys["edge-01"]))
	said, err = b.verifyCommit(commit, "usa")
	require.Error(t, err, "with the keys of usa's host alone: %s", said)

	b.fleet.Hosts["edge-01"].SigningKeys = append([]string{b.keys["nobody"]}, b.fleet.Hosts["edge-01"].SigningKeys...)
	require.Equal(t, attest.Verified, b.check("deu").Verdict, "old and new side by side")
	said, err = b.verifyCommit(commit)
	require.NoError(t, err, said)

	old := b.check("deu")
	require.False(t, old.Stale(now.Add(40*time.Minute)))
	require.True(t, old.Stale(now.Add(time.Hour)), "the host is away, or an old status was put back")
}

// TestWhatTheHostDidNotWriteIsRefused: by somebody who may push to the repository, and has no key of the host.
func TestWhatTheHostDidNotWriteIsRefused(t *testing.T) {
	t.Parallel()
	outputs := func(instance, host string) map[string][]byte {
		files := documents(t, "deu", "edge-01")
		document := &published.Document{APIVersion: published.APIVersion, Kind: published.Kind, Instance: instance, Host: host, Generation: 1}
		var err error
		files[published.File], err = document.Encode()
		require.NoError(t, err)
		return files
	}
	for name, c := range map[string]struct {
		push  func(b *bed) (commit string)
		why   string
		plain bool // plain git takes the signature, which says nothing of whose status it is
	}{
		"not signed":        {func(b *bed) string { return b.push("deu", nil, documents(t, "deu", "edge-01"), now) }, "it is not signed", false},
		"by a key of his":   {func(b *bed) string { return b.push("deu", stranger(t), documents(t, "deu", "edge-01"), now) }, "an SSH key that is not trusted (SHA256:", false},
		"by another host":   {func(b *bed) string { return b.push("deu", b.signer["usa-01"], documents(t, "deu", "edge-01"), now) }, "not trusted", true},
		"another's status":  {func(b *bed) string { return b.push("deu", b.signer["edge-01"], documents(t, "est", "edge-01"), now) }, `its status.yaml is of instance "est" on host "edge-01"`, true},
		"of another host":   {func(b *bed) string { return b.push("deu", b.signer["edge-01"], documents(t, "deu", "usa-01"), now) }, `of instance "deu" on host "usa-01"`, true},
		"another's outputs": {func(b *bed) string { return b.push("deu", b.signer["edge-01"], outputs("est", "edge-01"), now) }, `its outputs.yaml is of instance "est"`, true},
		"no status":         {func(b *bed) string { return b.push("deu", b.signer["edge-01"], map[string][]byte{"a": nil}, now) }, "its status.yaml cannot be read: file not found", true},
		"another document": {func(b *bed) string {
			return b.push("deu", b.signer["edge-01"], map[string][]byte{"status.yaml": []byte("kind: Secret\n")}, now)
		}, `it is a "Secret"`, true},
		"of tomorrow": {func(b *bed) string {
			return b.push("deu", b.signer["edge-01"], documents(t, "deu", "edge-01"), now.Add(24*time.Hour))
		}, "still to come", true},
		"the branch of usa":  {copied, "not trusted", true},
		"its words, altered": {altered, "its signature by edge-01 is wrong", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			commit := c.push(b)
			r := b.check("deu")
			require.Equal(t, attest.Refused, r.Verdict, "%+v", r)
			require.Contains(t, r.Why, c.why)
			require.NotEmpty(t, r.Do)
			require.Equal(t, commit, r.Commit)
			require.Empty(t, r.Phase, "nothing of what it says is told")
			said, err := b.verifyCommit(commit)
			require.Equal(t, c.plain, err == nil, said)

			b.push("deu", b.signer["edge-01"], outputs("deu", "edge-01"), now)
			require.Equal(t, attest.Verified, b.check("deu").Verdict, "what the agent tells next takes its place")
		})
	}
}

func stranger(t *testing.T) gitremote.Signer {
	keys, _, err := hostkeys.Ensure(t.TempDir(), now)
	require.NoError(t, err)
	pem, _ := keys.Signer(nil)
	signer, err := gitremote.NewSSHSigner(pem)
	require.NoError(t, err)
	return signer
}

// copied lets the branch of deu point to what the host of usa signed.
func copied(b *bed) string {
	b.Helper()
	commit := b.push("usa", b.signer["usa-01"], documents(b.T, "usa", "usa-01"), now)
	_, err := b.repo.Git("update-ref", "refs/heads/status/deu", commit)
	require.NoError(b, err)
	return commit
}

// altered keeps a signature of the host, and puts another tree under it.
func altered(b *bed) string {
	b.Helper()
	good := b.push("deu", b.signer["edge-01"], documents(b.T, "deu", "edge-01"), now)
	other := b.push("est", b.signer["edge-01"], documents(b.T, "est", "edge-01"), now)
	raw, err := b.repo.Git("cat-file", "commit", good)
	require.NoError(b, err)
	trees := [2]string{}
	for i, commit := range []string{good, other} {
		tree, err := b.repo.Git("rev-parse", commit+"^{tree}")
		require.NoError(b, err)
		trees[i] = strings.TrimSpace(tree)
	}
	file := filepath.Join(b.TempDir(), "commit")
	require.NoError(b, os.WriteFile(file, []byte(strings.Replace(raw, trees[0], trees[1], 1)+"\n"), 0o600))
	id, err := b.repo.Git("hash-object", "-t", "commit", "-w", file)
	require.NoError(b, err)
	_, err = b.repo.Git("update-ref", "refs/heads/status/deu", strings.TrimSpace(id))
	require.NoError(b, err)
	return strings.TrimSpace(id)
}

func TestAFormerKeyIsToldAsSuch(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.push("deu", b.signer["nobody"], documents(t, "deu", "edge-01"), now)
	r := b.check("deu")
	require.Equal(t, attest.FormerKey, r.Verdict)
	require.Contains(t, r.Why, "a former key of edge-01 ("+source.Fingerprint(b.keys["nobody"])+"), which its file lists no more since 1a2b3c4 of 2026-08-01")
	b.push("usa", b.signer["nobody"], documents(t, "usa", "usa-01"), now)
	require.Equal(t, attest.Refused, b.check("usa").Verdict, "it never was usa's")
}

func TestTheWholeFleetIsChecked(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.fleet.Hosts["usa-01"].SigningKeys = nil
	b.push("deu", b.signer["edge-01"], documents(t, "deu", "edge-01"), now)
	b.push("usa", b.signer["usa-01"], documents(t, "usa", "usa-01"), now)
	removed := func(name, host string) map[string][]byte {
		files, err := (&report.Status{APIVersion: report.APIVersion, Kind: report.Kind, Instance: name, Host: host, Phase: report.Removed, Updated: now}).Files()
		require.NoError(t, err)
		return files
	}
	b.push("svn", b.signer["edge-01"], documents(t, "svn", "edge-01"), now)
	b.push("fra", b.signer["edge-01"], removed("fra", "edge-01"), now.Add(-48*time.Hour))
	b.push("gbr", stranger(t), removed("gbr", "edge-01"), now)
	b.push("ita", b.signer["edge-01"], removed("fra", "edge-01"), now)
	b.push("pol", b.signer["edge-01"], removed("pol", "pol-01"), now)
	results, err := attest.Check(t.Context(), b.fleet, nil, attest.Options{Remote: b.remote, Now: func() time.Time { return now }})
	require.NoError(t, err)
	var told []string
	for _, r := range results {
		told = append(told, fmt.Sprintf("%s %s", r.Instance, r.Verdict))
	}
	require.Equal(t, []string{"deu verified", "est missing", "fra removed", "gbr stranger", "ita stranger", "pol stranger", "svn stranger", "usa no key"}, told)
	require.Contains(t, results[7].Why, "dive-agent enroll")
	require.Equal(t, "edge-01 Removed false", fmt.Sprint(results[2].Host, " ", results[2].Phase, " ", results[2].Stale(now)))
	one, err := attest.Check(t.Context(), b.fleet, []string{"fra"}, attest.Options{Remote: b.remote, Now: func() time.Time { return now }})
	require.NoError(t, err)
	require.Equal(t, results[2:3], one)

	_, err = attest.Check(t.Context(), b.fleet, []string{"dey"}, attest.Options{Remote: b.remote, Now: time.Now})
	require.ErrorContains(t, err, `no instance "dey", did you mean "deu"?`)
	_, err = attest.AllowedSigners(b.fleet, []string{"dey"})
	require.ErrorContains(t, err, `no instance "dey"`)
	text, err := attest.AllowedSigners(b.fleet, nil)
	require.NoError(t, err)
	require.Equal(t, "# edge-01 writes the status of deu, est\nedge-01 namespaces=\"git\" "+b.keys["edge-01"]+
		"\n# usa-01 writes the status of usa\n# it has no key yet: dive-agent enroll on it prints hosts/usa-01.yaml\n", text)
}
