package mongo_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers/mongo"
)

// stack is a kind with one service a name, for manifests whose services nobody runs.
type stack struct {
	Services []string `yaml:"services"`
}

func (s *stack) Parts(*desired.Check) []desired.Part {
	var parts []desired.Part
	for _, name := range s.Services {
		parts = append(parts, desired.Part{Name: name, Replicas: map[string]int{"trio": 3}[name]})
	}
	return parts
}

// load reads an instance with the component `database` as given.
func load(database string, files map[string]string) (*desired.Fleet, error) {
	tree := fstest.MapFS{
		"fleet.yaml":           {Data: []byte("apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\n")},
		"hosts/deu-01.yaml":    {Data: []byte("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: deu-01}\nspec: {}\n")},
		"hosts/deu-02.yaml":    {Data: []byte("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: deu-02}\nspec: {}\n")},
		"instances/deu.yaml":   {Data: []byte("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: deu}\nspec: {blueprint: b, host: deu-01}\n")},
		"blueprints/b/readme":  {Data: []byte("b")},
		"blueprints/b/ok.json": {Data: []byte(`[{"_id": 1}]`)},
	}
	for name, text := range files {
		if !strings.HasPrefix(name, "instances/") {
			name = "blueprints/b/" + name
		}
		tree[name] = &fstest.MapFile{Data: []byte(text)}
	}
	tree["blueprints/b/blueprint.yaml"] = &fstest.MapFile{Data: []byte(`apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: b}
spec:
  role: spoke
  secrets: {PASSWORD: {generate: {length: 24}}}
  components:
    stack: {kind: Stack, services: [mongodb, mongodb-2, trio]}
    database:
      kind: MongoReplicaSet
      root: {username: admin, password: "${PASSWORD}"}
` + database)}
	kinds := []desired.Kind{mongo.Kind, {Name: "Stack", Doc: "Services.", New: func() any { return new(stack) }}}
	return desired.LoadFS(tree, desired.Options{Kinds: kinds})
}

func TestManifest(t *testing.T) {
	fleet, err := load(`
      members: [{service: mongodb}, {service: mongodb-2, priority: 0}]
      database: dive
      seed: [{collection: coi_definitions, file: ok.json}]
`, nil)
	require.NoError(t, err)
	for _, node := range fleet.Instances["deu"].Graph.Nodes {
		if node.ID != "database" {
			continue
		}
		require.Len(t, node.Needs, 2)
		require.Equal(t, "stack/mongodb", node.Needs[0].On)
		require.True(t, node.Needs[0].Started, "a health check that asks for PRIMARY must not be waited for")
	}
}

func TestMistakesInManifest(t *testing.T) {
	const members = "      members: [{service: mongodb}]\n"
	for name, c := range map[string]struct{ text, want string }{
		"unknown service":  {"      members: [{service: mongo}]\n", `blueprints/b/blueprint.yaml:12:17: no service "mongo"`},
		"replicas":         {"      members: [{service: trio}]\n", `blueprints/b/blueprint.yaml:12:17: service "trio" has 3 replicas, and runs a member of rs0: it may have one`},
		"no members":       {"      members: []\n", "needs at least one member"},
		"no candidate":     {"      members: [{service: mongodb, priority: 0}]\n", "no member may become primary"},
		"hidden candidate": {"      members: [{service: mongodb}, {service: mongodb-2, hidden: true, priority: 1}]\n", "its priority must be 0"},
		"twice":            {"      members: [{service: mongodb}, {service: mongodb}]\n", "member mongodb:27017 stands twice"},
		"no role":          {members + "      users: [{name: app, password: x, roles: []}]\n", "user app has no roles"},
		"near role":        {members + "      users: [{name: app, password: x, roles: [readWrit@dive]}]\n", `blueprints/b/blueprint.yaml:13:15: user app has role "readWrit", which database dive does not know, did you mean "readWrite"?`},
		"far role":         {members + "      users: [{name: app, password: x, roles: [nonsense]}]\n", "Declare it in roles, or name a built-in one"},
		"role of admin":    {members + "      users: [{name: app, password: x, database: dive, roles: [clusterMonitor]}]\n", "belongs to database admin: write clusterMonitor@admin"},
		"near own role":    {members + "      roles: [{name: reader}]\n      users: [{name: app, password: x, roles: [raeder]}]\n", `did you mean "reader"?`},
		"built-in role":    {members + "      roles: [{name: read}]\n", "role read is built into the server"},
		"role twice":       {members + "      roles: [{name: a}, {name: a}]\n", "role a in database admin stands twice"},
		"roles in a ring":  {members + "      roles: [{name: a, roles: [b]}, {name: b, roles: [a]}]\n", "inherits from itself"},
		"role beyond":      {members + "      roles: [{name: a, database: dive, privileges: [{resource: {cluster: true}, actions: [find]}]}]\n", "role a of database dive reaches beyond it"},
		"inherits beyond":  {members + "      roles: [{name: a, database: dive, roles: [read@admin]}]\n", "cannot inherit from read@admin"},
		"no resource":      {members + "      roles: [{name: a, privileges: [{resource: {collection: c}, actions: [find]}]}]\n", "needs either a database or cluster: true"},
		"mechanism":        {members + "      users: [{name: app, password: x, roles: [read], mechanisms: [MD5]}]\n", `mechanism "MD5" of user app`},
		"no user":          {members + "      user: app\n", `user "app", whose login the uri should carry`},
		"no database":      {members + "      seed: [{collection: c, file: ok.json}]\n", "seed c needs a database"},
		"no file":          {members + "      database: d\n      seed: [{collection: c, file: absent.json}]\n", "cannot read blueprints/b/absent.json"},
		"bad schedule":     {members + "      database: d\n      backup: {schedule: often, folder: /b}\n", `schedule "often" of the backup`},
		"relative folder":  {members + "      database: d\n      backup: {folder: b}\n", `blueprint.yaml:14:15: folder "b" of the backup is no absolute path`},
		"bad recipient":    {members + "      database: d\n      backup: {folder: /b, recipient: age1x}\n", "no public key of age"},
		"own database":     {members + "      backup: {folder: /b, databases: [admin]}\n", `database "admin" cannot be backed up`},
		"bad key":          {members + "      database: d\n      indexes: [{collection: c, keys: {a: 2}}]\n", "blueprint.yaml:14:40: key a of an index of c: 1, -1,"},
		"index twice":      {members + "      database: d\n      indexes: [{collection: c, keys: {a: 1}}, {collection: c, keys: {a: 1}}]\n", "index d.c.a_1 stands twice"},
		"bad expiry":       {members + "      database: d\n      indexes: [{collection: c, keys: {a: 1, b: 1}, expireAfterSeconds: 1}]\n", "on an index with one key"},
		"bad file":         {members + "      database: d\n      seed: [{collection: c, file: bad.json}]\n", `bad.json:1: the document has no field "_id"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(c.text, map[string]string{"bad.json": `[{"id": 1}]`})
			require.ErrorContains(t, err, c.want)
		})
	}
}

// other is an instance of the same blueprint on another host.
func other(name, host, rest string) map[string]string {
	return map[string]string{"instances/" + name + ".yaml": "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: " + name +
		"}\nspec: {blueprint: b, host: " + host + rest + "}\n"}
}

func TestMembersOnSeveralHosts(t *testing.T) {
	const here, there = "{service: mongodb, on: deu-01, host: a.example}", "{service: mongodb, on: deu-02, host: \"b.example:27018\"}"
	fleet, err := load("      members: ["+here+", "+there+"]\n", other("deu2", "deu-02", ""))
	require.NoError(t, err)
	for _, name := range []string{"deu", "deu2"} {
		for _, node := range fleet.Instances[name].Graph.Nodes {
			if node.ID == "database" {
				require.Len(t, node.Needs, 1, "what runs on another host is no service here")
			}
		}
	}
	own := ", components: {database: {kind: MongoReplicaSet, root: {username: admin, password: x}, members: ["
	for name, c := range map[string]struct {
		members string
		others  map[string]string
		want    string
	}{
		"no instance there": {here + ", " + there, nil, "blueprint.yaml:12:66: member b.example:27018: no instance on host deu-02 runs it"},
		"another list": {
			here + ", " + there, other("deu2", "deu-02", own+there+", "+here+"]}}"),
			"instance deu2 (instances/deu2.yaml) has another rs0: rs0 of a.example:27017 on deu-01, b.example:27018 on deu-02 here, rs0 of b.example:27018 on deu-02, a.example:27017 on deu-01 there",
		},
		"no local one":       {there, other("deu2", "deu-02", ""), "no member of rs0 is on this instance's host deu-01"},
		"no host":            {"{service: mongodb, on: deu-01}, " + there, other("deu2", "deu-02", ""), "member mongodb needs a host (name:port)"},
		"neither":            {"{service: mongodb}, {priority: 0}", nil, "a member without a service needs a host"},
		"no service here":    {"{on: deu-01, host: a.example}, " + there, other("deu2", "deu-02", ""), "member a.example is on this instance's host deu-01: name the service"},
		"nobody initiates":   {"{host: c.example}, " + here, nil, "member c.example is the first that may become primary and no agent runs it"},
		"a secret":           {"{service: mongodb, on: \"${PASSWORD}\", host: a.example}, " + here, nil, "must be known before anything runs"},
		"same name on two":   {here + ", {service: mongodb, on: deu-02, host: a.example}", other("deu2", "deu-02", ""), "member a.example:27017 stands twice"},
		"an unknown service": {"{service: mongo, on: deu-01, host: a.example}, " + there, other("deu2", "deu-02", ""), `no service "mongo"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load("      members: ["+c.members+"]\n", c.others)
			require.ErrorContains(t, err, c.want)
		})
	}
}
