package mongo_test

import (
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
		parts = append(parts, desired.Part{Name: name})
	}
	return parts
}

// load reads an instance with the component `database` as given.
func load(database string, files map[string]string) (*desired.Fleet, error) {
	tree := fstest.MapFS{
		"fleet.yaml":           {Data: []byte("apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\n")},
		"hosts/deu-01.yaml":    {Data: []byte("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: deu-01}\nspec: {}\n")},
		"instances/deu.yaml":   {Data: []byte("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: deu}\nspec: {blueprint: b, host: deu-01}\n")},
		"blueprints/b/readme":  {Data: []byte("b")},
		"blueprints/b/ok.json": {Data: []byte(`[{"_id": 1}]`)},
	}
	for name, text := range files {
		tree["blueprints/b/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	tree["blueprints/b/blueprint.yaml"] = &fstest.MapFile{Data: []byte(`apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: b}
spec:
  role: spoke
  secrets: {PASSWORD: {generate: {length: 24}}}
  components:
    stack: {kind: Stack, services: [mongodb, mongodb-2]}
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
