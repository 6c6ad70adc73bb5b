package desired_test

import (
	"fmt"
	"maps"
	"slices"

	"dive-agent/desired"
)

// The kinds of these tests have all abilities and no engine.
var kinds = []desired.Kind{
	{Name: "Stack", Doc: "Services.", New: func() any { return new(stackSpec) }},
	{Name: "Database", Doc: "A database.", New: func() any { return new(databaseSpec) }},
	{Name: "Job", Doc: "Something that runs once.", New: func() any { return new(jobSpec) }},
}

type stackSpec struct {
	Project  desired.Expr           `yaml:"project" doc:"Project name."`
	Services map[string]serviceSpec `yaml:"services" required:"true" doc:"Services by name."`
	After    map[string][]string    `yaml:"after" doc:"Service to the components it waits for."`
	Timeout  desired.Duration       `yaml:"timeout" default:"30s" doc:"How long a service may take."`
	at       desired.Position
}

type serviceSpec struct {
	Environment map[string]desired.Expr `yaml:"environment" doc:"Environment."`
	Port        desired.Expr            `yaml:"port" doc:"Published port."`
	Policy      string                  `yaml:"policy" default:"always" enum:"always,never" doc:"When it starts again."`
	At          desired.Position
}

func (s *stackSpec) Validate(c *desired.Check) { s.at = c.Component.Position }

func (s *stackSpec) Parts(c *desired.Check) []desired.Part {
	if c.Light {
		return nil
	}
	var parts []desired.Part
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		part := desired.Part{Name: name}
		for _, key := range slices.Sorted(maps.Keys(s.Services[name].Environment)) {
			part.Needs = append(part.Needs, s.Services[name].Environment[key].Needs(key+" uses")...)
		}
		for _, on := range s.After[name] {
			part.Needs = append(part.Needs, desired.Need{Component: on, Position: c.At("after", name)})
		}
		parts = append(parts, part)
	}
	return parts
}

func (s *stackSpec) Claims(c *desired.Check) []desired.Claim {
	var claims []desired.Claim
	if v, err := s.Project.Eval(c.Scope); err == nil && v.Text() != "" {
		claims = append(claims, desired.Claim{Name: "project/" + v.Text(), Position: s.Project.Position()})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		if v, err := s.Services[name].Port.Eval(c.Scope); err == nil && v.Text() != "" {
			claims = append(claims, desired.Claim{Name: "tcp/" + v.Text(), By: name, Position: s.Services[name].Port.Position()})
		}
	}
	return claims
}

type databaseSpec struct {
	Service  string         `yaml:"service" required:"true" doc:"Its service."`
	Members  int            `yaml:"members" default:"1" doc:"How many."`
	Password desired.Expr   `yaml:"password" doc:"Password."`
	Key      desired.Expr   `yaml:"key" doc:"What its servers share."`
	Options  any            `yaml:"options" doc:"Anything."`
	Extra    map[string]any `yaml:"extra" doc:"Anything by name."`
	Ratio    *float64       `yaml:"ratio" doc:"A number."`
	Hidden   bool           `yaml:"hidden" doc:"Yes or no."`
}

func (s *databaseSpec) Sets(*desired.Check) []string {
	var names []string
	for _, ref := range s.Password.References() {
		names = append(names, ref.Path[0])
	}
	return names
}

func (s *databaseSpec) SharedKeys() []string { return []string{s.Key.Name()} }

func (s *databaseSpec) Outputs() []desired.Output {
	return []desired.Output{{Name: "uri", Secret: true, Doc: "Where it is."}, {Name: "members", Doc: "Who they are."}}
}

func (s *databaseSpec) Needs(*desired.Check) []desired.Need {
	return []desired.Need{{Part: s.Service, Started: true, Why: "runs the database"}}
}

func (s *databaseSpec) Validate(c *desired.Check) {
	if s.Members > 50 {
		c.Errorf(c.At("members"), "%d members: at most 50", s.Members)
	}
}

type jobSpec struct {
	Steps []desired.Expr `yaml:"steps" doc:"What it does."`
	Mode  mode           `yaml:"mode" doc:"fast or slow:<n>."`
}

func (s *jobSpec) Outputs() []desired.Output { return []desired.Output{{Name: "token", Secret: true}} }

// mode decodes itself.
type mode struct{ text string }

func (m *mode) UnmarshalManifest(d *desired.Decoder, t desired.Tree) {
	m.text = t.Expr().Source()
	if m.text != "fast" && m.text != "slow" {
		d.Errorf(t.Position(), "mode must be fast or slow")
	}
}

const fleetYAML = `apiVersion: dive/v1alpha1
kind: Fleet
metadata: {name: coalition}
spec:
  hub: {instance: usa, url: "https://localhost:4000"}
`

const hubBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: hub}
spec:
  role: hub
  values: {portOffset: 0}
  components:
    stack:
      kind: Stack
      services:
        backend: {port: "${4000 + portOffset}"}
`

const spokeBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: spoke}
spec:
  role: spoke
  values:
    code: {required: true, pattern: "[A-Z]{3}"}
    portOffset: 0
    image: mongo:7
    project: dive-spoke-${lower(code)}
  secrets:
    PASSWORD: {generate: {length: 24}}
    KEYFILE: {generate: {kind: mongodb-keyfile}, file: {path: keyfile, owner: 999}}
  components:
    stack:
      kind: Stack
      project: ${project}
      services:
        mongodb: {}
        backend:
          port: ${4000 + portOffset}
          environment:
            MONGODB_URL: ${database.uri}
            TOKEN: ${registration.token}
        frontend: {}
      after: {frontend: [registration]}
    database:
      kind: Database
      service: mongodb
      password: ${PASSWORD}
    registration:
      kind: Job
      steps: ["register ${code} at ${hub.url}"]
      after: [database]
`

func spoke(name, host, rest string) string {
	return fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: %s}\nspec:\n  blueprint: spoke\n  host: %s\n%s", name, host, rest)
}
