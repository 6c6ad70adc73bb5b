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
		`[{name: a}]`: "check \"a\" needs exactly one of http, tcp, mongo, sql, audit, logs, certificate, oidc, federation, policy; it has none",
		`[{name: a, tcp: {address: "x:1"}, logs: {service: web, absent: x}}]`:  "it has tcp, logs",
		`[{name: a, tcp: {address: "x:1"}}, {name: a, tcp: {address: "x:1"}}]`: `check "a" stands twice`,
		`[{name: a, http: {}}]`:                                                                       "it needs url or service",
		`[{name: a, http: {service: web}}]`:                                                           "service web needs a port",
		`[{name: a, http: {url: "http://x", service: web, port: 1}}]`:                                 "it has both url and service",
		`[{name: a, http: {url: "https://x", caFile: absent.pem}}]`:                                   "cannot read blueprints/b/absent.pem",
		`[{name: a, http: {service: absent, port: 1}}]`:                                               `no service "absent"`,
		`[{name: a, http: {url: "https://x", mutual: true}}]`:                                         "mutual needs certificate",
		`[{name: a, http: {service: web, port: 1, certificate: pem}}]`:                                "a certificate is shown over https alone",
		`[{name: a, mongo: {count: x}}]`:                                                              "count needs expect",
		`[{name: a, mongo: {}}]`:                                                                      "mongo needs exactly one of command, count, every, changeStream, member; it has none",
		`[{name: a, mongo: {command: hello}}]`:                                                        "command must be a map",
		`[{name: a, mongo: {component: absent, count: x, expect: 1}}]`:                                "absent",
		`[{name: a, logs: {service: web}}]`:                                                           "logs needs absent or present",
		`[{name: a, oidc: {}}]`:                                                                       "oidc needs issuer or url",
		`[{name: a, policy: {service: stack, server: "opal:7002"}}]`:                                  `server "opal:7002" is no URL of http or https`,
		`[{name: a, policy: {service: stack}}]`:                                                       "server",
		`[{name: a, sql: {query: select 1}}]`:                                                         "it needs uri or service",
		`[{name: a, http: {url: "https://x", insecure: true}}]`:                                       `unknown field "insecure"`,
		`[{name: a, severity: urgent, tcp: {address: "x:1"}}]`:                                        "severity must be one of fail, warn",
		`[{name: a, certificate: {address: "x:1", ca: "-----BEGIN", caFile: ca.pem, minDays: soon}}]`: "minDays must be",
		`[{name: a, severity: fail, schedule: hourly, tcp: {address: "x:1"}}]`:                        `check "a": schedule "hourly" is no cron expression`,
		`[{name: a, when: yes please, tcp: {address: "x:1"}}]`:                                        "when must be true or false",
		`[{name: a, class: optional, tcp: {address: "x:1"}}]`:                                         `unknown field "class"`,
		`[{name: a, mongo: {count: x, expect: 1, changeStream: true}}]`:                               "mongo needs exactly one of command, count, every, changeStream, member; it has count, changeStream",
		`[{name: a, mongo: {every: {collection: x}}}]`:                                                "every needs is or nonEmpty",
		`[{name: a, mongo: {every: {nonEmpty: [x]}}}]`:                                                `every needs the field "collection"`,
		`[{name: a, mongo: {every: {collection: x, nonEmpty: [$where]}}}]`:                            `"$where" is no field`,
		`[{name: a, mongo: {every: {collection: x, is: yes}}}]`:                                       "is must be a map",
		`[{name: a, mongo: {member: ARBITER}}]`:                                                       "member must be one of PRIMARY, SECONDARY",
		`[{name: a, mongo: {changeStream: true, set: rs0}}]`:                                          "set goes with member",
		`[{name: a, mongo: {changeStream: true, expect: 1}}]`:                                         "expect goes with command or count",
		`[{name: a, audit: {}}]`:                                                                      "it needs uri or service",
		`[{name: a, audit: {service: mongodb, tables: [], views: [], functions: []}}]`:                "audit looks for nothing",
		`[{name: a, logs: {service: web, absent: x, since: yesterday}}]`:                              "since must be one of start, change",
		`[{name: a, federation: {}}]`:                                                                 `needs the field "both"`,
		`[{name: a, federation: {both: usa}}]`:                                                        `there is no instance "usa" in the fleet`,
		`[{name: a, federation: {both: deu}}]`:                                                        "deu is this instance itself",
		`[{name: a, federation: {both: spokes}}]`:                                                     "spokes is for a hub",
		`[{name: a, federation: {both: fra, heartbeat: 0s, adminKey: plain}}]`:                        "adminKey must come from a secret",
	} {
		_, err := load("      checks: " + text + "\n")
		require.ErrorContains(t, err, want, text)
	}
}

// TestMistakesHaveTheirPlace: file, line and column of the very field.
func TestMistakesHaveTheirPlace(t *testing.T) {
	_, err := load(`      schedule: "61 * * * *"
      checks:
        - name: a
          schedule: hourly
          mongo: {changeStream: true, set: rs0}
        - name: b
          mongo:
            every: {collection: resources, is: [encrypted]}
        - name: c
          federation: {both: usa}
`)
	var problems desired.Problems
	require.ErrorAs(t, err, &problems)
	var places []string
	for _, p := range problems {
		places = append(places, p.Position.String())
	}
	require.Equal(t, []string{
		"blueprints/b/blueprint.yaml:11:17", "blueprints/b/blueprint.yaml:14:21", "blueprints/b/blueprint.yaml:15:44",
		"blueprints/b/blueprint.yaml:18:48", "blueprints/b/blueprint.yaml:20:30",
	}, places, "%v", err)
}

// TestACheckThatIsLeftOutNeedsNoService: what a value switches off may name a service that this stack does not have.
func TestACheckThatIsLeftOutNeedsNoService(t *testing.T) {
	_, err := load(`
      checks:
        - {name: web, http: {service: web, port: 80}}
        - {name: otel, when: "${1 > 2}", http: {service: otel-collector, port: 13133}}
`)
	require.NoError(t, err)
}
