package keycloak

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

// A person's plan works on a copy of the component's folder, with the live realm and state.
func beside(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	before, picture := treeOf(t, w.target.Dir), w.picture(t)
	status, _ := b.admin(t, http.MethodPut, "/"+w.realm, map[string]any{"displayName": "by hand"})
	require.Equal(t, http.StatusNoContent, status)

	live := w.target.Dir
	w.target.CopyOf, w.target.Dir = live, filepath.Join(t.TempDir(), "copy")
	require.NoError(t, exec.Command("cp", "-a", live, w.target.Dir).Run())
	_, plan := w.look()
	require.Equal(t, []string{"update keycloak_realm.this display_name"}, printOf(plan.Changes), "the live realm is looked at, whatever the schedule says")
	require.Equal(t, []reconcilers.Difference{{Path: "display_name", Before: "by hand", After: "A realm"}}, plan.Differences["keycloak_realm.this"])

	w.source("testdata") // a revision with another module
	w.target.CopyOf, w.target.Dir = live, filepath.Join(t.TempDir(), "copy")
	require.NoError(t, exec.Command("cp", "-a", live, w.target.Dir).Run())
	file := filepath.Join(w.target.SourceDir, "realm", "more.tf")
	require.NoError(t, os.WriteFile(file, []byte("resource \"keycloak_role\" \"more\" {\n  realm_id = keycloak_realm.this.id\n  name = \"more\"\n}\n"), 0o600))
	w.spec.Variables["roles"] = tree(t, "[reader]")
	_, plan = w.look()
	require.ElementsMatch(t, []string{
		"delete keycloak_role.each[\"writer\"]", "create keycloak_role.more", "update keycloak_realm.this display_name",
	}, printOf(plan.Changes))
	require.Equal(t, before, treeOf(t, live), "a plan wrote in the agent's folder")
	require.NotEqual(t, picture, w.picture(t), "and nothing in the realm: it is as it was left by hand")

	looks := exec.Command("yes", "plan") // as the agent's own look at the realm
	looks.Dir = filepath.Join(live, "module")
	_, err := looks.StdoutPipe() // which nobody reads
	require.NoError(t, err)
	require.NoError(t, looks.Start())
	defer func() { _ = looks.Process.Kill(); _ = looks.Wait() }()
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Len(t, plan.Changes, 3, "a plan beside a plan")

	stop := exec.Command("sleep", "60")
	stop.Dir = filepath.Join(live, "module")
	require.NoError(t, stop.Start())
	defer func() { _ = stop.Process.Kill(); _ = stop.Wait() }()
	observed, err = w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	var wait *reconcilers.WaitError
	require.True(t, errors.As(observed.Err, &wait), "a plan beside an apply that is under way: %v", observed.Err)
}

// treeOf is all that a folder holds, with the times at which it was written.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	listing, err := exec.Command("find", dir, "-printf", "%P %m %s %T@ %l\n").Output()
	require.NoError(t, err)
	return string(listing)
}
