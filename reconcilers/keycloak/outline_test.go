package keycloak

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

const outlinedHub = `
url: ${url}
module: terraform
backend: {kind: pg, address: "postgres://nowhere.invalid/states", schema: usa, user: terraform, password: "${SECRET}"}
variables:
  instance_code: USA
  instance_name: United States
  keycloak_admin_password: ${SECRET}
  client_secret: ${SECRET}
  test_user_password: ${SECRET}
  app_url: http://localhost:3000
  api_url: http://localhost:4000
  idp_url: http://localhost:8080
  partners: {DEU: {url: "http://deu.example"}, FRA: {url: "http://fra.example"}}
`

func outlineOf(t *testing.T, tool reconcilers.Terraform) (map[string]map[string]string, string) {
	t.Helper()
	target := reconcilers.Target{
		Component: &desired.Component{Name: "identity", Kind: Kind.Name, Spec: decode(t, outlinedHub)}, Dir: t.TempDir(),
		SourceDir: "../../examples/desired/blueprints/hub",
		Scope:     desired.NewScope(map[string]desired.Value{"SECRET": desired.Secret("A-Stand-In-For-Secrets"), "url": desired.String("http://nowhere.invalid")}),
	}
	outline, err := New(reconcilers.Deps{Terraform: tool, OpenTofu: tool}).Outline(t.Context(), target)
	require.NoError(t, err)
	items := map[string]map[string]string{}
	for _, item := range outline.Items {
		require.NotContains(t, items, item.Address)
		require.True(t, item.Lasting)
		for path, value := range item.Attributes {
			require.NotContains(t, value, "A-Stand-In", "%s %s", item.Address, path)
		}
		items[item.Address] = item.Attributes
	}
	return items, outline.Note
}

// What a module would create is known without a server, and most of it without Terraform.
func TestOutlineAsksNoServer(t *testing.T) {
	t.Parallel()
	planned, note := outlineOf(t, reconcilers.Terraform{Path: toolPath(t), CLIConfig: testbed.ProviderMirror(t).ConfigFile})
	require.Equal(t, "by "+title[testedTool()]+", for an empty realm", note)
	require.Equal(t, "deu-idp", planned[`keycloak_oidc_identity_provider.partner["DEU"]`]["alias"])
	require.Equal(t, shownSecret, planned["keycloak_openid_client.broker"]["client_secret"])

	read, note := outlineOf(t, reconcilers.Terraform{Path: filepath.Join(t.TempDir(), "none")})
	require.Contains(t, note, "by the module's text, since "+title[testedTool()]+" cannot plan here: "+testedTool()+" is not on this host")
	require.Equal(t, "deu-idp", read[`keycloak_oidc_identity_provider.partner["DEU"]`]["alias"])
	require.Equal(t, "DIVE V3 United States", read["keycloak_realm.this"]["display_name"])
	unnumbered := map[string]bool{}
	for address, attributes := range read {
		name, cut := strings.CutSuffix(address, "[*]")
		if unnumbered[name] = cut; cut {
			continue
		}
		require.Contains(t, planned, address)
		for path, value := range attributes {
			if there, known := planned[address][path]; known {
				require.Equal(t, there, value, "%s %s", address, path)
			}
		}
	}
	for address := range planned {
		name, _, _ := strings.Cut(address, "[")
		_, listed := read[address]
		require.True(t, listed || unnumbered[name], "%s is missing in %v", address, slices.Sorted(maps.Keys(read)))
	}
}

// A provider that cannot be had is asked for once.
func TestOutlineWithoutAProvider(t *testing.T) {
	t.Parallel()
	real := toolPath(t)
	dir := t.TempDir()
	calls, tool, rc := filepath.Join(dir, "calls"), filepath.Join(dir, "terraform"), filepath.Join(dir, "rc")
	require.NoError(t, os.WriteFile(tool, []byte("#!/bin/sh\necho $1 >>'"+calls+"'\nexec '"+real+"' \"$@\"\n"), 0o755))
	require.NoError(t, os.WriteFile(rc, []byte("disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n    path = \""+dir+"\"\n  }\n}\n"), 0o600))
	wrapped := reconcilers.Terraform{Path: tool, CLIConfig: rc}
	r := New(reconcilers.Deps{Terraform: wrapped, OpenTofu: wrapped})
	target := reconcilers.Target{
		Component: &desired.Component{Name: "identity", Kind: Kind.Name, Spec: decode(t, outlinedHub)}, Dir: t.TempDir(),
		SourceDir: "../../examples/desired/blueprints/hub",
		Scope:     desired.NewScope(map[string]desired.Value{"SECRET": desired.Secret("A-Stand-In-For-Secrets"), "url": desired.String("http://nowhere.invalid")}),
	}
	for range 2 {
		outline, err := r.Outline(t.Context(), target)
		require.NoError(t, err)
		require.Contains(t, outline.Note, title[testedTool()]+" cannot plan here: "+testedTool()+" init of module terraform")
		require.Greater(t, len(outline.Items), 60)
	}
	said, err := os.ReadFile(calls)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(said), "init"))
}
