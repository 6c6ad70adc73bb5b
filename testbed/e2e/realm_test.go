package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

// TestTheWholeLifeOfARealm: merged, planned, applied, edited by hand, corrected; a destruction asked for, held, approved and
// applied; its state lost, and the realm taken over again. Each step is a merge or a hand at the realm, and nothing else.
func TestTheWholeLifeOfARealm(t *testing.T) {
	t.Parallel()
	r := newRealm(t)
	files := r.files("      driftSchedule: \"@every 5s\"\n")
	r.begin(files)
	require.Equal(t, "A realm", r.title())

	// Planned before it is merged, applied after.
	better := gitserver.Files(files)
	better["instances/one.yaml"] = r.manifest(", title: Better", "")
	r.Repo.Commit(t, "better", "A better title", better)
	out, err := r.host.Try("plan", "better")
	require.ErrorContains(t, err, "exit status 2")
	require.Contains(t, out, "keycloak_realm.this")
	require.Contains(t, out, "display_name")
	require.Equal(t, "A realm", r.title())
	r.host.AwaitPhase(2*soon, "one", report.Ready, r.Merge("A better title", map[string]string{"instances/one.yaml": r.manifest(", title: Better", "")}))
	require.Equal(t, "Better", r.title())

	r.corrected()
	r.destroyed()
	r.adopted()
}

// corrected edits the realm by hand: within a turn of the schedule it is as declared, and the status tells what was changed.
func (r *withRealm) corrected() {
	r.admin(http.MethodPut, "", map[string]any{"displayName": "by hand"}, nil)
	testbed.Eventually(r.t, soon, "the title is put back", func() error {
		if title := r.title(); title != "Better" {
			return fmt.Errorf("it is %q", title)
		}
		return nil
	})
	r.host.AwaitPhase(soon, "one", report.Ready, "")
}

// destroyed merges away a role. It goes with the approval of exactly that plan, and not before.
func (r *withRealm) destroyed() {
	t := r.t
	const fewer = ", title: Better, roles: [reader]"
	asked := r.Merge("One role fewer", map[string]string{"instances/one.yaml": r.manifest(fewer, "")})
	status := r.host.AwaitPhase(2*soon, "one", report.Blocked, asked)
	found := regexp.MustCompile(`approve: \{"?identity"?: "?([0-9a-f]{16})"?\}`).FindStringSubmatch(why(status))
	require.NotNil(t, found, why(status))
	require.Contains(t, r.roles(), "writer", "it is held")
	approve := func(digest string) string {
		return r.Merge("Approve "+digest, map[string]string{"instances/one.yaml": r.manifest(fewer, "  approve: {identity: \""+digest+"\"}\n")})
	}
	r.host.AwaitPhase(2*soon, "one", report.Blocked, approve("0123456789abcdef"))
	require.Contains(t, r.roles(), "writer", "another digest is no approval")
	r.host.AwaitPhase(2*soon, "one", report.Ready, approve(found[1]))
	require.NotContains(t, r.roles(), "writer")
	require.Contains(t, r.roles(), "reader")
}

// adopted loses the state with all its copies. The agent does nothing until the line that its message and the command give
// is merged; then the realm is as it was, with the ids that it had.
func (r *withRealm) adopted() {
	t := r.t
	before := r.roles()
	r.host.Stop()
	folder := filepath.Join(r.host.Dir, "state", "instances", "one", "components", "identity")
	require.NoError(t, os.Truncate(filepath.Join(folder, "terraform.tfstate"), 0))
	require.NoError(t, os.RemoveAll(filepath.Join(folder, "copies")))
	require.NoError(t, os.RemoveAll(filepath.Join(folder, "terraform.tfstate.backup")))
	r.host.Start()
	status := r.host.AwaitPhase(2*soon, "one", report.Blocked, "")
	require.Contains(t, why(status), "the Terraform state of this realm is lost: the state file is empty (0 bytes)")
	require.Contains(t, why(status), "dive-agent adopt one")

	out := r.host.Do("adopt", "one")
	require.Contains(t, out, "# identity of one: the state is lost: the state file is empty (0 bytes).\n")
	require.Contains(t, out, "import {\n  to = keycloak_realm.this\n  id = \"life\"\n}\n")
	require.Contains(t, out, "import {\n  to = keycloak_role.each[\"reader\"]\n  id = \"life/"+before["reader"]+"\"\n}\n")
	require.Contains(t, out, "# To have it taken over as it is, merge into instances/one.yaml:\n#   spec: {components: {identity: {adopt: true}}}\n")
	var told struct{ Imports, Creates []any }
	require.NoError(t, json.Unmarshal([]byte(r.host.Do("adopt", "one", "--output", "json")), &told))
	require.Len(t, told.Imports, 5)
	require.Empty(t, told.Creates)
	require.Empty(t, strings.TrimSpace(read(t, filepath.Join(folder, "terraform.tfstate"))), "the command changed nothing")
	require.Equal(t, before, r.roles())

	begun := time.Now()
	merged := r.Merge("Take the realm over", map[string]string{"instances/one.yaml": r.manifest(", title: Better, roles: [reader]", "  components: {identity: {adopt: true}}\n")})
	status = r.host.AwaitPhase(2*soon, "one", report.Ready, merged)
	t.Logf("taken over %.1f s after the merge, the poll included", time.Since(begun).Seconds())
	require.Equal(t, merged, status.Applied)
	require.Equal(t, before, r.roles(), "nothing was made again")
	require.Equal(t, "Better", r.title())
	r.host.Do("plan") // exit code 0: in sync
}
