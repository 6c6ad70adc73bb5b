package main

import (
	"bytes"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed/gitserver"
)

func TestASecretThatNobodyDeclaresIsNotKept(t *testing.T) {
	repo, config := emptyFleet(t)
	set := func(args ...string) error {
		root := newRoot(streams{&bytes.Buffer{}, &bytes.Buffer{}})
		root.SetIn(strings.NewReader("a value\n"))
		root.SetArgs(append([]string{"--config", config, "secrets", "set"}, args...))
		return root.ExecuteContext(t.Context())
	}
	require.NoError(t, set("fra", "PIN"), "a host without a revision knows no names")

	h, err := openHost(t.Context(), &globals{streams: streams{t.Output(), t.Output()}, config: config}, hostOptions{})
	require.NoError(t, err)
	defer h.close()
	files := gitserver.Files{
		"hosts/other-01.yaml": "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: other-01}\nspec: {}\n",
		"instances/deu.yaml":  "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: deu}\nspec: {role: spoke, host: other-01, secrets: {LICENCE: {provide: true}}, components: {checks: {kind: Verification, checks: [{name: one, tcp: {address: \"127.0.0.1:1\"}}]}}}\n",
	}
	maps.Copy(files, fleet("one"))
	commit := repo.Commit(t, "main", "First", files)
	revision, _, err := h.source.Poll(t.Context())
	require.NoError(t, err)
	require.NoError(t, h.source.Accept(revision))

	require.NoError(t, set("deu", "LICENCE"))
	require.EqualError(t, set("deu", "LICENSE"), commit[:7]+` declares no secret "LICENSE" of deu, did you mean "LICENCE"?; if a merge that is to come declares it, say --force`)
	require.NoFileExists(t, filepath.Join(filepath.Dir(config), "state/instances/deu/secrets/.store/values/LICENSE"))
	require.ErrorContains(t, set("due", "LICENCE"), `no instance "due" to this host, did you mean "deu"?`)
	require.NoDirExists(t, filepath.Join(filepath.Dir(config), "state/instances/due"))
	require.NoError(t, set("due", "LICENCE", "--force"))
}
