package keycloak

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

const blueprintHead = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: spoke}
spec:
  role: spoke
  secrets:
    ADMIN_PASSWORD: {generate: {length: 24}}
  components:
    identity:
      kind: Keycloak
      url: https://keycloak.example
`

func loadFleet(t *testing.T, component string) error {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"fleet.yaml":                      "apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec: {}\n",
		"hosts/deu-01.yaml":               "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: deu-01}\nspec: {}\n",
		"instances/deu.yaml":              "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: deu}\nspec: {blueprint: spoke, host: deu-01}\n",
		"blueprints/spoke/blueprint.yaml": blueprintHead + component,
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	require.NoError(t, os.CopyFS(filepath.Join(dir, "blueprints/spoke/realm"), os.DirFS("testdata/realm")))
	_, err := desired.Load(dir, desired.Options{Kinds: []desired.Kind{Kind}})
	return err
}

func TestSpecIsCheckedAgainstItsModule(t *testing.T) {
	good := `      module: realm
      variables: {realm: a, client_secret: b, keycloak_admin_password: "${ADMIN_PASSWORD}"}
      outputs: [realm]
`
	require.NoError(t, loadFleet(t, good))
	for name, c := range map[string]struct{ change, into, want string }{
		"unknown variable":   {"realm: a", "realm: a, relam: c", `blueprint.yaml:13:36: module realm has no variable "relam"`},
		"missing variable":   {", client_secret: b", "", `variable "client_secret" of module realm has no default and is not given`},
		"unknown output":     {"[realm]", "[issuer]", `module realm has no output "issuer" (has: client_secret, realm, title)`},
		"no such module":     {"module: realm", "module: nowhere", `module "nowhere"`},
		"outside":            {"module: realm", "module: ../other", `module "../other" leaves the repository's folder`},
		"bad drift schedule": {"outputs:", "driftSchedule: often\n      outputs:", `driftSchedule "often"`},
		"unknown tool":       {"outputs:", "tool: pulumi\n      outputs:", `blueprint.yaml:14:13: tool "pulumi": terraform and opentofu are possible`},
		"bad tool version":   {"outputs:", "toolVersion: newest\n      outputs:", `toolVersion "newest": not a list of comparisons`},
		"bad parallelism":    {"outputs:", "parallelism: 0\n      outputs:", `parallelism must be between 1 and 256`},
	} {
		t.Run(name, func(t *testing.T) {
			err := loadFleet(t, strings.Replace(good, c.change, c.into, 1))
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestDriftSchedule(t *testing.T) {
	at := func(text string) time.Time {
		parsed, err := time.Parse("15:04", text)
		require.NoError(t, err)
		return parsed
	}
	require.False(t, due("*/30 * * * *", at("12:01"), at("12:29")))
	require.True(t, due("*/30 * * * *", at("12:01"), at("12:30")))
	require.True(t, due("*/30 * * * *", at("12:01"), at("18:00")), "a turn that was missed is made up for")
	require.True(t, due("@every 1h", time.Time{}, at("12:00")))
	require.False(t, due("@every 1h", at("12:00"), at("12:59")))
}
