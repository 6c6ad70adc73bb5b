package desired_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// Each mistake alone: what is reported, and that nothing else is.
func TestRules(t *testing.T) {
	const deu = "instances/deu.yaml"
	const bp = "blueprints/spoke/blueprint.yaml"
	blueprint := func(old, new string) map[string]string {
		require.Contains(t, spokeBlueprint, old)
		return map[string]string{bp: strings.Replace(spokeBlueprint, old, new, 1)}
	}
	for _, c := range []struct {
		name string
		over map[string]string
		want []string
	}{
		{"no fleet", map[string]string{"fleet.yaml": ""}, []string{"fleet.yaml: the file is missing: this is no fleet repository (dive-agent init makes one)"}},
		{"unknown host", map[string]string{deu: spoke("deu", "onne", "  values: {code: DEU, portOffset: 1}\n")}, []string{deu + `:6:9: no host "onne" in hosts/, did you mean "one"?`}},
		{"unknown blueprint", map[string]string{deu: strings.Replace(spoke("deu", "one", ""), "blueprint: spoke", "blueprint: spke", 1)}, []string{deu + `:5:14: no blueprint "spke" in blueprints/, did you mean "spoke"?`}},
		{"name and path differ", map[string]string{deu: spoke("ger", "one", "  values: {code: DEU, portOffset: 1}\n")}, []string{deu + `:3:18: name "ger" differs from the name "deu" in the path ` + deu}},
		{"declared twice", map[string]string{"instances/deu/instance.yaml": spoke("deu", "one", "  values: {code: DEU, portOffset: 11}\n")}, []string{deu + ": deu is declared twice, also in instances/deu/instance.yaml"}},
		{"upper case", map[string]string{"instances/DEU.yaml": spoke("DEU", "one", "  values: {code: DEU, portOffset: 2}\n"), deu: ""}, []string{`instances/DEU.yaml:3:18: name "DEU": use lower-case letters, digits and hyphens, at most 40`}},
		{"two hubs", map[string]string{"instances/gbr.yaml": strings.Replace(spoke("gbr", "one", "  values: {portOffset: 3}\n"), "blueprint: spoke", "blueprint: hub", 1)}, []string{"instances/usa.yaml:1:1: a second hub: gbr (instances/gbr.yaml) is one already"}},
		{"the hub is a spoke", map[string]string{"fleet.yaml": strings.Replace(fleetYAML, "usa", "deu", 1)}, []string{"fleet.yaml:5:19: instance deu is a spoke, not a hub"}},
		{"missing value", map[string]string{deu: spoke("deu", "one", "  values: {portOffset: 1}\n")}, []string{deu + `:7:11: value "code" is missing; blueprint spoke requires it`}},
		{"value of another type", map[string]string{deu: spoke("deu", "one", "  values: {code: DEU, portOffset: \"1\"}\n")}, []string{deu + `:7:35: value portOffset must be a number, not a string`}},
		{"required and default", blueprint(`{required: true, pattern: "[A-Z]{3}"}`, `{required: true, default: DEU}`), []string{bp + `:7:5: value code needs either a default or required: true`}},
		{"names hide one another", blueprint("image: mongo:7", "database: mongo:7"), []string{bp + `:27:5: component database has the name of value database; expressions could not tell them apart`}},
		{"kind changed", map[string]string{deu: spoke("deu", "one", "  values: {code: DEU, portOffset: 1}\n  components: {database: {kind: Job}}\n")}, []string{deu + `:8:33: component database is a Database in blueprint spoke; an instance cannot change that`}},
		{"unknown service", blueprint("service: mongodb", "service: mongdb"), []string{bp + `:27:5: no service "mongdb" in blueprint spoke, did you mean "mongodb"? (has: backend, frontend, mongodb)`}},
		{"unknown output", blueprint("${database.uri}", "${database.url}"), []string{bp + `:23:28: ${database.url}: "database" has no "url", did you mean "uri"? (has: uri, members)`}},
		{"cycle through after", blueprint("after: [database]", "after: [database, stack/frontend]"), []string{bp + `:34:25: cycle: registration -> stack/frontend -> registration`}},
		{"after names nothing", blueprint("after: [database]", "after: [datebase]"), []string{bp + `:34:15: no component "datebase" in blueprint spoke, did you mean "database"? (has: stack, database, registration)`}},
		{"ports of one host", map[string]string{"instances/gbr.yaml": spoke("gbr", "one", "  values: {code: GBR, portOffset: 11}\n")}, []string{"instances/gbr.yaml:7:23: host port 4011 is taken on host one by deu/backend (instances/deu.yaml)"}},
		{"one address", blueprint("port: ${4000 + portOffset}", "port: 127.0.0.1:4000"), []string{"instances/usa.yaml:4:30: host port 4000 is taken on host one by deu/backend (instances/deu.yaml)"}},
		{"projects of one host", blueprint("dive-spoke-${lower(code)}", "dive"), nil},
		{"hub's value", map[string]string{"fleet.yaml": fleetYAML + "  values: {imge: x}\n"}, []string{`fleet.yaml:6:18: no blueprint declares the value "imge", did you mean "image"?`}},
		{"unused blueprint", map[string]string{"blueprints/x/blueprint.yaml": strings.Replace(strings.Replace(hubBlueprint, "name: hub", "name: x", 1), "portOffset}", "portOfset}", 1)}, []string{`blueprints/x/blueprint.yaml:11:35: ${portOfset}: no value or secret "portOfset" in blueprint x, did you mean "portOffset"? (has: portOffset)`}},
		{"bad CA", map[string]string{"fleet.yaml": strings.Replace(fleetYAML, "hub: {", "hub: {ca: hello, ", 1)}, []string{"fleet.yaml:5:13: the hub's certificate authority is no PEM certificate: no certificate in it"}},
		{"neither blueprint nor components", map[string]string{deu: "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: deu}\nspec: {host: one}\n"}, []string{deu + ":4:7: the instance has neither a blueprint nor components"}},
		{"wrong kind of file", map[string]string{deu: strings.Replace(hubBlueprint, "name: hub", "name: deu", 1)}, []string{deu + ":2:7: " + deu + " must be of kind Instance, not Blueprint"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			problems := problemsIn(t, c.over)
			if len(c.want) == 0 {
				require.Empty(t, problems)
				return
			}
			require.Equal(t, c.want, problems)
		})
	}
}

// An instance without a blueprint declares everything itself.
func TestInstanceWithoutBlueprint(t *testing.T) {
	fleet := loadTree(t, map[string]string{"instances/deu.yaml": `apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: deu}
spec:
  role: spoke
  host: one
  values: {n: 3}
  secrets: {KEY: {provide: true}}
  components:
    job: {kind: Job, steps: ["${n} ${KEY}"]}
`})
	deu := fleet.Instances["deu"]
	require.Equal(t, "instances/deu", deu.Source)
	require.True(t, deu.Secret("KEY").Provide)
	require.Len(t, deu.Component("job").Expressions(), 1)
}

// What an instance gives is laid over its blueprint field by field; lists are replaced.
func TestMerge(t *testing.T) {
	fleet := loadTree(t, map[string]string{"instances/deu.yaml": spoke("deu", "one", `  values: {code: DEU, portOffset: 1}
  secrets: {PASSWORD: {generate: {length: 40}}, EXTRA: {provide: true}}
  components:
    stack: {timeout: 5m, services: {backend: {environment: {EXTRA: "${EXTRA}"}}, cache: {}}}
    registration: {after: []}
  approve: {stack/backend: 0123456789abcdef}
`)})
	deu := fleet.Instances["deu"]
	stack := deu.Component("stack").Spec.(*stackSpec)
	require.Equal(t, "5m0s", stack.Timeout.String())
	require.Len(t, stack.Services["backend"].Environment, 3)
	require.Contains(t, stack.Services, "cache")
	require.Equal(t, 40, deu.Secret("PASSWORD").Generate.Length)
	require.Equal(t, "0123456789abcdef", deu.Approve["stack/backend"])
	require.Equal(t, "blueprints/spoke/blueprint.yaml", stack.Services["backend"].Environment["TOKEN"].Position().File)
	require.Equal(t, "instances/deu.yaml", stack.Services["backend"].Environment["EXTRA"].Position().File)
	for _, n := range deu.Graph.Nodes {
		if n.ID == "registration" {
			require.Empty(t, n.Needs, "the list of the instance replaces the blueprint's")
		}
	}
}

// Light leaves parts unknown and reports nothing that only they could tell.
func TestLight(t *testing.T) {
	fleet, err := desired.LoadFS(tree(nil), desired.Options{Kinds: kinds, Light: true})
	require.NoError(t, err)
	require.Len(t, fleet.Instances["deu"].Graph.Nodes, 3)
	full := loadTree(t, nil)
	require.Equal(t, full.Digest, fleet.Digest, "the digest does not depend on how much is validated")
}

// Validation of one blueprint's folder is done once for all its instances.
func TestOnce(t *testing.T) {
	c := &desired.Check{}
	calls := 0
	for range 3 {
		require.Equal(t, 7, desired.Once(c, "x", func() int { calls++; return 7 }))
	}
	require.Equal(t, 3, calls, "a check outside Load keeps nothing")
}

// twiceSpec needs a service twice: once running, once ready.
type twiceSpec struct{}

func (*twiceSpec) Needs(*desired.Check) []desired.Need {
	return []desired.Need{{Part: "mongodb", Started: true}, {Part: "mongodb"}, {Part: "mongodb", Started: true}}
}

func TestTheStrongerOfTwoNeedsCounts(t *testing.T) {
	fleet, err := desired.LoadFS(tree(map[string]string{"instances/deu.yaml": spoke("deu", "one", "  values: {code: DEU, portOffset: 1}\n  components: {twice: {kind: Twice}}\n")}),
		desired.Options{Kinds: append(slices.Clone(kinds), desired.Kind{Name: "Twice", New: func() any { return new(twiceSpec) }})})
	require.NoError(t, err)
	nodes := fleet.Instances["deu"].Graph.Nodes
	twice := nodes[slices.IndexFunc(nodes, func(n *desired.Node) bool { return n.ID == "twice" })]
	require.Len(t, twice.Needs, 1)
	require.Equal(t, "stack/mongodb", twice.Needs[0].On)
	require.False(t, twice.Needs[0].Started)
}
