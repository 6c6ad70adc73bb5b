package keycloak

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

const accountComponent = `      module: realm
      adminPassword: "${ADMIN_PASSWORD}"
      serviceAccount:
        secret: "${ADMIN_PASSWORD}"
        removeBootstrapAdmin: true
      variables: {realm: a, client_secret: b}
      outputs: [realm]
`

func TestServiceAccountIsChecked(t *testing.T) {
	load := func(change, into string, module map[string]string) error {
		require.Contains(t, accountComponent, change)
		return loadFleet(t, strings.Replace(accountComponent, change, into, 1), module)
	}
	require.NoError(t, load("realm: a", "realm: a", nil))
	for name, c := range map[string]struct{ change, into, want string }{
		"no secret":            {"secret: \"${ADMIN_PASSWORD}\"", "clientId: agent", `secret`},
		"a client of its own":  {"secret: \"${", "clientId: admin-cli\n        secret: \"${", `blueprint.yaml:15:19: clientId "admin-cli" is one of Keycloak's own clients`},
		"a realm's client":     {"secret: \"${", "clientId: deu-realm\n        secret: \"${", `clientId "deu-realm" is one of Keycloak's own clients`},
		"no name":              {"secret: \"${", "clientId: a b\n        secret: \"${", `clientId "a b": letters, digits`},
		"password beside it":   {"client_secret: b}", "client_secret: b, keycloak_admin_password: c}", `blueprint.yaml:17:72: variable keycloak_admin_password: with a serviceAccount the module does not sign in as an administrator`},
		"client beside it":     {"client_secret: b}", "client_secret: b, keycloak_client_id: c}", `variable keycloak_client_id is set by the serviceAccount`},
		"password without one": {"      serviceAccount:\n        secret: \"${ADMIN_PASSWORD}\"\n        removeBootstrapAdmin: true\n", "", `blueprint.yaml:13:22: adminPassword belongs to a serviceAccount`},
	} {
		t.Run(name, func(t *testing.T) { require.ErrorContains(t, load(c.change, c.into, nil), c.want) })
	}
	old := map[string]string{"main.tf": "terraform {\n  required_providers {\n    keycloak = {\n      source = \"keycloak/keycloak\"\n    }\n  }\n}\nvariable \"realm\" {}\nvariable \"client_secret\" {}\nvariable \"keycloak_admin_password\" {}\noutput \"realm\" { value = var.realm }\n"}
	err := load("realm: a", "realm: a", old)
	require.ErrorContains(t, err, `module realm has no variable "keycloak_client_secret", by which its provider would sign in as the serviceAccount`)
	require.ErrorContains(t, err, `variable "keycloak_admin_password" of module realm has no default`)
}

func TestTheSecretsOfAnAccountAreSetByTheComponent(t *testing.T) {
	spec := decode(t, "url: http://a\nmodule: realm\nadminPassword: ${ADMIN_PASSWORD}\nserviceAccount: {secret: \"${AGENT_SECRET}\"}\n")
	require.Equal(t, []string{"ADMIN_PASSWORD", "AGENT_SECRET"}, spec.Sets(nil))
	require.Equal(t, "dive-agent", spec.ServiceAccount.ClientID)
	scope := desired.NewScope(map[string]desired.Value{"ADMIN_PASSWORD": desired.Secret("second"), "AGENT_SECRET": desired.Secret("new")}).WithFormer(map[string][]desired.Value{
		"ADMIN_PASSWORD": {desired.Secret("first")}, "AGENT_SECRET": {desired.Secret("newer"), desired.Secret("old")},
	})
	in := &inputs{variables: map[string]any{}, admin: adminOf(spec, nil, scope)}
	require.NoError(t, in.takeAccount(spec, scope))
	require.Equal(t, admin{user: "admin", password: "second", former: []string{"first"}}, in.admin)
	require.Equal(t, account{"dive-agent", "new", []string{"newer", "old"}}, in.account)
	require.Equal(t, map[string]any{clientVariable: "dive-agent", clientSecretVariable: "new"}, in.variables)

	empty := &inputs{variables: map[string]any{}}
	require.ErrorContains(t, empty.takeAccount(spec, desired.NewScope(map[string]desired.Value{"ADMIN_PASSWORD": desired.Secret("x"), "AGENT_SECRET": desired.Secret("")})), "the secret of serviceAccount dive-agent is empty")
	unknown := &inputs{variables: map[string]any{}}
	require.NoError(t, unknown.takeAccount(spec, desired.NewScope(map[string]desired.Value{"ADMIN_PASSWORD": desired.UnknownSecret(), "AGENT_SECRET": desired.UnknownSecret()})))
	require.Equal(t, []string{"AGENT_SECRET", "ADMIN_PASSWORD"}, unknown.unknown)
	require.Empty(t, unknown.account)
}
