package keycloak

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const roleWith = `resource "keycloak_role" "more" {
  realm_id = keycloak_realm.this.id
  name     = "more"
  %
}
`

func TestWhatIsWrongWithAModuleHasAPlace(t *testing.T) {
	const at = "blueprints/spoke/realm/"
	for name, c := range map[string]struct {
		files map[string]string
		want  []string // all problems, in their order
	}{
		"syntax errors of several files": {
			map[string]string{"a.tf": "resource \"keycloak_role\" {\n", "b.tf": "locals {\n  x = = 1\n}\n"},
			[]string{at + "a.tf:1:26: Unclosed configuration block", at + "b.tf:2:7: Invalid expression"},
		},
		"unknown names": {
			map[string]string{"a.tf": "locals {\n  x = var.relm\n  y = local.z\n}\n"},
			[]string{at + `a.tf:2:7: var.relm: the module declares no variable "relm", did you mean "realm"?`, at + `a.tf:3:7: local.z: the module declares no local value "z"`},
		},
		"in a module that is called": {
			map[string]string{"a.tf": "module \"m\" {\n  source = \"./sub\"\n}\n", "sub/main.tf": "output \"o\" { value = var.gone }\n"},
			[]string{at + `sub/main.tf:1:22: var.gone: the module declares no variable "gone"`},
		},
		"commands": {
			map[string]string{
				"a.tf":      strings.Replace(roleWith, "%", "provisioner \"local-exec\" {\n    command = \"id\"\n  }\n  provisioner \"file\" {\n  }", 1),
				"b.tf.json": `{"resource": {"terraform_data": {"x": {"provisioner": {"remote-exec": {"inline": ["id"]}}}}}}`,
				"c.tf":      "removed {\n  from = keycloak_role.gone\n  provisioner \"local-exec\" {\n    when = destroy\n  }\n}\n",
			},
			[]string{
				at + `a.tf:4:3: keycloak_role.more has a provisioner "local-exec": modules run no commands. Take it out, or let the host allow it, in its agent.yaml: terraform: {allow: ["provisioners"]}`,
				at + `a.tf:7:3: keycloak_role.more has a provisioner "file"`,
				at + `b.tf.json:1:`, at + `c.tf:3:3: removed has a provisioner "local-exec"`,
			},
		},
		"data from outside": {
			map[string]string{"a.tf": `data "external" "x" {
  program = ["id"]
}
data "terraform_remote_state" "y" {
  backend = "local"
}
check "c" {
  data "external" "z" {
    program = ["id"]
  }
}
`},
			[]string{at + "a.tf:1:1: data source external.x runs a program on the host", at + "a.tf:4:1: data source terraform_remote_state.y reads the state of another module", at + "a.tf:8:3: data source external.z"},
		},
		"other providers": {
			map[string]string{"a.tf": "resource \"null_resource\" \"x\" {}\nresource \"null_resource\" \"y\" {}\n", "sub/a.tf": `terraform {
  required_providers {
    keycloak = { source = "evil.example/keycloak/keycloak" }
    random   = { source = "registry.terraform.io/hashicorp/random" }
  }
}
`, "b.tf": "module \"m\" {\n  source = \"./sub\"\n}\n", "sub/b.tf": "provider \"http\" {}\n"},
			[]string{
				at + `a.tf:1:1: null_resource.x is of provider hashicorp/null, which is none that modules may use`,
				at + `sub/a.tf:3:5: provider evil.example/keycloak/keycloak is none that modules may use`,
				at + `sub/a.tf:4:5: provider hashicorp/random is none`, at + `sub/b.tf:1:1: http is of provider hashicorp/http`,
			},
		},
		"modules from outside": {
			map[string]string{"a.tf": `module "a" {
  source = "git::https://git.example/realm.git"
}
module "b" {
  source = "../other"
}
module "c" {
  source = "./${var.realm}"
}
module "d" {
  source = "./nothing"
}
module "e" {
  source = "terraform-modules/realm/keycloak"
}
module "f" {
  source = "/etc"
}
module "g" {}
`},
			[]string{
				at + `a.tf:2:3: module a comes from "git::https://git.example/realm.git", outside of the repository`,
				at + `a.tf:5:3: module b comes from "../other", outside of the module's folder realm`,
				at + `a.tf:8:3: source of module c must be a plain text`,
				at + `a.tf:11:3: module d: there is no .tf file in realm/nothing`,
				at + `a.tf:14:3: module e comes from "terraform-modules/realm/keycloak", outside`,
				at + `a.tf:17:3: module f comes from "/etc", outside`,
				at + `a.tf:19:1: module g has no source`,
			},
		},
		"files of the host": {
			map[string]string{
				"a.tf": `locals {
  a = file("/etc/shadow")
  b = filebase64("../terraform.tfstate")
  c = templatefile("${path.module}/../../key", {})
  d = fileset("${path.root}/users", "../../*.json")
  e = fileexists(pathexpand("~/.ssh/id_ed25519"))
  f = core::filesha256("${path.module}/${var.realm}/../../key")
  g = [for name in ["a"] : file("${path.cwd}/../${name}")]
}
module "m" {
  source = "./sub"
}
`,
				"b.tf.json":   "{\n  \"output\": {\"o\": {\"value\": \"x${file(\\\"/etc/passwd\\\")}\"}}\n}\n",
				"sub/main.tf": "output \"o\" { value = file(\"${path.module}/../../key\") }\noutput \"p\" { value = file(\"../key\") }\n",
				"c.tf":        "locals {\n  t = templatefile(\"mails/welcome.txt\", {})\n}\n", "mails/welcome.txt": "Hello\n${file(\"/etc/hostname\")} ${templatefile(\"mails/more.txt\", {})}\n",
				"mails/more.txt": "%{ if fileexists(\"/etc/hosts\") }x%{ endif }",
			},
			[]string{
				at + `a.tf:2:7: file("/etc/shadow") reads outside of the module's folder: only what is below it is taken along. Take it out, or let the host allow it, in its agent.yaml: terraform: {allow: ["files"]}`,
				at + `a.tf:3:7: filebase64("../terraform.tfstate") reads outside`,
				at + `a.tf:4:7: templatefile(".//../../key") reads outside`,
				at + `a.tf:5:7: fileset("./users/../../*.json") reads outside`,
				at + `a.tf:6:7: fileexists("~/.ssh/id_ed25519") reads outside`,
				at + `a.tf:7:7: filesha256(".//${...}/../../key") reads outside`,
				at + `a.tf:8:28: file("./../${...}") reads outside`,
				at + `b.tf.json:2:33: file("/etc/passwd") reads outside`,
				at + `mails/more.txt:1:7: fileexists("/etc/hosts") reads outside`,
				at + `mails/welcome.txt:2:3: file("/etc/hostname") reads outside`,
				at + `sub/main.tf:1:22: file("./sub/../../key") reads outside`,
				at + `sub/main.tf:2:22: file("../key") reads outside`,
			},
		},
		"an encrypted state": {
			map[string]string{"a.tf": "terraform {\n  encryption {\n    key_provider \"external\" \"x\" {\n      command = [\"id\"]\n    }\n  }\n}\n"},
			[]string{at + "a.tf:2:3: the module encrypts its state"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := loadFleet(t, goodComponent, c.files)
			var problems desired.Problems
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems, len(c.want), "%v", err)
			for i, want := range c.want {
				require.True(t, strings.HasPrefix(problems[i].String(), want), "%s\nis not\n%s", problems[i], want)
			}
		})
	}
}

func TestAHostAllowsModulesMore(t *testing.T) {
	files := map[string]string{
		"a.tf": strings.Replace(roleWith, "%", "provisioner \"local-exec\" {}", 1),
		"c.tf": "locals { key = file(\"/etc/dive/ca.pem\") }\n",
		"b.tf": "data \"external\" \"x\" {}\nmodule \"m\" {\n  source = \"git::https://git.example/realm.git?ref=1\"\n}\nresource \"random_pet\" \"p\" {}\n",
	}
	all := []string{"provisioners", "external", "module:git::https://git.example/", "provider:hashicorp/random", "files"}
	require.NoError(t, loadFleet(t, goodComponent, files, all...))
	require.NoError(t, loadFleet(t, goodComponent, files, desired.AllowAll))
	for i, word := range all {
		some := append(append([]string{}, all[:i]...), all[i+1:]...)
		var problems desired.Problems
		require.ErrorAs(t, loadFleet(t, goodComponent, files, some...), &problems, word)
		require.Len(t, problems, 1, word)
	}
	require.Error(t, loadFleet(t, goodComponent, map[string]string{"a.tf": "locals { x = var.relm }\n"}, desired.AllowAll), "no host allows what does not work")
}

// What a module brings along it may read, and what a variable says is known to Terraform alone.
func TestAModuleReadsItsOwnFiles(t *testing.T) {
	require.NoError(t, loadFleet(t, goodComponent, map[string]string{
		"a.tf": `locals {
  a = file("texts/a.txt")
  b = templatefile("${path.module}/texts/../texts/b.tftpl", { x = 1 })
  c = fileset(path.module, "**")
  d = file("./texts/${var.realm}.txt")
  e = file(var.realm)
  f = fileexists("${path.root}/.x")
  g = templatefile("texts/gone.txt", {})
}
`, "texts/b.tftpl": "${x}", "b.tf.json": `{"locals": {"j": "${file(\"texts/a.txt\")}", "/etc/passwd": "file(\"/etc/passwd\")"}}`,
	}))
}

// What is allowed where it was validated may not be allowed here.
func TestNoProcessForAModuleThatIsNotAllowed(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "realm/more.tf"), []byte(strings.Replace(roleWith, "%", "provisioner \"local-exec\" {}", 1)), 0o600))
	spec := decode(t, "url: http://127.0.0.1:1\nmodule: realm\n")
	look := func(allow ...string) error {
		tool := reconcilers.Terraform{Path: "false", Allow: allow}
		r := New(reconcilers.Deps{Terraform: tool, OpenTofu: tool})
		observed, err := r.Observe(t.Context(), reconcilers.Target{
			Instance: &desired.Instance{Name: "deu"}, Component: &desired.Component{Name: "identity", Kind: Kind.Name, Spec: spec},
			Scope: desired.NewScope(nil), SourceDir: dir, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		return observed.Err
	}
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, look(), &blocked)
	require.Equal(t, "ModuleRefused", blocked.Reason)
	require.Contains(t, blocked.Message, "realm/more.tf:4:3: keycloak_role.more has a provisioner")
	var wait *reconcilers.WaitError
	require.True(t, errors.As(look("provisioners"), &wait), "goes on to the server")
}

func FuzzModule(f *testing.F) {
	f.Add([]byte("resource \"a\" \"b\" {\n provisioner \"x\" {}\n}\nmodule \"m\" { source = \"./.\" }\n"), false)
	f.Add([]byte("locals {\n x = templatefile(\"main.tf\", file(\"../${path.module}\"))\n}\n"), false)
	f.Add([]byte(`{"locals":{"x":"${file(\"/etc/passwd\")}"}}`), true)
	f.Add([]byte(`{"terraform":[{"required_providers":{"a":"1","b":{"source":1}}}],"module":{"m":{"source":"../x"}}}`), true)
	f.Fuzz(func(t *testing.T, data []byte, json bool) {
		name := "main.tf"
		if json {
			name += ".json"
		}
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		_, _ = readModule(os.DirFS(dir), ".")
	})
}
