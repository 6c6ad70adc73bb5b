package e2e

import (
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
)

// TestABadRevisionIsRefusedAsAWhole: every place is named, what runs keeps running, status and exit code 65 say why.
func TestABadRevisionIsRefusedAsAWhole(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, good := s.ready(agenttest.HostOptions{})
	before := s.running()
	compose := strings.Replace(smallCompose, "  store:\n", "  store:\n    ports: [\"127.0.0.1:${PORT}:6379\"]\n", 1)
	for name, bad := range map[string]struct {
		files map[string]string
		says  []string
	}{
		"broken YAML":       {map[string]string{"instances/one.yaml": "kind: [\n"}, []string{"instances/one.yaml:"}},
		"unknown field":     {map[string]string{"instances/one.yaml": s.instance("", "  blueprnt: small\n")}, []string{`instances/one.yaml:8:3`, `"blueprnt"`, `did you mean "blueprint"`}},
		"unknown blueprint": {map[string]string{"instances/one.yaml": strings.Replace(s.instance("", ""), "blueprint: small", "blueprint: smal", 1)}, []string{"instances/one.yaml:5:", `"smal"`, `"small"`}},
		"two mistakes": {
			map[string]string{"instances/one.yaml": s.instance(", labl: x", ""), "hosts/host-01.yaml": "kind: Host\n"},
			[]string{"instances/one.yaml:7:", "hosts/host-01.yaml:"},
		},
		"cycle": {map[string]string{"blueprints/small/compose.yaml": strings.Replace(smallCompose, "    volumes: [\"data:/data\"]\n",
			"    volumes: [\"data:/data\"]\n    depends_on: [front]\n", 1)}, []string{"blueprints/small/blueprint.yaml:14:", "cycle", "front -> store"}},
		"two instances on one port": {map[string]string{
			"blueprints/small/compose.yaml":   compose,
			"blueprints/small/blueprint.yaml": strings.Replace(s.files("")["blueprints/small/blueprint.yaml"], "        LABEL:", "        PORT: \"4711\"\n        LABEL:", 1),
			"instances/two.yaml":              strings.ReplaceAll(strings.Replace(s.instance("", ""), "name: one", "name: two", 1), s.project, s.project+"-2"),
		}, []string{"4711", "host-01", "one", "two"}},
	} {
		commit := s.Merge(name, bad.files)
		status := h.Await(soon, "one", name, func(st *report.Status) bool { return strings.Contains(why(st), commit[:7]) })
		for _, says := range bad.says {
			require.Contains(t, why(status), says, name)
		}
		require.Equal(t, report.Ready, status.Phase, name)
		require.Equal(t, good, status.Applied, name)
		require.Equal(t, before, s.running(), name)
		fixed := s.files("")
		fixed["instances/two.yaml"] = ""
		if _, ok := bad.files["instances/two.yaml"]; !ok {
			delete(fixed, "instances/two.yaml")
		}
		good = s.Merge("Mend "+name, fixed)
		h.Await(soon, "one", "is mended", func(st *report.Status) bool { return st.Applied == good && !strings.Contains(why(st), "Accepted") })
	}
	require.Equal(t, before, s.running(), "the mended revisions are equal in substance: nothing was recreated")

	s.Merge("Break for once", map[string]string{"instances/one.yaml": "kind: [\n"})
	h.Stop()
	for range 2 {
		_, err := h.Try("once")
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 65, exit.ExitCode(), "%v", err)
	}
	require.Equal(t, before, s.running())

	refused := func(st *report.Status) bool { return strings.Contains(why(st), "is refused as a whole") }
	h.Start()
	h.Await(soon, "one", "is still told to be refused after a restart", refused)
	_, err := s.Repo.Git("update-ref", "refs/heads/main", good)
	require.NoError(t, err)
	h.Await(soon, "one", "is fine once the branch is back", func(st *report.Status) bool { return !refused(st) })

	values := make([]string, 2000)
	for i := range values {
		values[i] = fmt.Sprintf("wrong%d: x", i)
	}
	wrong := s.Merge("Very wrong", s.files(strings.Join(values, ", ")))
	status := h.Await(soon, "one", "tells of many problems", func(st *report.Status) bool { return strings.Contains(why(st), wrong[:7]+" is refused as a whole") })
	require.Less(t, len(why(status)), 20_000)
	require.Contains(t, why(status), "and 1980 more problems, all told by: dive-agent validate")
}

// TestNoTreeIsEverReadAsARemoval: an empty tree, a rewritten branch, a branch that is gone, a Git server that is away.
func TestNoTreeIsEverReadAsARemoval(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, good := s.ready(agenttest.HostOptions{})
	before := s.running()
	git := func(args ...string) string {
		out, err := s.Repo.Git(args...)
		require.NoError(t, err)
		return strings.TrimSpace(out)
	}
	git("config", "user.name", "Ada")
	git("config", "user.email", "ada@example.org")
	look := func(says string) {
		t.Helper()
		status := h.Await(soon, "one", says, func(st *report.Status) bool { return strings.Contains(why(st), says) })
		require.Equal(t, good, status.Applied)
		require.Equal(t, before, s.running())
		require.Contains(t, h.Do("status"), "not followed since")
	}
	back := func() {
		git("update-ref", "refs/heads/main", good)
		h.Await(soon, "one", "is followed again", func(st *report.Status) bool { return !strings.Contains(why(st), "SourceFollowed") })
	}

	git("update-ref", "refs/heads/main", git("commit-tree", git("mktree"), "-p", good, "-m", "Nothing"))
	look("GitEmptyTree")
	back()

	git("update-ref", "refs/heads/main", git("commit-tree", good+"^{tree}", "-m", "Another history"))
	look("GitRewritten")
	back()

	git("update-ref", "-d", "refs/heads/main")
	look("GitBranchMissing")
	back()

	s.Server.Stop()
	look("GitUnreachable")
	h.Stop()
	h.Start() // a start with Git away works from the last good revision
	look("GitUnreachable")
	id := before["front"]
	removeContainer(t, s, id)
	h.Await(soon, "one", "is healed without Git", func(st *report.Status) bool { return s.running()["front"] != "" && st.Phase == report.Ready })
	before = s.running()
	require.NoError(t, s.Server.Up())
	h.Await(soon, "one", "is followed again", func(st *report.Status) bool { return !strings.Contains(why(st), "SourceFollowed") })
}

// TestAManifestThatGoesStopsNothing: what runs is left running, and comes under control again with its manifest. Meanwhile its
// status branch is its record: the last commit says Removed, signed by the host, and no other follows it.
func TestAManifestThatGoesStopsNothing(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.ready(agenttest.HostOptions{})
	before := s.running()
	manifest := s.files("")["instances/one.yaml"]
	s.Merge("Enroll host-01", map[string]string{"hosts/host-01.yaml": h.Do("enroll")})
	s.Merge("Take one out", map[string]string{"instances/one.yaml": ""})
	status := h.AwaitPhase(soon, "one", report.Removed, "")
	require.Contains(t, why(status), "left running")
	require.Equal(t, before, s.running())
	testbed.Eventually(t, soon, "the record is pushed", func() error {
		if v, ok := verify(t, h); !ok || v.Verdict != "removed" || v.Phase != "Removed" {
			return fmt.Errorf("it is %+v", v)
		}
		return nil
	})
	record := s.Repo.Head("status/one")
	h.Stop()
	h.Start()
	status = h.AwaitPhase(soon, "one", report.Removed, "")
	require.Len(t, status.Services, 2, "an agent that never saw the manifest tells of what runs")
	require.NotZero(t, status.Seen)
	require.Contains(t, h.Do("sync", "--wait", "one"), "as seen")
	require.Contains(t, h.Do("sync", "one"), "one is not looked at: its manifest is gone")
	h.Stop() // it delivers what is left to report
	require.Equal(t, record, s.Repo.Head("status/one"))
	h.Start()
	commit := s.Merge("Bring one back", map[string]string{"instances/one.yaml": manifest})
	h.Await(soon, "one", "is back", func(st *report.Status) bool { return st.Applied == commit && st.Phase == report.Ready })
	require.Equal(t, before, s.running(), "nothing was recreated")
}

// TestAnInstanceThatMovesIsToldOfByItsNewHostAlone: its branch has one writer, and what runs is left running.
func TestAnInstanceThatMovesIsToldOfByItsNewHostAlone(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, good := s.ready(agenttest.HostOptions{})
	before := s.running()
	s.Merge("Move it", map[string]string{
		"hosts/host-02.yaml": "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: host-02}\nspec: {}\n",
		"instances/one.yaml": strings.Replace(s.instance("", ""), "host: host-01", "host: host-02", 1),
	})
	status := h.AwaitPhase(soon, "one", report.Removing, "")
	require.Contains(t, why(status), "host-02")
	h.Stop() // it delivers what is left to report
	subject, err := s.Repo.Git("log", "-1", "--format=%s", "status/one")
	require.NoError(t, err)
	require.Contains(t, subject, "one: Ready at "+good[:7])
	require.Equal(t, before, s.running())
}

// TestOnlySignedCommitsCountWhereSignersAreNamed: an unsigned commit keeps the revision before in force.
func TestOnlySignedCommitsCountWhereSignersAreNamed(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	key := filepath.Join(t.TempDir(), "key")
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ada@example.org", "-f", key).CombinedOutput()
	require.NoError(t, err, string(out))
	public, err := os.ReadFile(key + ".pub")
	require.NoError(t, err)
	signers := filepath.Join(filepath.Dir(key), "allowed-signers")
	require.NoError(t, os.WriteFile(signers, []byte("ada@example.org "+string(public)), 0o600))
	signed := func(commit string) string {
		t.Helper()
		for _, args := range [][]string{{"config", "user.name", "Ada"}, {"config", "user.email", "ada@example.org"}, {"config", "gpg.format", "ssh"}, {"config", "user.signingKey", key}} {
			_, err := s.Repo.Git(args...)
			require.NoError(t, err)
		}
		args := []string{"commit-tree", "-S", "-m", "Signed", commit + "^{tree}"}
		if parent, err := s.Repo.Git("rev-parse", "-q", "--verify", commit+"^"); err == nil {
			args = append(args, "-p", strings.TrimSpace(parent))
		}
		made, err := s.Repo.Git(args...)
		require.NoError(t, err)
		_, err = s.Repo.Git("update-ref", "refs/heads/main", strings.TrimSpace(made))
		require.NoError(t, err)
		return strings.TrimSpace(made)
	}
	first := signed(s.Merge("Begin", s.files("")))
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{Source: ", signersFile: " + signers})
	h.Start()
	h.AwaitPhase(soon, "one", report.Ready, first)
	unsigned := s.Merge("Not signed", s.files("label: second"))
	status := h.Await(soon, "one", "says that it is not signed", func(st *report.Status) bool { return strings.Contains(why(st), "GitUnsigned") })
	require.Equal(t, first, status.Applied)
	second := signed(unsigned)
	h.AwaitPhase(soon, "one", report.Ready, second)
}
