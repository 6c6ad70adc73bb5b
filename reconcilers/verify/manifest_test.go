package verify_test

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers/verify"
)

// stack is a kind with one service a name, for manifests whose services nobody runs.
type stack struct {
	Services []string `yaml:"services"`
}

func (s *stack) Parts(*desired.Check) []desired.Part {
	var parts []desired.Part
	for _, name := range s.Services {
		parts = append(parts, desired.Part{Name: name})
	}
	return parts
}

// replicaSet is a kind that publishes what a mongo check uses.
type replicaSet struct{}

func (*replicaSet) Outputs() []desired.Output { return []desired.Output{{Name: "uri", Secret: true}} }

// load reads an instance with the component `checks` as given.
func load(checks string) (*desired.Fleet, error) {
	tree := fstest.MapFS{
		"fleet.yaml":         {Data: []byte("apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\n")},
		"hosts/deu-01.yaml":  {Data: []byte("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: deu-01}\nspec: {}\n")},
		"instances/deu.yaml": {Data: []byte("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: deu}\nspec: {blueprint: b, host: deu-01}\n")},
		"blueprints/b/blueprint.yaml": {Data: []byte(`apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: b}
spec:
  role: spoke
  components:
    stack: {kind: Stack, services: [mongodb, web]}
    database: {kind: MongoReplicaSet}
    checks:
      kind: Verification
` + checks)},
	}
	return desired.LoadFS(tree, desired.Options{Kinds: []desired.Kind{
		verify.Kind,
		{Name: "Stack", Doc: "Services.", New: func() any { return new(stack) }},
		{Name: "MongoReplicaSet", Doc: "A replica set.", New: func() any { return new(replicaSet) }},
	}})
}

func needs(t *testing.T, fleet *desired.Fleet) []string {
	t.Helper()
	var list []string
	for _, node := range fleet.Instances["deu"].Graph.Nodes {
		if node.ID == "checks" {
			for _, edge := range node.Needs {
				list = append(list, edge.On+" "+edge.Output)
			}
		}
	}
	return list
}

func TestChecksComeLast(t *testing.T) {
	fleet, err := load(`
      checks:
        - {name: primary, mongo: {command: {hello: 1}, expect: {isWritablePrimary: true}}}
        - {name: web, http: {service: web, port: 80}}
`)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"stack/mongodb ", "stack/web ", "database ", "database uri"}, needs(t, fleet))

	fleet, err = load(`
      last: false
      checks: [{name: web, http: {service: web, port: 80}}]
`)
	require.NoError(t, err)
	require.Equal(t, []string{"stack/web "}, needs(t, fleet))
}

func TestMistakesInManifest(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:          "there is no check",
		`[{name: a}]`: "check \"a\" needs exactly one of http, tcp, mongo, sql, logs, certificate, oidc; it has none",
		`[{name: a, tcp: {address: "x:1"}, logs: {service: web, absent: x}}]`:  "it has tcp, logs",
		`[{name: a, tcp: {address: "x:1"}}, {name: a, tcp: {address: "x:1"}}]`: `check "a" stands twice`,
		`[{name: a, http: {}}]`:                                                                       "it needs url or service",
		`[{name: a, http: {service: web}}]`:                                                           "service web needs a port",
		`[{name: a, http: {url: "http://x", service: web, port: 1}}]`:                                 "it has both url and service",
		`[{name: a, http: {url: "https://x", caFile: absent.pem}}]`:                                   "cannot read blueprints/b/absent.pem",
		`[{name: a, http: {service: absent, port: 1}}]`:                                               `no service "absent"`,
		`[{name: a, mongo: {count: x}}]`:                                                              "count needs expect",
		`[{name: a, mongo: {}}]`:                                                                      "mongo needs either command or count",
		`[{name: a, mongo: {command: hello}}]`:                                                        "command must be a map",
		`[{name: a, mongo: {component: absent, count: x, expect: 1}}]`:                                "absent",
		`[{name: a, logs: {service: web}}]`:                                                           "logs needs absent or present",
		`[{name: a, oidc: {}}]`:                                                                       "oidc needs issuer or url",
		`[{name: a, sql: {query: select 1}}]`:                                                         "it needs uri or service",
		`[{name: a, http: {url: "https://x", insecure: true}}]`:                                       `unknown field "insecure"`,
		`[{name: a, class: urgent, tcp: {address: "x:1"}}]`:                                           "class must be one of core, optional",
		`[{name: a, certificate: {address: "x:1", ca: "-----BEGIN", caFile: ca.pem, minDays: soon}}]`: "minDays must be",
	} {
		_, err := load("      checks: " + text + "\n")
		require.ErrorContains(t, err, want, text)
	}
}
