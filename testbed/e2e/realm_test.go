package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/gitserver"
)

const realmBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: realm}
spec:
  role: spoke
  values:
    project: {required: true}
    realm: life
    title: A realm
    roles: [reader, writer]
  secrets:
    DB_PASSWORD: {generate: {length: 24}}
    ADMIN_PASSWORD: {generate: {length: 24}}
    CLIENT_SECRET: {generate: {length: 32}}
  components:
    stack:
      kind: ComposeStack
      project: ${project}
      environment: {DB_PASSWORD: "${DB_PASSWORD}", ADMIN_PASSWORD: "${ADMIN_PASSWORD}"}
    identity:
      kind: Keycloak
      service: keycloak
      module: terraform
      driftSchedule: "@every 5s"
      outputs: [realm]
      variables:
        realm: ${realm}
        title: ${title}
        roles: ${roles}
        client_secret: ${CLIENT_SECRET}
        keycloak_admin_password: ${ADMIN_PASSWORD}
`

const realmCompose = `services:
  postgres:
    image: %s
    environment: {POSTGRES_USER: keycloak, POSTGRES_DB: keycloak, POSTGRES_PASSWORD: "${DB_PASSWORD}"}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -h, localhost, -U, keycloak], interval: 1s, timeout: 5s, retries: 60}
  keycloak:
    image: %s
    command: start --optimized --http-enabled=true --hostname-strict=false
    environment:
      KC_BOOTSTRAP_ADMIN_USERNAME: admin
      KC_BOOTSTRAP_ADMIN_PASSWORD: ${ADMIN_PASSWORD}
      KC_DB_URL: jdbc:postgresql://postgres:5432/keycloak
      KC_DB_USERNAME: keycloak
      KC_DB_PASSWORD: ${DB_PASSWORD}
    depends_on: {postgres: {condition: service_healthy}}
volumes:
  data: {}
`

// withRealm is an instance of a Keycloak server with a realm.
type withRealm struct {
	*small
	host *agenttest.Host
}

// manifest is the instance's; values are "key: value, ...", more are lines of its spec.
func (r *withRealm) manifest(values, more string) string {
	return fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: one}\nspec:\n  blueprint: realm\n  host: host-01\n  values: {project: %s%s}\n%s", r.project, values, more)
}

func (r *withRealm) files() map[string]string {
	module, err := os.ReadFile("../../reconcilers/keycloak/testdata/realm/main.tf")
	require.NoError(r.t, err)
	return map[string]string{
		"fleet.yaml":                         "apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec: {}\n",
		"hosts/host-01.yaml":                 "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: host-01}\nspec: {}\n",
		"blueprints/realm/blueprint.yaml":    realmBlueprint,
		"blueprints/realm/compose.yaml":      fmt.Sprintf(realmCompose, testbed.Image(r.t, testbed.Postgres15), testbed.Image(r.t, testbed.Keycloak)),
		"blueprints/realm/terraform/main.tf": string(module),
		"instances/one.yaml":                 r.manifest("", ""),
	}
}

// admin asks the live realm as an administrator does by hand.
func (r *withRealm) admin(method, path string, body, into any) {
	r.t.Helper()
	list, err := r.engine.ContainerList(r.t.Context(), client.ContainerListOptions{Filters: testbed.OfProject(r.project).Add("label", "com.docker.compose.service=keycloak")})
	require.NoError(r.t, err)
	require.Len(r.t, list.Items, 1)
	base := ""
	for _, network := range list.Items[0].NetworkSettings.Networks {
		base = "http://" + network.IPAddress.String() + ":8080"
	}
	password, err := os.ReadFile(filepath.Join(r.host.Dir, "state", "instances", "one", "secrets", ".store", "values", "ADMIN_PASSWORD"))
	require.NoError(r.t, err)
	var token struct {
		Access string `json:"access_token"`
	}
	form := url.Values{"client_id": {"admin-cli"}, "grant_type": {"password"}, "username": {"admin"}, "password": {string(password)}}
	resp, err := http.PostForm(base+"/realms/master/protocol/openid-connect/token", form)
	require.NoError(r.t, err)
	defer func() { _ = resp.Body.Close() }()
	require.NoError(r.t, json.NewDecoder(resp.Body).Decode(&token))
	sent, err := json.Marshal(body)
	require.NoError(r.t, err)
	req, err := http.NewRequestWithContext(r.t.Context(), method, base+"/admin/realms/life"+path, bytes.NewReader(sent))
	require.NoError(r.t, err)
	req.Header.Set("Authorization", "Bearer "+token.Access)
	req.Header.Set("Content-Type", "application/json")
	got, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	defer func() { _ = got.Body.Close() }()
	answer, err := io.ReadAll(got.Body)
	require.NoError(r.t, err)
	require.Less(r.t, got.StatusCode, 300, "%s", answer)
	if into != nil {
		require.NoError(r.t, json.Unmarshal(answer, into))
	}
}

func (r *withRealm) title() string {
	var realm struct{ DisplayName string }
	r.admin(http.MethodGet, "", nil, &realm)
	return realm.DisplayName
}

// roles are the ids of the realm's roles by name.
func (r *withRealm) roles() map[string]string {
	var list []struct{ Name, ID string }
	r.admin(http.MethodGet, "/roles", nil, &list)
	all := map[string]string{}
	for _, role := range list {
		all[role.Name] = role.ID
	}
	return all
}

// TestTheWholeLifeOfARealm: merged, planned, applied, edited by hand, corrected; a destruction asked for, held, approved and
// applied; its state lost, and the realm taken over again. Each step is a merge or a hand at the realm, and nothing else.
func TestTheWholeLifeOfARealm(t *testing.T) {
	t.Parallel()
	r := &withRealm{small: newSmall(t)}
	mirror := testbed.ProviderMirror(t)
	commit := r.Merge("Begin", r.files())
	r.host = agenttest.NewHost(t, r.Fleet, agenttest.HostOptions{More: "terraform: {cliConfig: " + mirror.ConfigFile + "}"})
	r.host.Start()
	r.host.AwaitPhase(4*time.Minute, "one", report.Ready, commit)
	require.Equal(t, "A realm", r.title())

	// Planned before it is merged, applied after.
	better := gitserver.Files(r.files())
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
