package registration_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers/registration"
	"dive-agent/testbed/pki"
)

// load reads a fleet of one instance with one component.
func load(t *testing.T, hub, component string) (*desired.Fleet, error) {
	t.Helper()
	ca, err := pki.New("hub")
	require.NoError(t, err)
	indent := func(text string, by int) string {
		return strings.ReplaceAll(strings.Trim(text, "\n"), "\n", "\n"+strings.Repeat(" ", by))
	}
	files := fstest.MapFS{
		"ca.pem":            {Data: ca.PEM()},
		"fleet.yaml":        {Data: []byte("apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec:\n  hub: " + hub + "\n")},
		"hosts/deu-01.yaml": {Data: []byte("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: deu-01}\nspec: {}\n")},
		"instances/deu.yaml": {Data: []byte(`apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: deu}
spec:
  role: hub
  host: deu-01
  values: {code: DEU, country: Germany}
  secrets:
    FEDERATION_ADMIN_KEY: {generate: {length: 32}}
  components:
    registration:
      ` + indent(component, 6) + "\n")},
		"hosts/fra-01.yaml": {Data: []byte("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: fra-01}\nspec: {}\n")},
		"instances/fra.yaml": {Data: []byte(`apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: fra}
spec:
  role: spoke
  host: fra-01
  values: {code: FRA, country: France}
  components:
    registration:
      ` + indent(spokeManifest+"publish: [spoke_id]\n", 6) + "\n")},
	}
	return desired.LoadFS(files, desired.Options{Kinds: []desired.Kind{registration.SpokeKind, registration.ApprovalsKind}})
}

const hubInFleet = "{instance: deu, url: \"https://hub.test:4000\", caFile: ca.pem}"

func TestManifestsThatAreRefused(t *testing.T) {
	for name, test := range map[string]struct{ hub, component, problem string }{
		"unknown scope":      {hubInFleet, strings.Replace(spokeManifest, "policy:org", "policy:all", 1), `"policy:all" is no scope; one of policy:base, policy:org, policy:tenant`},
		"no scopes":          {hubInFleet, strings.Replace(spokeManifest, `["policy:base", "policy:org"]`, "[]", 1), "name at least one scope"},
		"unknown trust":      {hubInFleet, strings.Replace(spokeManifest, "partner", "friend", 1), `"friend" is no trust level`},
		"unknown level":      {hubInFleet, strings.Replace(spokeManifest, "filtered", "none", 1), `"none" is no data isolation level`},
		"unknown class":      {hubInFleet, strings.Replace(spokeManifest, "SECRET", "COSMIC", 1), `"COSMIC" is no classification`},
		"no URL":             {hubInFleet, strings.Replace(spokeManifest, "https://127.0.0.1:1", "keycloak", 1), `"keycloak" is no URL`},
		"missing URL":        {hubInFleet, strings.Replace(spokeManifest, "  api: https://${lower(code)}.test:4000\n", "", 1), "api"},
		"code of four":       {hubInFleet, spokeManifest + "code: DEUX\n", `code "DEUX" must have 3 characters`},
		"name of two":        {hubInFleet, spokeManifest + "name: DE\n", "3 to 100 characters"},
		"no address":         {hubInFleet, strings.Replace(spokeManifest, "ops@", "ops.", 1), "is no mail address"},
		"polls too often":    {hubInFleet, strings.Replace(spokeManifest, "200ms", "1ms", 1), "too often"},
		"plain HTTP":         {strings.Replace(hubInFleet, "https", "http", 1), spokeManifest, "must begin with https://"},
		"plain HTTP here":    {hubInFleet, spokeManifest + "hub: {url: \"http://hub.test\"}\n", "must begin with https://"},
		"admin key in plain": {hubInFleet, strings.Replace(approvalsManifest, "${FEDERATION_ADMIN_KEY}", "open-sesame", 1), "must come from a secret"},
		"unknown policy":     {hubInFleet, approvalsManifest + "unknownSpokes: delete\n", "delete"},
		"service is nowhere": {hubInFleet, approvalsManifest + "service: backend\n", "backend"},
		"two authorities":    {hubInFleet, spokeManifest + "hub: {ca: a, caFile: b}\n", "either ca or caFile"},
		"another's output": {
			hubInFleet, spokeManifest + "publicKey: key ${instances.fra.registration.spoke_id}\n",
			"instances/deu.yaml:24:24: ${instances.fra.registration.spoke_id} is known to the agent of this instance's host alone, and the hub's agent has to compare this field",
		},
		"a secret":            {hubInFleet, spokeManifest + "description: ${FEDERATION_ADMIN_KEY}\n", "${FEDERATION_ADMIN_KEY} is known to the agent of this instance's host alone"},
		"another's scope":     {hubInFleet, strings.Replace(spokeManifest, `"policy:org"`, `"${instances.fra.registration.spoke_id}"`, 1), "write the text itself, or take it from values"},
		"OPAL in the clear":   {hubInFleet, approvalsManifest + opalIn("http://opal.test:7002", "${FEDERATION_ADMIN_KEY}", "24h"), "must begin with https://, or lead to this host"},
		"OPAL by password":    {hubInFleet, approvalsManifest + opalIn("http://localhost:7002", "open-sesame", "24h"), "masterToken must come from a secret"},
		"OPAL for a moment":   {hubInFleet, approvalsManifest + opalIn("http://localhost:7002", "${FEDERATION_ADMIN_KEY}", "2s"), "lifetime 2s is too short; at least 10s"},
		"OPAL without a key":  {hubInFleet, approvalsManifest + "opal: {url: \"\", masterToken: \"${FEDERATION_ADMIN_KEY}\"}\n", "publicKey"},
		"unknown field in it": {hubInFleet, spokeManifest + "keycloakAdminPassword: x\n", "keycloakAdminPassword"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.hub, test.component)
			var problems desired.Problems
			require.ErrorAs(t, err, &problems)
			require.ErrorContains(t, err, test.problem)
			require.NotZero(t, problems[0].Position.Line, "%v", problems)
		})
	}
}

func opalIn(url, master, lifetime string) string {
	return "opal: {url: \"" + url + "\", masterToken: \"" + master + "\", publicKey: key, lifetime: " + lifetime + "}\n"
}

func TestManifestsThatAreGood(t *testing.T) {
	for name, component := range map[string]string{"spoke": spokeManifest, "approvals": approvalsManifest, "with OPAL": approvalsManifest + opalIn("http://[::1]:7002", "${FEDERATION_ADMIN_KEY}", "24h")} {
		t.Run(name, func(t *testing.T) {
			fleet, err := load(t, hubInFleet, component)
			require.NoError(t, err)
			require.Len(t, fleet.Instances["deu"].Graph.Nodes, 1)
		})
	}
}
