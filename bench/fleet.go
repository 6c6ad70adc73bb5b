package bench

import (
	"fmt"
	"strings"

	"dive-agent/testbed/gitserver"
)

// smallHub is a hub with nothing but its records and its API, so that it takes little of the machine.
const smallHub = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: small-hub}
spec:
  role: hub
  values:
    code: {required: true}
    project: {required: true}
    portOffset: {required: true}
    mongoImage: {required: true}
    backendImage: {required: true}
  secrets:
    MONGO_PASSWORD:       {generate: {length: 24}}
    MONGO_KEYFILE:        {generate: {kind: mongodb-keyfile}, file: {path: mongo-keyfile, mode: "0400", owner: 999, group: 999}}
    FEDERATION_ADMIN_KEY: {generate: {kind: token, length: 43}}
    HUB_TLS_CERT:         {provide: true, file: {path: hub-tls.crt, mode: "0444"}}
    HUB_TLS_KEY:          {provide: true, file: {path: hub-tls.key, mode: "0400", owner: 1000, group: 1000}}
  components:
    stack:
      kind: ComposeStack
      project: ${project}
      environment:
        INSTANCE_CODE: ${code}
        MONGO_IMAGE: ${mongoImage}
        BACKEND_IMAGE: ${backendImage}
        BACKEND_PORT: ${4000 + portOffset}
        MONGO_PASSWORD: ${MONGO_PASSWORD}
        MONGODB_URL: ${database.uri}
        FEDERATION_ADMIN_KEY: ${FEDERATION_ADMIN_KEY}
    database:
      kind: MongoReplicaSet
      name: rs0
      members: [{service: mongodb}]
      root: {username: admin, password: "${MONGO_PASSWORD}"}
      database: dive-v3
    federation:
      kind: SpokeApprovals
      adminKey: ${FEDERATION_ADMIN_KEY}
      service: backend
`

const mongodbService = `services:
  mongodb:
    image: ${MONGO_IMAGE}
    init: true
    restart: unless-stopped
    command: [mongod, --replSet, rs0, --keyFile, /etc/mongo-keyfile, --bind_ip_all]
    environment: {MONGO_INITDB_ROOT_USERNAME: admin, MONGO_INITDB_ROOT_PASSWORD: "${MONGO_PASSWORD}"}
    volumes: ["mongodb:/data/db", "${SECRETS_DIR}/mongo-keyfile:/etc/mongo-keyfile:ro"]
    healthcheck: {test: [CMD, bash, -c, "exec 3<>/dev/tcp/$$HOSTNAME/27017"], interval: 2s, timeout: 5s, retries: 30, start_period: 30s}
`

const smallHubCompose = mongodbService + `  backend:
    image: ${BACKEND_IMAGE}
    init: true
    restart: unless-stopped
    command: [hub]
    environment:
      PORT: "4000"
      NODE_ENV: production
      INSTANCE_CODE: ${INSTANCE_CODE}
      TLS_CERT_FILE: /etc/dive/tls/hub-tls.crt
      TLS_KEY_FILE: /etc/dive/tls/hub-tls.key
      FEDERATION_ADMIN_KEY: ${FEDERATION_ADMIN_KEY}
      MONGODB_URL: ${MONGODB_URL}
    volumes: ["${SECRETS_DIR}/hub-tls.crt:/etc/dive/tls/hub-tls.crt:ro", "${SECRETS_DIR}/hub-tls.key:/etc/dive/tls/hub-tls.key:ro"]
    ports: ["${BACKEND_PORT}:4000"]
    healthcheck: {test: [CMD, services, healthcheck], interval: 2s, timeout: 5s, retries: 15, start_period: 20s}
volumes:
  mongodb: {}
`

// smallSet is a replica set of one member with a user for its services, and nothing else.
const smallSet = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: small-set}
spec:
  role: spoke
  values:
    project: {required: true}
    mongoImage: {required: true}
  secrets:
    MONGO_PASSWORD: {generate: {length: 24}}
    APP_PASSWORD:   {generate: {length: 24}}
    MONGO_KEYFILE:  {generate: {kind: mongodb-keyfile}, file: {path: mongo-keyfile, mode: "0400", owner: 999, group: 999}}
  components:
    stack:
      kind: ComposeStack
      project: ${project}
      environment: {MONGO_IMAGE: "${mongoImage}", MONGO_PASSWORD: "${MONGO_PASSWORD}"}
    database:
      kind: MongoReplicaSet
      name: rs0
      members: [{service: mongodb}]
      root: {username: admin, password: "${MONGO_PASSWORD}"}
      database: dive
      users: [{name: app, password: "${APP_PASSWORD}", roles: [readWrite@dive]}]
`

// threeSet makes smallSet's blueprint and Compose file those of a set of three members.
func threeSet() (blueprint, compose string) {
	blueprint = strings.NewReplacer("small-set", "three-set",
		"[{service: mongodb}]", "[{service: mongodb}, {service: mongodb-2}, {service: mongodb-3}]").Replace(smallSet)
	_, service, _ := strings.Cut(mongodbService, "services:\n")
	compose = mongodbService
	for _, name := range []string{"mongodb-2", "mongodb-3"} {
		compose += strings.NewReplacer("  mongodb:\n", "  "+name+":\n", "mongodb:/data/db", name+":/data/db").Replace(service)
	}
	return blueprint, compose + "volumes:\n  mongodb: {}\n  mongodb-2: {}\n  mongodb-3: {}\n"
}

// livingSet makes a set of three members that can be upgraded of the one that cannot.
func livingSet(blueprint, compose string) (string, string) {
	blueprint = strings.NewReplacer("{name: three-set}", "{name: lived-in-set}",
		"    mongoImage: {required: true}\n", "    mongoImage: {required: true}\n    fcv: {required: true}\n    label: {required: true}\n",
		`MONGO_PASSWORD: "${MONGO_PASSWORD}"}`, `MONGO_PASSWORD: "${MONGO_PASSWORD}", LABEL: "${label}"}`,
	).Replace(blueprint) + "      featureCompatibilityVersion: ${fcv}\n      settings: {electionTimeoutMillis: 3000}\n"
	return blueprint, strings.ReplaceAll(compose, "environment: {", `stop_grace_period: 60s
    environment: {LABEL: "${LABEL}", `)
}

func addSmallBlueprints(files gitserver.Files) {
	files["blueprints/small-hub/blueprint.yaml"] = smallHub
	files["blueprints/small-hub/compose.yaml"] = smallHubCompose
	files["blueprints/small-set/blueprint.yaml"] = smallSet
	files["blueprints/small-set/compose.yaml"] = mongodbService + "volumes:\n  mongodb: {}\n"
	set, compose := threeSet()
	files["blueprints/lived-in-set/blueprint.yaml"], files["blueprints/lived-in-set/compose.yaml"] = livingSet(set, compose)
	alone, _, _ := strings.Cut(set, "    database:\n") // the same servers, and nobody who makes a set of them
	files["blueprints/three-set/blueprint.yaml"], files["blueprints/three-set/compose.yaml"] = set, compose
	files["blueprints/three-alone/blueprint.yaml"] = strings.Replace(alone, "{name: three-set}", "{name: three-alone}", 1)
	files["blueprints/three-alone/compose.yaml"] = compose
}

const (
	spokeBlueprint = "blueprints/spoke/blueprint.yaml"
	spokeCompose   = "blueprints/spoke/compose.yaml"
)

// The services of the spoke that are removed, by their restart policy.
var healed = []struct{ policy, service string }{{"no", "frontend"}, {"always", "kas"}, {"unless-stopped", "redis"}}

// prepareSpoke gives services of the example's spoke other restart policies, and keeps the scheduled look at the realm
// out of the time in which nothing is to happen.
func prepareSpoke(files gitserver.Files) error {
	for _, h := range healed {
		if h.policy == "unless-stopped" {
			continue // what all of the example's services have
		}
		name := "    container_name: ${PROJECT:-dive-spoke}-" + h.service + "\n"
		if err := edit(files, spokeCompose, name, fmt.Sprintf("%s    restart: %q\n", name, h.policy)); err != nil {
			return err
		}
	}
	if err := edit(files, spokeCompose, frontendMark, frontendMark+changeOf("first")); err != nil {
		return err
	}
	return edit(files, spokeBlueprint, "      module: terraform\n", "      module: terraform\n      driftSchedule: \"@every 24h\"\n")
}

// frontendMark is where the frontend's environment begins.
const frontendMark = "      PORT: \"3000\"\n"

// changeOf is a variable of the frontend's environment that means nothing.
func changeOf(value string) string { return "      BENCH: \"" + value + "\"\n" }

func hostManifest(name string) string {
	return "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: " + name + "}\nspec: {}\n"
}

func instanceManifest(name, blueprint, host string, values ...string) string {
	return fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: %s}\nspec:\n  blueprint: %s\n  host: %s\n  values: {%s}\n",
		name, blueprint, host, strings.Join(values, ", "))
}
