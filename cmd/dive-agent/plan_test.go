package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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
