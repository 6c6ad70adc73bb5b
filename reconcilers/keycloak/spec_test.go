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

const goodComponent = `      module: realm
      variables: {realm: a, client_secret: b, keycloak_admin_password: "${ADMIN_PASSWORD}"}
      outputs: [realm]
`

// loadFleet loads a fleet with the small module, to which files may be added by their names in it.
func loadFleet(t *testing.T, component string, module map[string]string, allow ...string) error {
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
	for name, text := range module {
		at := filepath.Join(dir, "blueprints/spoke/realm", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.WriteFile(at, []byte(text), 0o600))
	}
	_, err := desired.Load(dir, desired.Options{Kinds: []desired.Kind{Kind}, Allow: func(string) []string { return allow }})
	return err
}

func TestSpecIsCheckedAgainstItsModule(t *testing.T) {
	good := goodComponent
	require.NoError(t, loadFleet(t, good, nil))
	rules := "protect: [keycloak_realm, keycloak_group]\n      allow: [keycloak_role]\n      maxChanges: 5\n      mode: plan-only\n      applyWindow: {schedule: CRON_TZ=Europe/Brussels 0 2 * * 0}\n      outputs:"
	require.NoError(t, loadFleet(t, strings.Replace(good, "outputs:", rules, 1), nil))
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
		"no type":            {"outputs:", "protect: [keycloak_user, realm]\n      outputs:", `blueprint.yaml:14:32: protect: "realm" is not a type of resources`},
		"a slip of a type":   {"outputs:", "allow: [keycloak_rol]\n      outputs:", `blueprint.yaml:14:15: allow: module realm has no resource of type "keycloak_rol", did you mean "keycloak_role"?`},
		"both":               {"outputs:", "allow: [keycloak_role]\n      protect: [keycloak_role]\n      outputs:", `keycloak_role is protected and allowed at once`},
		"negative":           {"outputs:", "maxChanges: -1\n      outputs:", `blueprint.yaml:14:19: maxChanges must not be negative`},
		"no exports":         {"outputs:", "exports: -1\n      outputs:", `blueprint.yaml:14:16: exports must not be negative`},
		"no port":            {"outputs:", "managementPort: 0\n      outputs:", `blueprint.yaml:14:23: managementPort must be between 1 and 65535, not 0`},
		"no window":          {"outputs:", "applyWindow: {schedule: nightly}\n      outputs:", `blueprint.yaml:14:31: schedule "nightly" of applyWindow`},
		"a vague window":     {"outputs:", "applyWindow: {schedule: '@every 1h'}\n      outputs:", `@every counts from nowhere`},
		"never a window":     {"outputs:", "applyWindow: {schedule: 0 0 30 2 *}\n      outputs:", `it never opens`},
		"a short window":     {"outputs:", "applyWindow: {schedule: 0 2 * * *, duration: 5s}\n      outputs:", `an applyWindow of less than a minute is never used`},
		"no address":         {"outputs:", "imports: {auditor: r/1}\n      outputs:", `blueprint.yaml:14:26: imports: "auditor" is not the address of a resource`},
		"text as an address": {"outputs:", "imports: {'keycloak_role.a }': r/1}\n      outputs:", `is not the address of a resource`},
		"import of no type":  {"outputs:", "imports: {keycloak_rol.a: r/1}\n      outputs:", `module realm has no resource of type "keycloak_rol", did you mean "keycloak_role"?`},
		"no import id":       {"outputs:", "imports: {'keycloak_role.each[\"a\"]': ''}\n      outputs:", `has no import id`},
		"no mode":            {"outputs:", "mode: dry\n      outputs:", `apply`},
	} {
		t.Run(name, func(t *testing.T) {
			err := loadFleet(t, strings.Replace(good, c.change, c.into, 1), nil)
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

func TestApplyWindow(t *testing.T) {
	at := func(text string) time.Time {
		parsed, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		return parsed
	}
	night := &Window{Schedule: "0 2 * * 0", Duration: desired.Duration(time.Hour)}
	for _, c := range []struct {
		window *Window
		now    string
		open   bool
		next   string // when it is closed
	}{
		{nil, "2026-03-04T12:00:00Z", true, ""},
		{&Window{Schedule: always}, "2026-03-04T12:00:00Z", true, ""},
		{night, "2026-03-08T01:59:59Z", false, "2026-03-08T02:00:00Z"},
		{night, "2026-03-08T02:00:00Z", true, ""},
		{night, "2026-03-08T02:59:59Z", true, ""},
		{night, "2026-03-08T03:00:00Z", false, "2026-03-15T02:00:00Z"},
		{night, "2026-03-08T03:30:00+01:00", true, ""},
		{&Window{Schedule: "CRON_TZ=Europe/Brussels 0 2 * * *", Duration: desired.Duration(time.Hour)}, "2026-03-08T01:30:00Z", true, ""},
		{&Window{Schedule: "0 22 * * *", Duration: desired.Duration(8 * time.Hour)}, "2026-03-08T05:59:00Z", true, ""},
	} {
		open, next, err := c.window.opens(at(c.now))
		require.NoError(t, err)
		require.Equal(t, c.open, open, "%v at %s", c.window, c.now)
		if !c.open {
			require.True(t, at(c.next).Equal(next), "%s: %s", c.now, next)
		}
	}
}

func TestThePasswordIsSetByTheComponent(t *testing.T) {
	spec := decode(t, "url: http://a\nmodule: realm\nvariables: {keycloak_admin_password: \"${ADMIN_PASSWORD}\", other: \"${OTHER}\"}\n")
	require.Equal(t, []string{"ADMIN_PASSWORD"}, spec.Sets(nil))
	require.Empty(t, decode(t, "url: http://a\nmodule: realm\n").Sets(nil))
	scope := desired.NewScope(map[string]desired.Value{"ADMIN_PASSWORD": desired.Secret("third")}).WithFormer(map[string][]desired.Value{
		"ADMIN_PASSWORD": {desired.Secret("second"), desired.Secret("third"), desired.Secret("first")}, "OTHER": {desired.Secret("x")},
	})
	variables := map[string]any{passwordVariable: "third", userVariable: "root"}
	require.Equal(t, admin{user: "root", password: "third", former: []string{"second", "first"}}, adminOf(spec, variables, scope))
	spec.AdminUser = "chief"
	require.Equal(t, "chief", adminOf(spec, variables, scope).user)
	require.Equal(t, admin{user: "admin"}, adminOf(&Spec{}, nil, scope), "nobody signs in")
}
