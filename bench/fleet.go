package bench

import (
	"fmt"
	"strings"

	"dive-agent/testbed/federation"
	"dive-agent/testbed/gitserver"
)

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
	_, service, _ := strings.Cut(federation.Mongod, "services:\n")
	compose = federation.Mongod
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
	federation.AddHub(files)
	files["blueprints/small-set/blueprint.yaml"] = smallSet
	files["blueprints/small-set/compose.yaml"] = federation.Mongod + "volumes:\n  mongodb: {}\n"
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

// withoutCertificates takes from the example's spoke what hosts sign for each other: those of the bench are not enrolled. Its key access
// service speaks plain HTTP.
func withoutCertificates(files gitserver.Files) error {
	const kas = "        - name: kas # by mutual TLS: who shows no certificate of the fleet's authority must be refused\n"
	for _, cut := range []struct{ from, to, with string }{
		{"        KAS_CERTIFICATE: ${", "\n", ""},
		{"        FLEET_CA: ${", "\n", ""},
		{"    certificate:\n      kind: Certificate", "      publish: [request]\n\n", ""},
		{kas, "            mutual: true\n", "        - {name: kas, http: {service: kas, port: 9000, path: /health}}\n"},
		{"        - name: kas-certificate\n", "          certificate: {service: kas, port: 9000, minDays: 20, ca: \"${instances.usa.authority.ca}\"}\n", ""},
	} {
		text := files[spokeBlueprint]
		begin := strings.Index(text, cut.from)
		if begin < 0 {
			return fmt.Errorf("%s of the examples has no %q", spokeBlueprint, cut.from)
		}
		end := strings.Index(text[begin:], cut.to)
		if end < 0 {
			return fmt.Errorf("%s of the examples has no %q after %q", spokeBlueprint, cut.to, cut.from)
		}
		if err := edit(files, spokeBlueprint, text[begin:begin+end+len(cut.to)], cut.with); err != nil {
			return err
		}
	}
	return nil
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
