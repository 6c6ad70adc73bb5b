package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/source"
	"dive-agent/testbed/gitserver"
)

// TestARevisionOvertakenByAnotherPollIsBroughtAgain: two polls side by side at the very first revision. What the second one
// brought goes when the first one's revision is accepted; it must be polled again, and never be taken for a bad revision.
func TestARevisionOvertakenByAnotherPollIsBroughtAgain(t *testing.T) {
	repo, config := emptyFleet(t)
	ctx := t.Context()
	h, err := openHost(ctx, &globals{streams: streams{t.Output(), t.Output()}, config: config}, hostOptions{})
	require.NoError(t, err)
	defer h.close()
	d := &serving{host: h, wake: make(chan struct{}, 1)}

	repo.Commit(t, "main", "First", fleet("one"))
	first, changed, err := h.source.Poll(ctx)
	require.NoError(t, err)
	require.True(t, changed)
	second := repo.Commit(t, "main", "Second", fleet("two"))
	overtaken, changed, err := h.source.Poll(ctx)
	require.NoError(t, err)
	require.True(t, changed)
	require.NoError(t, h.take(ctx, first))
	require.NoDirExists(t, overtaken.Dir, "this test's scene is not set: the second snapshot is still there")
	require.ErrorIs(t, h.take(ctx, overtaken), errOvertaken)
	require.NoError(t, d.pollNow(ctx))
	current, ok := h.source.Current()
	require.True(t, ok)
	require.Equal(t, second, current.Commit)
	require.NotEqual(t, source.Refused, h.source.State().Problem)
}

// emptyFleet makes a repository, and the configuration of a host that follows it.
func emptyFleet(t *testing.T) (repo *gitserver.Repository, config string) {
	server := gitserver.Start(t, gitserver.Options{})
	repo = server.NewRepository(t, "fleet")
	dir := t.TempDir()
	config = filepath.Join(dir, "agent.yaml")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte(server.Writer().Password), 0o600))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "host: other-01\nmachineID: 0123456789abcdef0123456789abcdef\nstateDir: state\nsocket: agent.sock\nsource: {url: %q, caFile: %s, username: %s, passwordFile: password}\n",
		server.URL("fleet"), server.CAFile(), server.Writer().Name), 0o600))
	return repo, config
}

func fleet(name string) gitserver.Files {
	return gitserver.Files{"fleet.yaml": "apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: " + name + "}\nspec: {}\n"}
}

// TestARefusalLastsAsLongAsTheBranchPointsToIt: over a restart, which judges it anew, and not beyond the branch's way back.
func TestARefusalLastsAsLongAsTheBranchPointsToIt(t *testing.T) {
	repo, config := emptyFleet(t)
	ctx := t.Context()
	start := func() *serving {
		h, err := openHost(ctx, &globals{streams: streams{t.Output(), t.Output()}, config: config}, hostOptions{})
		require.NoError(t, err)
		h.takeCurrent()
		return &serving{host: h, wake: make(chan struct{}, 1)}
	}
	refused := func(d *serving) string {
		overview, err := d.agent.Overview(ctx)
		require.NoError(t, err)
		if overview.Refused == nil {
			return ""
		}
		return overview.Refused.Revision.Commit
	}
	d := start()
	good := repo.Commit(t, "main", "Good", fleet("one"))
	require.NoError(t, d.pollNow(ctx))
	bad := repo.Commit(t, "main", "Bad", gitserver.Files{"fleet.yaml": "kind: [\n"})
	require.ErrorContains(t, d.pollNow(ctx), "fleet.yaml")
	require.Equal(t, bad, refused(d))
	d.close()

	d = start()
	defer d.close()
	require.ErrorContains(t, d.pollNow(ctx), "fleet.yaml")
	require.Equal(t, bad, refused(d))
	require.NoError(t, d.pollNow(ctx), "it is not judged at every poll")
	require.Equal(t, bad, refused(d))
	_, err := repo.Git("update-ref", "refs/heads/main", good)
	require.NoError(t, err)
	require.NoError(t, d.pollNow(ctx))
	require.Empty(t, refused(d))
	current, ok := d.source.Current()
	require.True(t, ok)
	require.Equal(t, good, current.Commit)
}
