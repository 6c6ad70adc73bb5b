package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

// The files of the fleet that tests edit.
const (
	realmFile      = "blueprints/realm/blueprint.yaml"
	realmStackFile = "blueprints/realm/compose.yaml"
)

const realmBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: realm}
spec:
  role: spoke
  values:
    project: {required: true}
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
      outputs: [realm]
      variables:
        realm: life
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

// withRealm is an instance of a Keycloak server with a realm named life.
type withRealm struct {
	*small
	host *agenttest.Host
}

func newRealm(t *testing.T) *withRealm { return &withRealm{small: newSmall(t)} }

// manifest is the instance's; values are "key: value, ...", more are lines of its spec.
func (r *withRealm) manifest(values, more string) string {
	return fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: one}\nspec:\n  blueprint: realm\n  host: host-01\n  values: {project: %s%s}\n%s", r.project, values, more)
}

// files are the whole fleet; identity are more lines of the realm's component.
func (r *withRealm) files(identity string) map[string]string {
	return map[string]string{
		"fleet.yaml":                         "apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec: {}\n",
		"hosts/host-01.yaml":                 "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: host-01}\nspec: {}\n",
		realmFile:                            realmBlueprint + identity,
		realmStackFile:                       fmt.Sprintf(realmCompose, testbed.Image(r.t, testbed.Postgres15), testbed.Image(r.t, testbed.Keycloak)),
		"blueprints/realm/terraform/main.tf": read(r.t, "../../reconcilers/keycloak/testdata/realm/main.tf"),
		"instances/one.yaml":                 r.manifest("", ""),
	}
}

// begin merges the fleet and starts a host; the realm is there after.
func (r *withRealm) begin(files map[string]string) {
	r.t.Helper()
	r.host, _ = r.readyWith(files, 5*soon, agenttest.HostOptions{More: "terraform: {cliConfig: " + testbed.ProviderMirror(r.t).ConfigFile + "}"})
}

// base is the live server's URL.
func (r *withRealm) base() string {
	r.t.Helper()
	server, runs := r.containers()["keycloak"]
	require.True(r.t, runs, "no container runs keycloak")
	return "http://" + testbed.Address(server) + ":8080"
}

// signIn signs in to the live server as its administrator.
func (r *withRealm) signIn(password string) (status int, token string) {
	r.t.Helper()
	form := url.Values{"client_id": {"admin-cli"}, "grant_type": {"password"}, "username": {"admin"}, "password": {password}}
	resp, err := http.PostForm(r.base()+"/realms/master/protocol/openid-connect/token", form)
	require.NoError(r.t, err)
	defer func() { require.NoError(r.t, resp.Body.Close()) }()
	var answer struct {
		Access string `json:"access_token"`
	}
	require.NoError(r.t, json.NewDecoder(resp.Body).Decode(&answer))
	return resp.StatusCode, answer.Access
}

// admin asks the live realm as an administrator does by hand.
func (r *withRealm) admin(method, path string, body, into any) {
	r.t.Helper()
	status, token := r.signIn(secretOf(r.t, r.host, "ADMIN_PASSWORD"))
	require.Equal(r.t, http.StatusOK, status)
	sent, err := json.Marshal(body)
	require.NoError(r.t, err)
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.base()+"/admin/realms/life"+path, bytes.NewReader(sent))
	require.NoError(r.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
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
