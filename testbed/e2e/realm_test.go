package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
	require.ErrorContains(t, err, "exit status 2", out)
	require.Contains(t, out, "keycloak_realm.this")
	require.Contains(t, out, "display_name")
	require.Equal(t, "A realm", r.title())
	r.host.AwaitPhase(2*soon, "one", report.Ready, r.Merge("A better title", map[string]string{"instances/one.yaml": r.manifest(", title: Better", "")}))
	require.Equal(t, "Better", r.title())

	r.corrected()
	r.reported()
	r.destroyed()
	r.adopted()
}

// byHand gives the realm another title, as an administrator does who knows nothing of the fleet repository.
func (r *withRealm) byHand() (at time.Time) {
	r.t.Helper()
	r.admin(http.MethodPut, "", map[string]any{"displayName": "by hand"}, nil)
	return time.Now()
}

// identity is what a status says of the realm.
func identity(t *testing.T, status *report.Status) report.Component {
	t.Helper()
	i := slices.IndexFunc(status.Components, func(c report.Component) bool { return c.Name == "identity" })
	require.GreaterOrEqual(t, i, 0)
	return status.Components[i]
}

var driftedTitle = regexp.MustCompile(`keycloak_realm\.this was changed outside of Terraform \(display_name\), first seen (\S+ \S+) UTC(.*)`)

// told waits until the status says what was changed, with the rest of the words, and gives since when.
func (r *withRealm) told(what string, rest *regexp.Regexp) (since time.Time, status *report.Status) {
	r.t.Helper()
	status = r.host.Await(2*soon, "one", what, func(st *report.Status) bool {
		for _, note := range identity(r.t, st).Notes {
			if found := driftedTitle.FindStringSubmatch(note); found != nil && rest.MatchString(found[2]) {
				var err error
				since, err = time.ParseInLocation("2006-01-02 15:04", found[1], time.UTC)
				require.NoError(r.t, err)
				return st.Phase == report.Ready
			}
		}
		return false
	})
	return since, status
}

// lookedAgain waits until the realm is compared once more and the instance is Ready.
func (r *withRealm) lookedAgain() {
	r.t.Helper()
	before, err := r.host.Status("one")
	require.NoError(r.t, err)
	looked := identity(r.t, before).Values["driftChecked"]
	require.NotEmpty(r.t, looked)
	r.host.Await(2*soon, "one", "looked again", func(st *report.Status) bool {
		return st.Phase == report.Ready && identity(r.t, st).Values["driftChecked"] != looked
	})
}

var putBack = regexp.MustCompile(`^; as the module says again since \S+ \S+ UTC$`)

// corrected edits the realm by hand: within a turn of the schedule it is as declared, and the status tells what was changed.
func (r *withRealm) corrected() {
	t := r.t
	r.lookedAgain() // after the last apply: until then all that is changed is taken for something that did not come about
	edited := r.byHand()
	testbed.Eventually(t, soon, "the title is put back", func() error {
		if title := r.title(); title != "Better" {
			return fmt.Errorf("it is %q", title)
		}
		return nil
	})
	took := time.Since(edited)
	t.Logf("put back after %.1f s, with a look every 5 s", took.Seconds())
	require.Less(t, took, stretched(t, 15*time.Second))
	since, _ := r.told("tells what was put back", putBack)
	require.WithinDuration(t, edited, since, time.Minute+took, "it tells minutes")
	require.Regexp(t, driftedTitle, r.host.Do("status", "one"))
}

// reported is corrected for a realm in which changes are only to be told, however often it is looked at.
func (r *withRealm) reported() {
	t := r.t
	manifest := func(drift string) map[string]string {
		return map[string]string{"instances/one.yaml": r.manifest(", title: Better", "  components: {identity: {drift: "+drift+"}}\n")}
	}
	r.host.AwaitPhase(2*soon, "one", report.Ready, r.Merge("Only tell", manifest("report")))
	edited := r.byHand()
	since, status := r.told("tells what was changed", regexp.MustCompile(`^; left as it is \(drift: report\)$`))
	require.WithinDuration(t, edited, since, time.Minute+time.Since(edited))
	require.Contains(t, identity(t, status).Summary, "1 changed outside")
	for range 2 {
		r.lookedAgain()
		require.Equal(t, "by hand", r.title())
	}
	r.Merge("Correct it", manifest("correct"))
	again, _ := r.told("tells that it was put back", putBack)
	require.Equal(t, since, again, "since it was first seen")
	require.Equal(t, "Better", r.title())
}

// destroyed merges away a role. It goes with the approval of exactly that plan, and not before.
func (r *withRealm) destroyed() {
	t := r.t
	const (
		fewer  = ", title: Better, roles: [reader]"
		seldom = "  components: {identity: {driftSchedule: \"@every 1h\"}}\n" // a plan that waits is kept for as long
	)
	asked := r.Merge("One role fewer", map[string]string{"instances/one.yaml": r.manifest(fewer, seldom)})
	status := r.host.AwaitPhase(2*soon, "one", report.Blocked, asked)
	asks := func(status *report.Status) (digest string) {
		t.Helper()
		found := regexp.MustCompile(`approve: \{"?identity"?: "?([0-9a-f]{16})"?\}`).FindStringSubmatch(why(status))
		require.NotNil(t, found, why(status))
		return found[1]
	}
	first := asks(status)
	require.Contains(t, r.roles(), "writer", "it is held")
	approve := func(digest string) string {
		return r.Merge("Approve "+digest, map[string]string{"instances/one.yaml": r.manifest(fewer, seldom+"  approve: {identity: \""+digest+"\"}\n")})
	}
	r.host.AwaitPhase(2*soon, "one", report.Blocked, approve("0123456789abcdef"))
	_, err := r.host.Try("sync", "one", "--wait")
	require.Error(t, err, "it waits still")
	require.Contains(t, r.roles(), "writer", "another digest is no approval")

	// What somebody changes between plan and approval makes it another plan.
	r.byHand()
	approved := approve(first)
	next := asks(r.host.Await(2*soon, "one", "asks for another plan", func(st *report.Status) bool {
		return st.Phase == report.Blocked && st.Attempted == approved && asks(st) != first
	}))
	require.Contains(t, r.roles(), "writer", "the plan that was approved is none any more")
	require.Equal(t, "by hand", r.title())
	r.host.AwaitPhase(2*soon, "one", report.Ready, approve(next))
	require.Equal(t, "Better", r.title())
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
