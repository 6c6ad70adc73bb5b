package keycloak

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// Spec is what a manifest says of a component of kind Keycloak.
type Spec struct {
	Service        string                  `yaml:"service" doc:"Service that runs the Keycloak server. Left out when url is given and the server is elsewhere."`
	Port           int                     `yaml:"port" default:"8080" doc:"HTTP port of the server inside its container."`
	URL            desired.Expr            `yaml:"url" doc:"Base URL of the server as this host reaches it. Default: the service's container and port."`
	CA             desired.Expr            `yaml:"ca" doc:"PEM of the certificate authority of the server's certificate, for an https url."`
	Management     int                     `yaml:"managementPort" default:"9000" doc:"Port of the server's management interface inside its container, which tells whether it is ready. Where nothing answers there, or url is given, realm master is asked instead."`
	AdminUser      string                  `yaml:"adminUser" doc:"Administrator in realm master whose password adminPassword is, or the variable keycloak_admin_password. Default: the variable keycloak_admin_user, else admin. A changed password is set with the former one."`
	AdminPassword  desired.Expr            `yaml:"adminPassword" doc:"Password of adminUser, who makes the serviceAccount and mends it. It may be left out once the account is there. Without a serviceAccount it is the variable keycloak_admin_password."`
	ServiceAccount *ServiceAccount         `yaml:"serviceAccount" doc:"Client of realm master as which the agent and the module's provider sign in, in place of an administrator: the module gets it as its variables keycloak_client_id and keycloak_client_secret. It has the role admin of realm master."`
	Tool           string                  `yaml:"tool" default:"terraform" doc:"Program that applies the module: terraform, or opentofu. It stays the same for a realm's whole life."`
	ToolVersion    string                  `yaml:"toolVersion" doc:"Versions of it that may be used, such as \">= 1.9, < 2.0\"."`
	Module         string                  `yaml:"module" required:"true" doc:"Folder of the Terraform module, beside the manifest."`
	Variables      map[string]desired.Tree `yaml:"variables" doc:"Variables of the module. keycloak_url is set by itself when the module has it and it stands not here."`
	OutputNames    []string                `yaml:"outputs" doc:"Outputs of the module that the component publishes."`
	DriftSchedule  string                  `yaml:"driftSchedule" default:"*/30 * * * *" doc:"When the live realm is compared although nothing changed: five fields as in cron, or @every 30m; the agent wakes for it."`
	Drift          string                  `yaml:"drift" default:"correct" enum:"correct,report" doc:"What is done about changes that were not made by the module: correct puts them back; report tells of them, until the next change of the manifest or the module. A realm that is gone is never only reported."`
	Parallelism    int                     `yaml:"parallelism" default:"20" doc:"How many resources Terraform works on at a time. Where flows are deleted it is one."`
	Adopt          bool                    `yaml:"adopt" doc:"Import what is in the realm under the names that the module declares, when the state is empty. Without it a realm that is there already is Blocked. It signs in as the module does."`
	Imports        map[string]string       `yaml:"imports" doc:"What is in the realm already and not in the state, by the address that it has in the module: the ids with which Terraform imports it, as dive-agent adopt prints them. What the state has is left as it is."`
	Timeout        desired.Duration        `yaml:"timeout" default:"20m" doc:"Limit of one apply."`
	Protect        []string                `yaml:"protect" doc:"Types of resources, such as keycloak_realm, of which every change but a creation waits for the approval of exactly that plan: updates in place and corrections of drift too. What destroys or replaces waits in any case."`
	Allow          []string                `yaml:"allow" doc:"Types of resources, such as keycloak_role, that may be destroyed, replaced, and made anew without approval."`
	MaxChanges     int                     `yaml:"maxChanges" doc:"A plan that changes more resources waits for approval. 0: any number. A first apply, which only creates, does not count."`
	ApplyWindow    *Window                 `yaml:"applyWindow" doc:"When changes may be applied, those of a first apply too. Outside of it a plan waits, approved or not."`
	Exports        int                     `yaml:"exports" default:"10" doc:"How many exports of a realm are kept in the component's folder (exports/REALM-TIME.json, 0600). One is made before a plan is applied that deletes or replaces; without it such a plan is not applied. It has clients, groups, roles and settings; no users, and secrets as stars. 0: none is made."`
	Backend        *Backend                `yaml:"backend" doc:"Where Terraform keeps the state. Default: a file in the component's folder on the host. Another place is moved to by itself, with the state."`
	FormerBackend  *Backend                `yaml:"formerBackend" doc:"Where a state is that is moved away from a remote backend, with what is needed to read it there. It is not looked at any more once the state has moved."`
	Mode           string                  `yaml:"mode" default:"apply" enum:"apply,plan-only" doc:"plan-only: what is planned is shown and never applied."`

	Position desired.Position
}

// Kind declares the kind Keycloak.
var Kind = desired.Kind{
	Name: "Keycloak",
	Doc:  "A realm of a Keycloak server, declared by a Terraform module.",
	New:  func() any { return &Spec{} },
}

// Registration is this kind's line in the program's list of reconcilers.
var Registration = reconcilers.Registration{Kind: Kind, New: func(d reconcilers.Deps) reconcilers.Reconciler { return New(d) }}

// urlVariable is the module's variable that gets the server's address when the manifest leaves it out.
const urlVariable = "keycloak_url"

var (
	_ desired.Validator = (*Spec)(nil)
	_ desired.Outputter = (*Spec)(nil)
	_ desired.Needer    = (*Spec)(nil)
	_ desired.Setter    = (*Spec)(nil)
	_ desired.Claimer   = (*Spec)(nil)
)

// Outputs are the module's outputs that the manifest names. Whether one is secret is the module's word (`sensitive`)
// once it was applied; before, its name tells.
func (s *Spec) Outputs() []desired.Output {
	outputs := make([]desired.Output, len(s.OutputNames))
	for i, name := range s.OutputNames {
		outputs[i] = desired.Output{Name: name, Secret: looksSecret(name), Doc: "output " + name + " of the module"}
	}
	return outputs
}

func looksSecret(name string) bool {
	return slices.ContainsFunc([]string{"secret", "password", "token", "private", "key"}, func(part string) bool { return strings.Contains(strings.ToLower(name), part) })
}

// Needs names the service that runs the server.
func (s *Spec) Needs(c *desired.Check) []desired.Need {
	if s.Service == "" {
		return nil
	}
	return []desired.Need{{Part: s.Service, Single: true, Why: "the realm is in service " + s.Service, Position: c.At("service")}}
}

// Validate checks the spec against the module's own files: its variables and its outputs.
func (s *Spec) Validate(c *desired.Check) {
	if s.Service == "" && s.URL.IsZero() {
		c.Errorf(s.Position, "one of service and url is needed")
	}
	if _, err := schedule(s.DriftSchedule); err != nil {
		c.Errorf(s.Position, "driftSchedule %q: %v", s.DriftSchedule, err)
	}
	s.validateTool(c)
	s.validateBackends(c)
	if s.Parallelism < 1 || s.Parallelism > 256 {
		c.Errorf(s.Position, "parallelism must be between 1 and 256, not %d", s.Parallelism)
	}
	if s.Management < 1 || s.Management > 65535 {
		c.Errorf(c.At("managementPort"), "managementPort must be between 1 and 65535, not %d", s.Management)
	}
	if s.Exports < 0 {
		c.Errorf(c.At("exports"), "exports must not be negative")
	}
	folder := path.Clean(s.Module)
	if s.Module == "" || c.Files == nil || c.Light {
		return
	}
	if !fs.ValidPath(folder) {
		c.Errorf(s.Position, "module %q leaves the repository's folder", s.Module)
		return
	}
	read := desired.Once(c, "terraform module "+folder, func() readResult {
		module, err := readModule(c.Files, folder)
		return readResult{module, err}
	})
	if read.err != nil {
		c.Errorf(s.Position, "module %q: %v", s.Module, read.err)
		return
	}
	for _, f := range read.module.findings {
		if !allowance(c.Allow).passes(f) {
			f.at.File = path.Join(c.Instance.Source, f.at.File)
			c.Errorf(f.at, "%s", f.told())
		}
	}
	s.validateAgainst(c, read.module)
	s.validateAccount(c, read.module)
	s.validateOwnBackend(c, read.module)
	s.validateGates(c, read.module)
	s.validateImports(c, read.module)
}

// readResult is what readModule gives; instances of one blueprint share it.
type readResult struct {
	module moduleFiles
	err    error
}

func (s *Spec) validateAgainst(c *desired.Check, module moduleFiles) {
	for name, value := range s.Variables {
		if _, ok := module.variables[name]; !ok {
			c.Errorf(value.Position(), "module %s has no variable %q (has: %s)", s.Module, name, strings.Join(sortedKeys(module.variables), ", "))
		}
	}
	for _, name := range sortedKeys(module.variables) {
		if _, given := s.Variables[name]; !given && module.variables[name] && !s.setsVariable(name) {
			c.Errorf(s.Position, "variable %q of module %s has no default and is not given", name, s.Module)
		}
	}
	for _, name := range s.OutputNames {
		if !slices.Contains(module.outputs, name) {
			c.Errorf(s.Position, "module %s has no output %q (has: %s)", s.Module, name, strings.Join(module.outputs, ", "))
		}
	}
}

// schedule reads a cron schedule.
func schedule(text string) (cron.Schedule, error) { return cron.ParseStandard(text) }

// due tells whether the schedule had a turn since the last one.
func due(text string, last, now time.Time) bool {
	s, err := schedule(text)
	return err != nil || last.IsZero() || !s.Next(last).After(now)
}
