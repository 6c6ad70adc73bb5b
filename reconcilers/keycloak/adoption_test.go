package keycloak

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"dive-agent/reconcilers"
)

// loseState leaves nothing of which a state could be put back.
func (w *world) loseState() {
	w.t.Helper()
	state := filepath.Join(w.target.Dir, "terraform.tfstate")
	require.NoError(w.t, os.WriteFile(state, nil, 0o600))
	require.NoError(w.t, os.RemoveAll(filepath.Join(w.target.Dir, "copies")))
	require.NoError(w.t, os.RemoveAll(state+".backup"))
}

// beside gives this world's target as a command has it.
func (w *world) beside() reconcilers.Target {
	w.t.Helper()
	target := w.target
	target.CopyOf, target.Dir = w.target.Dir, filepath.Join(w.t.TempDir(), "copy")
	require.NoError(w.t, exec.Command("cp", "-a", target.CopyOf, target.Dir).Run())
	return target
}

func (w *world) adoption() reconcilers.Adoption {
	w.t.Helper()
	before := treeOf(w.t, w.target.Dir)
	told, err := w.reconciler().Adoption(w.t.Context(), w.beside())
	require.NoError(w.t, err)
	require.Equal(w.t, before, treeOf(w.t, w.target.Dir), "the question changed something")
	w.hear(told)
	return told
}

// The question is answered for a state that is whole, one that lacks something, one that is lost, and one that never was.
func adoptionTold(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	told := w.adoption()
	require.Equal(t, "empty", told.State)
	require.Empty(t, told.Imports)
	require.Len(t, told.Creates, 6)
	require.Empty(t, told.Merge)

	w.drive()
	require.Equal(t, reconcilers.Adoption{State: "6 resources", File: "instances/deu.yaml"}, w.adoption())

	status, _ := b.admin(t, http.MethodPost, "/"+w.realm+"/roles", map[string]any{"name": "auditor"})
	require.Equal(t, http.StatusCreated, status)
	w.spec.Variables["roles"] = tree(t, "[reader, writer, auditor, ghost]")
	told = w.adoption()
	require.Len(t, told.Imports, 1)
	require.Equal(t, `keycloak_role.each["auditor"]`, told.Imports[0].Address)
	require.Equal(t, []reconcilers.Creation{{Address: `keycloak_role.each["ghost"]`}}, told.Creates)
	require.Equal(t, `spec: {components: {identity: {imports: {'keycloak_role.each["auditor"]': '`+told.Imports[0].ID+`'}}}}`, told.Merge)

	w.spec.Variables["roles"] = tree(t, "[reader, writer]")
	status, _ = b.admin(t, http.MethodPut, "/"+w.realm, map[string]any{"displayName": "by hand"})
	require.Equal(t, http.StatusNoContent, status)
	w.loseState()
	told = w.adoption()
	require.Equal(t, "lost: the state file is empty (0 bytes)", told.State)
	require.Empty(t, told.Creates)
	require.Equal(t, "spec: {components: {identity: {adopt: true}}}", told.Merge)
	require.Len(t, told.Imports, 6)
	id := regexp.MustCompile(`^` + w.realm + `(/client/[0-9a-f-]{36})?(/[0-9a-f-]{36})?$`)
	for _, one := range told.Imports {
		require.Regexp(t, id, one.ID, one.Address)
		require.Contains(t, told.Blocks, "import {\n  to = "+one.Address+"\n  id = \""+one.ID+"\"\n}\n")
		if one.Address == "keycloak_realm.this" {
			require.Contains(t, one.Changes, "display_name")
		}
	}
	_, diags := hclparse.NewParser().ParseHCL([]byte(told.Blocks), "imports.tf")
	require.False(t, diags.HasErrors(), "%v", diags)
}

// begunAnew merges what the Blocked lost state asks for: the realm is taken over, nothing in it is made again. What stood in
// the manifest before the loss is no answer to it, and waits.
func begunAnew(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	picture := w.picture(t)
	w.loseState()
	observed, _ := w.look()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "StateLost", blocked.Reason)

	w.spec.Adopt = true
	begun := time.Now()
	_, plan := w.look()
	require.Empty(t, plan.Asks, "it was merged after the loss")
	for _, c := range plan.Changes {
		require.False(t, c.Destroys, c.Address)
		require.True(t, c.Action == reconcilers.Update || strings.HasPrefix(c.Address, "output."), c.Address)
	}
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
	require.NoError(t, err)
	t.Logf("adopted after a lost state in %.1f s", time.Since(begun).Seconds())
	require.Empty(t, w.drive(), "what was taken over is whole")
	require.Equal(t, picture, w.picture(t))
	aside, err := filepath.Glob(filepath.Join(w.target.Dir, "*lost-*"))
	require.NoError(t, err)
	require.NotEmpty(t, aside, "nothing is removed")

	w.loseState()
	observed, plan = w.look()
	require.NoError(t, observed.Err)
	require.Len(t, plan.Asks, 1)
	require.Contains(t, plan.Asks[0], "`adopt: true` stood in the manifest before that")
	require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "what is in the realm is taken over")
	require.Len(t, plan.Changes, 9)
}

// conflicts meets a role that somebody made by hand. The error has the line that takes just that over.
func conflicts(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	status, _ := b.admin(t, http.MethodPost, "/"+w.realm+"/roles", map[string]any{"name": "auditor"})
	require.Equal(t, http.StatusCreated, status)
	var role struct{ ID string }
	b.read(t, "/"+w.realm+"/roles/auditor", &role)
	w.spec.Variables["roles"] = tree(t, "[reader, writer, auditor]")
	_, plan := w.look()
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, err, &blocked)
	require.Equal(t, "AlreadyThere", blocked.Reason)
	w.hear(err)
	address := `keycloak_role.each["auditor"]`
	require.Contains(t, blocked.Do, `merge into instances/deu.yaml: spec: {components: {identity: {imports: {'`+address+`': '`+w.realm+"/"+role.ID+`'}}}}`)

	w.spec.Imports = map[string]string{address: w.realm + "/" + role.ID}
	_, plan = w.look()
	require.Len(t, plan.Changes, 1)
	require.Equal(t, "update "+address, string(plan.Changes[0].Action)+" "+plan.Changes[0].Address)
	require.Subset(t, []string{"composite_roles"}, plan.Changes[0].Details, "keycloak/keycloak reads an empty list where nothing is declared")
	require.Equal(t, "taken over as it is in the realm", plan.Changes[0].Reason)
	w.drive()
	before := w.processes()
	w.look()
	require.Equal(t, before, w.processes(), "a line that has had its effect asks for nothing")

	w.spec.Imports[`keycloak_role.each["nobody"]`] = w.realm + "/none"
	observed, err := w.reconciler().Observe(t.Context(), w.target)
	require.ErrorContains(t, errors.Join(err, observed.Err), `each["nobody"]`, "what the module does not have is said")
}

// strangeStates brings the states that something else may leave in the folder.
func strangeStates(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	state := filepath.Join(w.target.Dir, "terraform.tfstate")
	whole, err := os.ReadFile(state)
	require.NoError(t, err)

	// Somebody ran Terraform here: the same state, gone on. It is looked at and taken.
	require.NoError(t, os.WriteFile(state, []byte(regexp.MustCompile(`"serial": \d+`).ReplaceAllString(string(whole), `"serial": 90`)), 0o644))
	require.NoError(t, os.Chmod(state, 0o644))
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "was written by something else: its serial went from")
	info, err := os.Stat(state)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	observed, _ = w.look()
	require.Empty(t, observed.Facts.Notes, "it is said once, and is ours from then on")
	w.quiet()

	// Another machine's state, of another lineage, where no copy of ours is left: never planned with, never removed.
	w.loseState()
	require.NoError(t, os.WriteFile(state, other(whole), 0o600))
	before := w.processes()
	observed, plan = w.look()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "StateLost", blocked.Reason)
	require.Contains(t, blocked.Message, "is another one (lineage")
	require.Empty(t, plan.Changes)
	require.Equal(t, before, w.processes())
	left, err := os.ReadFile(state)
	require.NoError(t, err)
	require.Equal(t, string(other(whole)), string(left))
}

// locks: one that is held is waited for; the file that a dead process left of one is no lock.
func locks(t *testing.T, b *bed) {
	w := newWorld(t, b, "driftSchedule: '@every 1h'\n")
	w.drive()
	state := filepath.Join(w.target.Dir, "terraform.tfstate")
	info := filepath.Join(w.target.Dir, ".terraform.tfstate.lock.info")
	require.NoError(t, os.WriteFile(info, []byte(`{"ID":"7b5e0a1c-0000-0000-0000-000000000000","Operation":"OperationTypeApply","Info":"","Who":"somebody@gone","Version":"1.11.4","Created":"2026-01-01T00:00:00Z","Path":"../terraform.tfstate"}`), 0o600))
	w.clock.move(2 * time.Hour)
	before := w.processes()
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.Greater(t, w.processes(), before, "it was planned beside the file of a lock that nobody holds")

	held, err := os.OpenFile(state, os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, unix.FcntlFlock(held.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	w.clock.move(2 * time.Hour)
	observed, err = w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	var wait *reconcilers.WaitError
	require.True(t, errors.As(observed.Err, &wait), "%v", observed.Err)
	require.Equal(t, "the lock of the Terraform state", wait.For)
	require.NoError(t, held.Close())
	observed, plan = w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
}
