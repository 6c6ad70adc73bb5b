package keycloak

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
	"dive-agent/testbed"
	"dive-agent/testbed/disk"
)

// manyRoles is how many roles are made while the disk fills up.
const manyRoles = 40

// lastRole is made after all others, and not at all when Terraform could not write that these were made.
const lastRole = `resource "keycloak_role" "last" {
  realm_id   = keycloak_realm.this.id
  name       = "last"
  depends_on = [keycloak_role.each]
}
`

// onDisk gives a world whose component has a disk of its own, and whose plan is to make many roles, and one after them.
func onDisk(t *testing.T, b *bed) (*world, *front) {
	f := newFront(t, b)
	w := f.through(t, b, "parallelism: 2\n")
	require.NoError(t, syscall.Mount("tmpfs", w.target.Dir, "tmpfs", 0, "size=32m,mode=0700"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(w.target.Dir, syscall.MNT_DETACH)) })
	var names []string
	for n := range manyRoles {
		names = append(names, fmt.Sprintf("r%02d", n))
	}
	w.spec.Variables["roles"] = tree(t, "["+strings.Join(names, ", ")+"]")
	require.NoError(t, os.WriteFile(filepath.Join(w.target.SourceDir, "realm", "last.tf"), []byte(lastRole), 0o600))
	return w, f
}

// heldAfter lets so many roles be made; then it says that they were, and the others wait until they may go on.
func heldAfter(roles int64) (do func(http.ResponseWriter, *http.Request) bool, reached, goOn chan struct{}) {
	var made atomic.Int64
	reached, goOn = make(chan struct{}), make(chan struct{})
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/roles") {
			return false
		}
		switch n := made.Add(1); {
		case n <= roles:
			return false
		case n == roles+1:
			close(reached)
		}
		select {
		case <-goOn:
		case <-r.Context().Done():
		}
		return false
	}, reached, goOn
}

// The disk gets full in the middle of an apply, with the agent there and without: Terraform cuts its state off, and the whole
// of it finds room. It is told what is lacking, nothing runs meanwhile, and once there is room the rest follows.
func diskFills(t *testing.T, b *bed) {
	t.Run("agent", func(t *testing.T) { diskFillsWith(t, b, func(*world) {}) })
	t.Run("no agent", func(t *testing.T) {
		diskFillsWith(t, b, func(w *world) { (&points{world: w}).killOne("shim") })
	})
}

func diskFillsWith(t *testing.T, b *bed, kill func(w *world)) {
	w, f := onDisk(t, b)
	_, plan := w.look()
	filler := filepath.Join(w.target.Dir, "filler")
	do, reached, goOn := heldAfter(10)
	f.on(do)
	applied := make(chan error, 1)
	go func() {
		_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
		applied <- err
	}()
	select {
	case <-reached:
	case err := <-applied:
		t.Fatalf("the apply ended before: %v", err)
	}
	disk.Fill(t, filler)
	kill(w)
	close(goOn)
	err := <-applied
	require.Error(t, err)
	w.hear(err)
	t.Log(err)
	w.ends()
	_, err = readState(filepath.Join(w.target.Dir, "terraform.tfstate"))
	require.Error(t, err, "it was written on a full disk")
	whole, err := readState(filepath.Join(w.target.Dir, "module", "errored.tfstate"))
	require.NoError(t, err, "the state found no room")
	made := whole.ids()
	require.Greater(t, len(made), 10)
	if testedTool() == terraform { // the other one writes the state once, at the end
		require.NotContains(t, made, "keycloak_role.last")
	}
	for _, role := range b.list(t, "/"+w.realm+"/roles?max=1000") {
		if name := fmt.Sprint(role["name"]); strings.HasPrefix(name, "r") {
			require.Equal(t, role["id"], made[fmt.Sprintf("keycloak_role.each[%q]", name)], "it has all that was made")
		}
	}

	before := w.processes()
	observed, err := w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	var wait *reconcilers.WaitError
	require.ErrorAs(t, observed.Err, &wait)
	require.Contains(t, wait.For, "room on the disk of "+w.target.Dir+": ")
	require.Contains(t, wait.Do, "goes on by itself")
	require.Equal(t, before, w.processes())

	f.on(nil)
	require.NoError(t, os.Remove(filler))
	observed, plan = w.look()
	require.NoError(t, observed.Err)
	require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "put back from copy errored")
	for _, change := range plan.Changes {
		require.NotContains(t, made, change.Address, "what was made is not touched again")
	}
	if testedTool() == terraform {
		require.Equal(t, reconcilers.Create, find(t, plan, "keycloak_role.last").Action)
	}
	w.drive()
	require.Equal(t, manyRoles, strings.Count(w.picture(t), "roles r"))
	require.Contains(t, w.picture(t), "roles last")
	state, err := readState(filepath.Join(w.target.Dir, "terraform.tfstate"))
	require.NoError(t, err)
	require.Equal(t, manyRoles+5, state.managed())
	for address, id := range made {
		require.Equal(t, id, state.ids()[address], address)
	}
	require.NoFileExists(t, filepath.Join(w.target.Dir, "module", "errored.tfstate"))
}

// ends waits until the Terraform of an apply has come to its end by itself.
func (w *world) ends() {
	w.t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Join(w.target.Dir, "module"))
	require.NoError(w.t, err)
	testbed.Eventually(w.t, time.Minute, "Terraform has ended", func() error {
		if pid := terraformRuns(dir); pid != 0 {
			return fmt.Errorf("process %d works there", pid)
		}
		return nil
	})
}

// An apply does not begin on a disk that may be too small for its state.
func noRoom(t *testing.T, b *bed) {
	w, _ := onDisk(t, b)
	_, plan := w.look()
	filler := filepath.Join(w.target.Dir, "filler")
	disk.Fill(t, filler)
	require.NoError(t, os.Truncate(filler, 28<<20))
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
	var wait *reconcilers.WaitError
	require.ErrorAs(t, err, &wait)
	require.Contains(t, wait.For, "room on the disk of "+w.target.Dir)
	require.Equal(t, "no realm", w.picture(t))
	require.NoError(t, os.Remove(filler))
	w.drive()
	require.Equal(t, manyRoles, strings.Count(w.picture(t), "roles r"))
	require.Contains(t, w.picture(t), "roles last")
}
