package main

import (
	"bytes"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers/all"
	"dive-agent/secrets"
	"dive-agent/testbed/gitserver"
)

// TestWhatIsRotatedReachesWhoUsesIt: what no component brings there is refused, with what to do instead.
func TestWhatIsRotatedReachesWhoUsesIt(t *testing.T) {
	repo, config := emptyFleet(t)
	do := func(args ...string) (string, error) {
		var out bytes.Buffer
		root := newRoot(streams{&out, &bytes.Buffer{}})
		root.SetArgs(append([]string{"--config", config, "secrets"}, args...))
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	_, err := do("rotate", "deu", "KEY")
	require.ErrorContains(t, err, "no revision of its fleet in force that says how KEY of deu is made")

	h, err := openHost(t.Context(), &globals{streams: streams{t.Output(), t.Output()}, config: config}, hostOptions{})
	require.NoError(t, err)
	defer h.close()
	files := fleet("one")
	files["hosts/other-01.yaml"] = "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: other-01}\nspec: {}\n"
	files["instances/deu.yaml"] = `apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: deu}
spec:
  role: spoke
  host: other-01
  secrets:
    KEY: {generate: {kind: mongodb-keyfile}}
    PASSWORD: {generate: {}}
    LICENCE: {provide: true}
  components:
    checks: {kind: Verification, checks: [{name: one, tcp: {address: "127.0.0.1:1"}}]}
`
	commit := repo.Commit(t, "main", "First", files)
	revision, _, err := h.source.Poll(t.Context())
	require.NoError(t, err)
	require.NoError(t, h.source.Accept(revision))
	inst := desiredOf(t, revision.Dir).Instances["deu"]
	store, err := openSecrets(h.config, "deu")
	require.NoError(t, err)
	require.NoError(t, store.Set(t.Context(), "LICENCE", []byte("a licence")))
	_, err = store.Ensure(t.Context(), inst.Secrets, secrets.EnsureOptions{})
	require.NoError(t, err)

	for name, why := range map[string]string{
		"KYE":      commit[:7] + ` declares no secret "KYE" of deu, did you mean "KEY"?`,
		"PASSWORD": "no component of deu brings a new PASSWORD to what was set up with it. Change it there first, then give it with: dive-agent secrets set deu PASSWORD --replace",
		"LICENCE":  "secret LICENCE of deu is provided: give the new value with dive-agent secrets set deu LICENCE",
	} {
		_, err := do("rotate", "deu", name)
		require.EqualError(t, err, why)
	}
	out, err := do("rotate", "deu", "KEY")
	require.NoError(t, err)
	require.Contains(t, out, "KEY of deu has a new value: its servers get it beside the former one, then the former one is taken away.\n")
	require.Contains(t, out, "The agent takes it up at its next start or look: no agent answers")
	out, err = do("list", "deu")
	require.NoError(t, err)
	require.Contains(t, out, "rotated: its servers get the new key beside the former one (1 of 2)")
	_, err = do("rotate", "deu", "KEY")
	var rotating *secrets.RotatingError
	require.ErrorAs(t, err, &rotating)
}

// desiredOf loads a fleet as the commands do.
func desiredOf(t *testing.T, dir string) *desired.Fleet {
	t.Helper()
	fleet, err := desired.Load(dir, desired.Options{Kinds: all.Registry.Kinds()})
	require.NoError(t, err)
	return fleet
}

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
