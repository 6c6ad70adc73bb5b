package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/agent"
	"dive-agent/reconcilers"
)

// A forge's CI has no host, no engine and perhaps no Terraform.
func TestPlanOffline(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	base, head := "../../examples/desired", t.TempDir()
	require.NoError(t, os.CopyFS(head, os.DirFS(base)))
	deu := filepath.Join(head, "instances/deu.yaml")
	manifest, err := os.ReadFile(deu)
	require.NoError(t, err)

	code, out, _ := do(t, "plan", "--offline", head, "--base", base)
	require.Equal(t, exitDone, code)
	require.Equal(t, "Nothing changes: 4 instances, the same as in the base.\n", out)

	require.NoError(t, os.WriteFile(deu, []byte(strings.Replace(string(manifest), "Germany", "Deutschland", 1)), 0o600))
	code, out, _ = do(t, "plan", "--offline", head, "--base", base)
	require.Equal(t, exitPending, code)
	require.Contains(t, out, "deu on deu-01: against the base")
	require.Contains(t, out, "        display_name: DIVE V3 Germany -> DIVE V3 Deutschland\n")
	require.Contains(t, out, "(by the module's text, since Terraform cannot plan here")
	require.NotContains(t, out, "fra")

	code, out, _ = do(t, "plan", "--offline", head, "--instance", "deu", "-o", "markdown")
	require.Equal(t, exitPending, code)
	require.Contains(t, out, "<details><summary><b>identity</b>: ")
	require.Contains(t, out, "`keycloak_oidc_identity_provider.hub[0]`")
	require.NotContains(t, out, "Stand-In")

	require.NoError(t, os.WriteFile(deu, append(manifest, "  oops: 1\n"...), 0o600))
	code, _, said := do(t, "plan", "--offline", head)
	require.Equal(t, exitData, code)
	require.Contains(t, said, "instances/deu.yaml:")

	code, _, said = do(t, "plan", "--base", base)
	require.Equal(t, exitUsage, code)
	require.Contains(t, said, "--base goes with --offline")
}

// What the hosts allow a module is said by hand, as for validate; the base may have it too.
func TestPlanOfflineAllowsWhatTheHostsDo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	base, head := example(t), example(t)
	const module = "resource \"terraform_data\" \"x\" {\n  provisioner \"local-exec\" {}\n}\n"
	for dir, text := range map[string]string{base: module, head: module + "resource \"terraform_data\" \"y\" {}\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "blueprints/hub/terraform/more.tf"), []byte(text), 0o600))
	}
	code, _, said := do(t, "plan", "--offline", head)
	require.Equal(t, exitData, code)
	require.Contains(t, said, `blueprints/hub/terraform/more.tf:2:3: terraform_data.x has a provisioner "local-exec"`)
	code, out, said := do(t, "plan", "--offline", head, "--base", base, "--allow", "provisioners")
	require.Equal(t, exitPending, code, said)
	require.Contains(t, out, "terraform_data.y")
	require.NotContains(t, out, "terraform_data.x")
	code, _, said = do(t, "plan", "--offline", head, "--allow", "provisioners", "--allow", "everything")
	require.Equal(t, exitUsage, code)
	require.Contains(t, said, `"everything" is none of provisioners`)
	code, _, said = do(t, "plan", "--allow", "provisioners")
	require.Equal(t, exitUsage, code)
	require.Contains(t, said, "--allow goes with --offline")
}

// Whichever tool a manifest names is run with the configuration that the environment names.
func TestPlanOfflineHandsOnTheToolsConfiguration(t *testing.T) {
	bin, fleet := t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin+":/bin:/usr/bin")
	t.Setenv("TF_CLI_CONFIG_FILE", filepath.Join(bin, "mirror.rc"))
	told := filepath.Join(bin, "told")
	for _, name := range []string{"terraform", "tofu"} {
		script := "#!/bin/sh\necho \"" + name + " $TF_CLI_CONFIG_FILE\" >>'" + told + "'\nexit 1\n"
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte(script), 0o700))
	}
	require.NoError(t, os.CopyFS(fleet, os.DirFS("../../examples/desired")))
	blueprint := filepath.Join(fleet, "blueprints/spoke/blueprint.yaml")
	manifest, err := os.ReadFile(blueprint)
	require.NoError(t, err)
	for tool, program := range map[string]string{"terraform": "terraform", "opentofu": "tofu"} {
		require.NoError(t, os.WriteFile(blueprint, []byte(strings.Replace(string(manifest), "kind: Keycloak\n", "kind: Keycloak\n      tool: "+tool+"\n", 1)), 0o600))
		require.NoError(t, os.WriteFile(told, nil, 0o600))
		code, _, said := do(t, "plan", "--offline", fleet, "--instance", "deu")
		require.Equal(t, exitPending, code, said)
		runs, err := os.ReadFile(told)
		require.NoError(t, err)
		require.NotEmpty(t, runs, tool)
		for _, line := range strings.Split(strings.TrimSpace(string(runs)), "\n") {
			require.Equal(t, program+" "+filepath.Join(bin, "mirror.rc"), line)
		}
	}
}

// What a node would change is shown beside what it waits for of another instance.
func TestAPlanShowsWhatIsAwaitedOfAnotherInstance(t *testing.T) {
	const waits = "waits for instances.usa.identity.realm_url: usa has not published it yet"
	previews := []agent.Preview{{Instance: "deu", Host: "deu-01", Nodes: []agent.PreviewNode{{
		ID: "identity", Component: "identity", Waits: waits,
		Changes: []agent.PreviewChange{{Change: reconcilers.Change{Action: reconcilers.Update, Address: "keycloak_realm.this", Reason: "hub (known after apply)"}}},
	}}}}
	require.Contains(t, planText(previews, ""), "\n    ! "+waits+"\n")
	require.Contains(t, planMarkdown(previews, ""), "\n> **`identity` waits for instances.usa.identity.realm\\_url: usa has not published it yet.**\n")
}
