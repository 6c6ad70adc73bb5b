//go:build soak

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/hub"
)

// TestSoakStrangersRegisterFirstAtASlowHub is TestStrangersRegisterFirst at a hub that goes on for five minutes over each approval,
// suspension and revocation, longer than the agent waits for an answer.
func TestSoakStrangersRegisterFirstAtASlowHub(t *testing.T) {
	newJoining(t, "HUB_CASCADE_DELAY: 5m\n").strangersFirst()
}

// TestSoakAgentsAreKilledWhileSpokesJoinAndLeave is TestAgentsAreKilledWhileSpokesJoinAndLeave at all of the places, once more with the
// other one's agent, and with a realm at the hub that has each spoke as an identity provider: those that left are none.
func TestSoakAgentsAreKilledWhileSpokesJoinAndLeave(t *testing.T) {
	k := newKillings(t, "", withPartners)
	k.goThrough()
	k.joins("deu", "usa")
	k.joins("fra", "fra")
	k.leaves("deu", "usa")
	k.leaves("fra", "fra")
	k.t.Logf("killed %d times in all", k.kills)
}

// TestSoakAgentsAreKilledAtRandomMomentsWhileSpokesJoinAndLeave five times in each scene, after 0.1 to 3 s each: also between a
// change and what is remembered of it. DIVE_SEED repeats a run.
func TestSoakAgentsAreKilledAtRandomMomentsWhileSpokesJoinAndLeave(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv("DIVE_SEED"), 10, 64)
	require.NoError(t, err, "make soak sets DIVE_SEED")
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	k := newKillings(t, "", nil)
	k.disturb = func(h *agenttest.Host) int {
		const times = 5
		for range times {
			h.Launch()
			select {
			case <-time.After(100*time.Millisecond + time.Duration(random.Int64N(int64(2900*time.Millisecond)))):
			case <-h.Ended():
				t.Fatal("the agent ended by itself")
			}
			h.Kill()
		}
		return times
	}
	k.goThrough()
	k.joins("deu", "usa")
	k.joins("fra", "fra")
	k.leaves("deu", "usa")
	k.leaves("fra", "fra")
	k.t.Logf("killed %d times in all", k.kills)
}

const partnersComponent = `    identity:
      kind: Keycloak
      service: keycloak
      module: terraform
      allow: [keycloak_oidc_identity_provider]
      variables:
        realm: hub
        keycloak_admin_password: ${ADMIN_PASSWORD}
        partners: "${{for s in fleet.spokes : s.name => s.values.code}}"
`

const partnersServices = `services:
  postgres:
    image: %s
    environment: {POSTGRES_USER: keycloak, POSTGRES_DB: keycloak, POSTGRES_PASSWORD: "${DB_PASSWORD}"}
    volumes: ["keycloak:/var/lib/postgresql/data"]
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
`

const partnersModule = `terraform {
  required_providers {
    keycloak = {
      source  = "keycloak/keycloak"
      version = "~> 5.6"
    }
  }
}

variable "keycloak_url" { type = string }
variable "keycloak_admin_user" { default = "admin" }
variable "keycloak_admin_password" {
  type      = string
  sensitive = true
}
variable "realm" { type = string }
variable "partners" { type = map(string) }

provider "keycloak" {
  url            = var.keycloak_url
  client_id      = "admin-cli"
  username       = var.keycloak_admin_user
  password       = var.keycloak_admin_password
  client_timeout = 60
}

resource "keycloak_realm" "this" { realm = var.realm }

resource "keycloak_oidc_identity_provider" "partner" {
  for_each = var.partners

  realm             = keycloak_realm.this.id
  alias             = "${each.key}-idp"
  display_name      = each.value
  authorization_url = "https://${each.key}.test/auth"
  token_url         = "https://${each.key}.test/token"
  client_id         = "hub"
  client_secret     = "secret-of-a-test"
}
`

// withPartners gives the hub a realm in which each spoke of the fleet is an identity provider.
func withPartners(k *killings) {
	k.config = "terraform: {cliConfig: " + testbed.ProviderMirror(k.t).ConfigFile + "}"
	k.extend = func(files map[string]string) map[string]string {
		const manifest, stack = "instances/usa/instance.yaml", "instances/usa/compose.yaml"
		files = edited(k.t, files, manifest,
			"  secrets:\n", "  secrets:\n    DB_PASSWORD: {generate: {length: 24}}\n    ADMIN_PASSWORD: {provide: true}\n",
			"      environment:\n", "      environment:\n        DB_PASSWORD: ${DB_PASSWORD}\n        ADMIN_PASSWORD: ${ADMIN_PASSWORD}\n",
			"    federation:\n", partnersComponent+"    federation:\n")
		files = edited(k.t, files, stack,
			"services:\n", fmt.Sprintf(partnersServices, testbed.Image(k.t, testbed.Postgres15), testbed.Image(k.t, testbed.Keycloak)),
			"volumes:\n  data: {}\n", "volumes:\n  data: {}\n  keycloak: {}\n")
		files["instances/usa/terraform/main.tf"] = partnersModule
		return files
	}
	k.secrets = map[string]string{"ADMIN_PASSWORD": hubPassword}
	k.also = func() { require.Equal(k.t, k.approved(), k.providers()) }
}

// approved are the identity providers that there should be: of the spokes that are in.
func (k *killings) approved() (aliases []string) {
	for code, state := range k.records(k.store()) {
		if state == hub.Approved {
			aliases = append(aliases, map[string]string{"DEU": "deu-idp", "FRA": "fra-idp"}[code])
		}
	}
	slices.Sort(aliases)
	return aliases
}

// providers are those of the hub's realm.
func (k *killings) providers() (aliases []string) {
	k.t.Helper()
	realm := &withRealm{small: k.small}
	status, token := realm.signIn(hubPassword)
	require.Equal(k.t, http.StatusOK, status)
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, realm.base()+"/admin/realms/hub/identity-provider/instances", nil)
	require.NoError(k.t, err)
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	require.NoError(k.t, err)
	defer func() { _ = response.Body.Close() }()
	require.Equal(k.t, http.StatusOK, response.StatusCode)
	var found []struct{ Alias string }
	require.NoError(k.t, json.NewDecoder(response.Body).Decode(&found))
	for _, one := range found {
		aliases = append(aliases, one.Alias)
	}
	slices.Sort(aliases)
	return aliases
}
