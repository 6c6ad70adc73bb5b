package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

const administeredBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: small}
spec:
  role: spoke
  values: {project: {required: true}}
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
      variables: {realm: rotated, client_secret: "${CLIENT_SECRET}", keycloak_admin_password: "${ADMIN_PASSWORD}"}
`

const administeredCompose = `services:
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
  user:
    image: %s
    environment: {ADMIN_PASSWORD: "${ADMIN_PASSWORD}"}
    stop_grace_period: 1s
volumes:
  data: {}
`

// TestThePasswordOfKeycloaksAdministratorIsRotated by one order: the server takes the new one, then what uses it follows, then the
// former one is forgotten. An older image of the server is refused before its container is touched.
func TestThePasswordOfKeycloaksAdministratorIsRotated(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	module, err := os.ReadFile("../../reconcilers/keycloak/testdata/realm/main.tf")
	require.NoError(t, err)
	compose := func(keycloak string) string {
		return fmt.Sprintf(administeredCompose, testbed.Image(t, testbed.Postgres15), keycloak, testbed.Image(t, testbed.Redis7))
	}
	image := testbed.Image(t, testbed.Keycloak)
	files := s.files("")
	files["blueprints/small/blueprint.yaml"], files["blueprints/small/compose.yaml"] = administeredBlueprint, compose(image)
	files["blueprints/small/terraform/main.tf"] = string(module)
	h, _ := s.readyWith(files, 5*soon, agenttest.HostOptions{More: "terraform: {cliConfig: " + testbed.ProviderMirror(t).ConfigFile + "}"})
	secret := filepath.Join(h.Dir, "state", "instances", "one", "secrets", ".store", "values", "ADMIN_PASSWORD")
	former := filepath.Join(h.Dir, "state", "instances", "one", "secrets", ".store", "former", "ADMIN_PASSWORD")
	old, err := os.ReadFile(secret)
	require.NoError(t, err)
	before := s.running()
	require.Equal(t, http.StatusOK, s.signIn(string(old)))

	h.Do("secrets", "rotate", "one", "ADMIN_PASSWORD")
	h.Await(5*soon, "one", "is over", func(st *report.Status) bool {
		_, err := os.Stat(former)
		return st.Phase == report.Ready && errors.Is(err, os.ErrNotExist)
	})
	next, err := os.ReadFile(secret)
	require.NoError(t, err)
	require.NotEqual(t, old, next)
	require.Equal(t, http.StatusOK, s.signIn(string(next)))
	require.Equal(t, http.StatusUnauthorized, s.signIn(string(old)))
	after := s.running()
	require.NotEqual(t, before["user"], after["user"], "what uses it follows")
	require.Equal(t, before["postgres"], after["postgres"])
	log := h.Log() + h.Do("events", "one")
	require.NotContains(t, log, string(old))
	require.NotContains(t, log, string(next))
	require.Contains(t, log, "administrator admin")

	older := "dive-testbed/" + s.project + ":25.0.6"
	_, err = s.engine.ImageTag(t.Context(), client.ImageTagOptions{Source: image, Target: older})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := cleanupContext()
		defer cancel()
		_, err := s.engine.ImageRemove(ctx, older, client.ImageRemoveOptions{})
		require.NoError(t, err)
	})
	bad := s.Merge("Name an older Keycloak", map[string]string{"blueprints/small/compose.yaml": compose(older)})
	status := h.AwaitPhase(2*soon, "one", report.Blocked, bad)
	require.Contains(t, why(status), "Keycloak 26.4.7 has migrated its database, on which 25.0.6 does not run")
	require.Equal(t, after, s.running())
}

// signIn signs in to the live server as its administrator.
func (s *small) signIn(password string) int {
	s.t.Helper()
	list, err := s.engine.ContainerList(s.t.Context(), client.ContainerListOptions{Filters: testbed.OfProject(s.project).Add("label", "com.docker.compose.service=keycloak")})
	require.NoError(s.t, err)
	require.Len(s.t, list.Items, 1)
	base := ""
	for _, network := range list.Items[0].NetworkSettings.Networks {
		base = "http://" + network.IPAddress.String() + ":8080"
	}
	form := url.Values{"client_id": {"admin-cli"}, "grant_type": {"password"}, "username": {"admin"}, "password": {password}}
	resp, err := http.PostForm(base+"/realms/master/protocol/openid-connect/token", form)
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, resp.Body.Close()) }()
	return resp.StatusCode
}
