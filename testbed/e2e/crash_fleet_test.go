package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dive-agent/testbed"
)

// replicas is a manifest of a replica set that can grow, shrink, be renamed and upgraded.
type replicas struct {
	members []string // host names: mongodb-N, or db-N, another name of the same container
	image   string
}

const replicasBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: trio}
spec:
  role: spoke
  values:
    project: {required: true}
    image: {required: true}
  secrets:
    APP_PASSWORD: {generate: {length: 24}}
    WRITER_PASSWORD: {generate: {length: 24}}
    MONGO_PASSWORD: {generate: {length: 24}}
    MONGO_KEYFILE: {generate: {kind: mongodb-keyfile}, file: {path: mongo-keyfile, mode: "0400", owner: 999}}
  components:
    stack:
      kind: ComposeStack
      project: ${project}
      healthTimeout: 60s
      environment:
        IMAGE: ${image}
        MONGO_PASSWORD: ${MONGO_PASSWORD}
    database:
      kind: MongoReplicaSet
      members: [%s]
      root: {username: admin, password: "${MONGO_PASSWORD}"}
      users:
        - {name: app, password: "${APP_PASSWORD}", roles: [readWrite@dive]}
        - {name: writer, password: "${WRITER_PASSWORD}", roles: [readWrite@dive]}
      settings: {heartbeatIntervalMillis: 500}
      keyfile: ${MONGO_KEYFILE}
`

const replicasMember = `  mongodb-%[1]d:
    <<: *mongod
    volumes: ["data-%[1]d:/data/db", "${SECRETS_DIR}/mongo-keyfile:/etc/mongo-keyfile:ro"]
    networks: {default: {aliases: [db-%[1]d]}}
`

// serviceOf is the service that runs the member of a host name.
func serviceOf(host string) string {
	host, _, _ = strings.Cut(host, ":")
	if number, other := strings.CutPrefix(host, "db-"); other {
		return "mongodb-" + number
	}
	return host
}

// replicas are the files of the fleet for a manifest.
func (s *small) replicas(r replicas) map[string]string {
	var members []string
	var services, volumes strings.Builder
	for i, host := range r.members {
		members = append(members, fmt.Sprintf("{service: mongodb-%d, host: %s}", i+1, host))
		fmt.Fprintf(&services, replicasMember, i+1)
		fmt.Fprintf(&volumes, "  data-%d: {}\n", i+1)
	}
	files := s.trio(r.image, "")
	files["blueprints/trio/blueprint.yaml"] = fmt.Sprintf(replicasBlueprint, strings.Join(members, ", "))
	files["blueprints/trio/compose.yaml"] = trioCompose + services.String() + "volumes:\n" + volumes.String()
	files["instances/one.yaml"] = strings.Replace(s.instance(", image: "+r.image, ""), "blueprint: small", "blueprint: trio", 1)
	return files
}

// scene is one change of what a replica set should be.
type scene struct {
	name   string
	change func(r *replicas) // of the manifest, which is merged; nil: it stays
	rotate string            // secret that gets another value; empty: none
}

// numbered gives the hosts mongodb-1 to mongodb-n.
func numbered(n int) (hosts []string) {
	for i := range n {
		hosts = append(hosts, fmt.Sprintf("mongodb-%d", i+1))
	}
	return hosts
}

func members(n int) func(*replicas) { return func(r *replicas) { r.members = numbered(n) } }

// scenes go through the life of a set: small, large, smaller again, under another name, with other passwords, upgraded.
func scenes(t *testing.T) []scene {
	image := testbed.Image(t, testbed.Mongod6027)
	return []scene{
		{name: "initiate one", change: members(1)},
		{name: "grow to three", change: members(3)},
		{name: "grow to five", change: members(5)},
		{name: "shrink to three", change: members(3)},
		{name: "rename a host", change: func(r *replicas) { r.members[1] = "db-2" }},
		{name: "rotate a user's password", rotate: "APP_PASSWORD"},
		{name: "rotate the administrator's password", rotate: "MONGO_PASSWORD"},
		{name: "upgrade", change: func(r *replicas) { r.image = image }},
	}
}

// scenesNamed picks scenes.
func scenesNamed(t *testing.T, names ...string) []scene {
	return slices.DeleteFunc(scenes(t), func(s scene) bool { return !slices.Contains(names, s.name) })
}
