package compose

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// otherKind stands for a component of another kind with an output.
type otherKind struct{}

func (*otherKind) Outputs() []desired.Output { return []desired.Output{{Name: "uri", Secret: true}} }

// talkingKind stands for one that talks to the one container of a service.
type talkingKind struct {
	Service string `yaml:"service"`
	At      desired.Position
}

func (k *talkingKind) Needs(*desired.Check) []desired.Need {
	return []desired.Need{{Part: k.Service, Single: true, Position: k.At, Why: "the data is in it"}}
}

var kinds = []desired.Kind{
	Kind, {Name: "Other", Doc: "Another.", New: func() any { return &otherKind{} }}, {Name: "Talking", Doc: "A third.", New: func() any { return &talkingKind{} }},
}

// A service with replicas is none to a component that means one container.
func TestReplicasOfWhatIsSingle(t *testing.T) {
	for scale, want := range map[string]string{
		"scale: 1": "", "deploy: {replicas: 2}": `blueprints/spoke/blueprint.yaml:13:14: service "db" has 2 replicas, and the data is in it: it may have one`,
		"scale: 3": `blueprints/spoke/blueprint.yaml:13:14: service "db" has 3 replicas, and the data is in it: it may have one`,
	} {
		_, problems := repository(t, "      files: [compose.yaml]\n    talking: {kind: Talking, service: db}\n", "services: {db: {image: \"db:1\", "+scale+"}}\n", nil)
		if want == "" {
			require.Empty(t, problems)
			continue
		}
		require.Len(t, problems, 1)
		require.Equal(t, want, problems.Error())
	}
}

// repository writes a fleet with one instance of a blueprint and loads it.
func repository(t *testing.T, component, composeFile string, more map[string]string) (*desired.Fleet, desired.Problems) {
	t.Helper()
	return repositoryOn(t, nil, component, composeFile, more)
}

// repositoryOn is repository for a host that allows something.
func repositoryOn(t *testing.T, allow []string, component, composeFile string, more map[string]string) (*desired.Fleet, desired.Problems) {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"fleet.yaml":     "apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec: {}\n",
		"hosts/one.yaml": "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: one}\nspec: {}\n",
		"instances/deu.yaml": "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: deu}\n" +
			"spec: {blueprint: spoke, host: one, values: {offset: 11}}\n",
		"blueprints/spoke/blueprint.yaml": "apiVersion: dive/v1alpha1\nkind: Blueprint\nmetadata: {name: spoke}\n" +
			"spec:\n  role: spoke\n  values: {offset: 0}\n  secrets: {PASSWORD: {generate: {length: 24}}}\n  components:\n" +
			"    database: {kind: Other}\n    stack:\n      kind: ComposeStack\n" + component,
		"blueprints/spoke/compose.yaml": composeFile,
	}
	for name, text := range more {
		files[name] = text
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	fleet, err := desired.Load(dir, desired.Options{Kinds: kinds, Allow: func(string) []string { return allow }})
	var problems desired.Problems
	if err != nil {
		require.True(t, errors.As(err, &problems), "%v", err)
	}
	return fleet, problems
}

func TestPartsFollowTheData(t *testing.T) {
	fleet, problems := repository(t, `      environment: {URI: "${database.uri}", PORT: "${4000 + offset}", PASSWORD: "${PASSWORD}"}
      after: {front: [database]}
`, `
services:
  db: {image: "db:1", environment: {P: "${PASSWORD}"}}
  init: {image: "init:1", depends_on: {db: {condition: service_healthy}}}
  back: {image: "back:1", environment: ["URI"], container_name: back-deu, ports: ["${PORT}:80", "127.0.0.1:9000-9001:9000-9001/udp"], depends_on: {init: {condition: service_completed_successfully}, db: {condition: service_started}}}
  front: {image: "front:1", configs: [c]}
  off: {image: "off:1", profiles: [debug]}
configs: {c: {content: "at ${URI}"}}
`, nil)
	require.Empty(t, problems)
	needs := map[string][]string{}
	for _, node := range fleet.Instances["deu"].Graph.Nodes {
		list := []string{}
		for _, edge := range node.Needs {
			word := edge.On
			if edge.Output != "" {
				word += "." + edge.Output
			}
			if edge.Started {
				word += " started"
			}
			list = append(list, word)
		}
		needs[node.ID] = list
	}
	require.NotContains(t, needs, "stack/off")
	require.Empty(t, needs["stack/@resources"])
	require.ElementsMatch(t, []string{"stack/@resources"}, needs["stack/db"])
	require.ElementsMatch(t, []string{"stack/@resources", "stack/db"}, needs["stack/init"])
	require.ElementsMatch(t, []string{"stack/@resources", "stack/init", "stack/db started", "database.uri"}, needs["stack/back"])
	require.Subset(t, needs["stack/front"], []string{"stack/@resources", "database.uri"})
}

// A value of another instance is awaited by the services that use it, and by what pulls images where a name is made of it.
func TestServicesThatUseValuesOfOtherInstances(t *testing.T) {
	usa := "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: usa}\nspec: {role: hub, host: one, components: {database: {kind: Other, publish: [uri]}}}\n"
	fleet, problems := repository(t, `      environment: {HUB: "at ${instances.usa.database.uri}", TAG: "${instances.usa.database.uri}", REST: "${[for s in fleet.spokes : s.name]}", NOBODY: "${instances.usa.database.uri}"}
`, `
services:
  front: {image: "front:1", environment: [HUB]}
  back: {image: "back:${TAG}"}
  db: {image: "db:1"}
`, map[string]string{"instances/usa.yaml": usa})
	require.Empty(t, problems)
	imports := fleet.Instances["deu"].Imports()
	require.Len(t, imports, 1)
	require.Equal(t, "instances.usa.database.uri", imports[0].String())
	require.ElementsMatch(t, []string{"stack/@resources", "stack/back", "stack/front"}, imports[0].Nodes)
	require.True(t, imports[0].Secret)
}

func TestClaims(t *testing.T) {
	const twice = `
services:
  back: {image: "back:1", container_name: back, ports: ["${PORT}:80", "127.0.0.1:9000:9000"]}
`
	_, problems := repository(t, "      environment: {PORT: \"${4000 + offset}\"}\n", twice, map[string]string{
		"instances/fra.yaml": "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: fra}\nspec: {blueprint: spoke, host: one, values: {offset: 11}}\n",
	})
	text := problems.Error()
	for _, want := range []string{"4011", "9000", "container name back"} {
		require.Contains(t, text, want)
	}
	require.Contains(t, text, "deu/back")
}

// Every mistake names its place in the Compose file.
func TestMistakesInTheComposeFile(t *testing.T) {
	cases := []struct{ name, component, compose, want string }{
		{"unset variable", "", "services:\n  a:\n    image: \"x:${VERSION}\"\n", "compose.yaml:3:12: variable VERSION is not set"},
		{"unset in shell", "", "services:\n  a:\n    image: x:1\n    command: [sh, -c, \"echo $HOME\"]\n", "compose.yaml:4:23: variable HOME is not set: add it to environment of component stack, or write $$ for a plain $"},
		{"unknown key", "", "services:\n  a:\n    image: x:1\n    imagee: y\n", `compose.yaml:4:5: unknown key "imagee" in services.a, did you mean "image"?`},
		{"broken YAML", "", "services:\n  a: [\n  b: x\n", "compose.yaml:2:3: did not find expected"},
		{"wrong type", "", "services:\n  a:\n    image: x:1\n    ports: {x: 1}\n", "compose.yaml:4:5: services.a.ports must be a array"},
		{"build without a Dockerfile", "", "services:\n  a:\n    build: .\n", "compose.yaml:3:5: services.a.build: there is no dockerfile Dockerfile in the context"},
		{"build from outside", "", "services:\n  a:\n    build: ../..\n", "compose.yaml:3:5: services.a.build: context ../..: the path leaves the source folder"},
		{"build from Git", "", "services:\n  a:\n    build: https://example.org/x.git\n", "compose.yaml:3:5: services.a.build: context https://example.org/x.git: remote files are not read"},
		{"dockerfile from outside", "", "services:\n  a:\n    build: {context: ., dockerfile: ../../fleet.yaml}\n", "compose.yaml:3:5: services.a.build: dockerfile ../../fleet.yaml lies outside of the context"},
		{"build with more than there is", "", "services:\n  a:\n    build: {context: ., dockerfile_inline: FROM scratch, network: host, privileged: true}\n", "compose.yaml:3:58: service a: build.network is not done by the engine's own builder"},
		{"no replicas", "", "services:\n  a:\n    image: x:1\n    deploy: {replicas: 0}\n", "compose.yaml:4:5: service a has 0 replicas: give 1 to 100, and turn a service off by a profile"},
		{"replicas on one port", "", "services:\n  a:\n    image: x:1\n    scale: 3\n    ports: [\"8080-8081:80\"]\n", "compose.yaml:4:5: service a cannot have 3 replicas: it publishes port 8080-8081 of the host"},
		{"replicas under one name", "", "services:\n  a:\n    image: x:1\n    deploy: {replicas: 2}\n    container_name: nn\n", "as container name must be unique"},
		{"update of nobody", "      update: {b: {order: stop-first}}\n", "services:\n  a:\n    image: x:1\n", "blueprint.yaml:12:19: update: the Compose file has no active service b"},
		{"start-first with a volume", "      update: {a: {order: start-first}}\n", "services:\n  a:\n    image: x:1\n    volumes: [\"data:/d\"]\nvolumes: {data: {}}\n", "blueprint.yaml:12:27: service a cannot start beside its old container: it writes to volume data"},
		{"start-first with a port", "      update: {a: {order: start-first}}\n", "services:\n  a:\n    image: x:1\n    ports: [\"8080:80\"]\n", "it publishes port 8080 of the host"},
		{"start-first with an address", "      update: {a: {order: start-first}}\n", "services:\n  a:\n    image: x:1\n    networks: {n: {ipv4_address: 10.1.1.9}}\nnetworks: {n: {ipam: {config: [{subnet: 10.1.1.0/24}]}}}\n", "it has the address 10.1.1.9 in network n"},
		{"start-first in the host's network", "      update: {a: {order: start-first}}\n", "services:\n  a:\n    image: x:1\n    network_mode: host\n", "it runs in the network of host"},
		{"parallelism below none", "      update: {a: {parallelism: -1}}\n", "services:\n  a:\n    image: x:1\n", "parallelism is -1"},
		{"unknown order", "      update: {a: {order: both}}\n", "services:\n  a:\n    image: x:1\n", "order"},
		{"unknown failure action", "", "services:\n  a:\n    image: x:1\n    deploy: {update_config: {failure_action: panic}}\n", "compose.yaml:4:14: update_config of service a: failure_action \"panic\" is none of rollback, pause, continue"},
		{"failure ratio", "", "services:\n  a:\n    image: x:1\n    deploy: {update_config: {max_failure_ratio: 0.5}}\n", "max_failure_ratio is not supported"},
		{"same container name", "", "services:\n  a:\n    image: x:1\n    container_name: nn\n  b:\n    image: x:1\n    container_name: nn\n", "compose.yaml:7:5: container_name nn is taken by service a"},
		{"volume of one letter", "", "services:\n  a:\n    image: x:1\n    volumes: [\"v:/data\"]\nvolumes: {v: {}}\n", "compose.yaml:4:5: service a: Compose takes v:/data for a drive of Windows"},
		{"no external", "      makeExternal: [net]\n", "services:\n  a:\n    image: x:1\nnetworks: {net: {}, out: {external: true}}\n", "makeExternal: net is no external network or volume; the Compose file has: out"},
		{"Windows", "", "services:\n  a:\n    image: x:1\n    cpu_percent: 50\n", "compose.yaml:4:5: service a: cpu_percent is for Windows"},
		{"Swarm's config", "", "services:\n  a: {image: \"x:1\", configs: [c]}\nconfigs:\n  c: {external: true}\n", "compose.yaml:4:3: config c is kept by Swarm"},
		{"Swarm's secret", "", "services:\n  a: {image: \"x:1\", secrets: [c]}\nsecrets:\n  c: {external: true}\n", "compose.yaml:4:3: secret c is kept by Swarm"},
		{"undefined service", "", "services:\n  a:\n    image: x:1\n    depends_on: [b]\n", `compose.yaml:4:18: service a: depends_on names service "b", and there is none`},
		{"bind that leaves", "", "services:\n  a:\n    image: x:1\n    volumes: [\"../../../etc:/e\"]\n", "the path leaves the source folder"},
		{"extends that leaves", "", "services:\n  a:\n    extends: {file: ../../../etc/passwd.yaml, service: a}\n", "the path leaves the source folder"},
		{"init containers", "", "services:\n  a:\n    image: x:1\n    pre_start: [{command: [touch, x]}]\n", "compose.yaml:4:5: service a has pre_start containers"},
		{"alias bomb", "", bomb(), "once its aliases are expanded"},
		{"after an unknown service", "      after: {nobody: [database]}\n", "services:\n  a:\n    image: x:1\n", "the Compose file has no active service nobody"},
		{"after an unknown component", "      after: {a: [nothing]}\n", "services:\n  a:\n    image: x:1\n", "nothing"},
		{"no such file", "      files: [other.yaml]\n", "services: {}\n", "there is no Compose file blueprints/spoke/other.yaml"},
		{"project name", "      project: Not A Name\n", "services:\n  a:\n    image: x:1\n", "use lower-case letters"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, problems := repository(t, c.component, c.compose, nil)
			require.NotEmpty(t, problems)
			require.Contains(t, problems.Error(), c.want)
			require.NotContains(t, problems.Error(), os.TempDir())
		})
	}
}

// All that is wrong is told at once, each with its place, in included files too.
func TestAllMistakesAtOnce(t *testing.T) {
	_, problems := repository(t, "", `include: [more/compose.yaml]
x-base: &base
  restrat: always
services:
  a:
    <<: *base
    image: "x:${VERSION}"
    ports: {x: 1}
  b:
    imagee: x
    healthcheck: {tets: [CMD, "true"]}
volums: {}
`, map[string]string{"blueprints/spoke/more/compose.yaml": "services:\n  c:\n    image: x:1\n    volume: [a]\n"})
	var told []string
	for _, p := range problems {
		told = append(told, p.Position.String()+" "+p.Message)
	}
	for _, want := range []string{
		"blueprints/spoke/compose.yaml:3:3 unknown key \"restrat\" in services.a, did you mean \"restart\"?",
		"blueprints/spoke/compose.yaml:7:12 variable VERSION is not set: add it to environment of component stack, or write $$ for a plain $",
		"blueprints/spoke/compose.yaml:8:5 services.a.ports must be a array",
		"blueprints/spoke/compose.yaml:10:5 unknown key \"imagee\" in services.b, did you mean \"image\"?",
		"blueprints/spoke/compose.yaml:11:19 unknown key \"tets\" in services.b.healthcheck",
		"blueprints/spoke/compose.yaml:12:1 unknown key \"volums\", did you mean \"volumes\"?",
		"blueprints/spoke/more/compose.yaml:4:5 unknown key \"volume\" in services.c, did you mean \"volumes\"?",
	} {
		require.Contains(t, told, want)
	}
	require.Len(t, problems, 7)
}

// So are names that nothing has.
func TestAllNamesThatNothingHas(t *testing.T) {
	_, problems := repository(t, "", `services:
  a:
    image: x:1
    networks: {fornt: {}, default: {}}
    depends_on: {cache: {condition: service_started}, gone: {condition: service_started, required: false}}
    volumes: ["dat:/data", "./x:/x", "/anonymous", {type: volume, source: long, target: /l}]
  b:
    image: x:1
    configs: [conf, {source: other}]
    secrets: [s]
    network_mode: "service:database"
networks: {front: {}}
volumes: {data: {}}
configs: {conf: {content: x}}
`, nil)
	var told []string
	for _, p := range problems {
		told = append(told, p.Position.String()+" "+p.Message)
	}
	require.Equal(t, []string{
		`blueprints/spoke/compose.yaml:4:16 service a: networks names network "fornt", and there is none, did you mean "front"?`,
		`blueprints/spoke/compose.yaml:5:18 service a: depends_on names service "cache", and there is none`,
		`blueprints/spoke/compose.yaml:6:15 service a: volumes names volume "dat", and there is none, did you mean "data"?`,
		`blueprints/spoke/compose.yaml:6:75 service a: volumes names volume "long", and there is none`,
		`blueprints/spoke/compose.yaml:9:30 service b: configs names config "other", and there is none`,
		`blueprints/spoke/compose.yaml:10:15 service b: secrets names secret "s", and there is none`,
		`blueprints/spoke/compose.yaml:11:19 service b: network_mode names service "database", and there is none`,
	}, told)
}

func bomb() string {
	lines := []string{"x-0: &a0 [x, x, x, x, x, x, x, x, x, x]"}
	for i := 1; i < 9; i++ {
		previous := string(rune('0' + i - 1))
		lines = append(lines, "x-"+string(rune('0'+i))+": &a"+string(rune('0'+i))+" ["+strings.TrimSuffix(strings.Repeat("*a"+previous+", ", 10), ", ")+"]")
	}
	return strings.Join(append(lines, "services: {a: {image: \"x:1\"}}"), "\n")
}

// TestAPathThatIsNotKnownYetIsNoVolume: in the short form a source is told from a volume's name by its first character.
func TestAPathThatIsNotKnownYetIsNoVolume(t *testing.T) {
	component := "      environment: {FILE: \"${database.uri}\", DIR: \"${instance.project_dir}\", URI: \"${database.uri}\"}\n"
	fleet, problems := repository(t, component, `
services:
  one: {image: "one:1", volumes: ["${FILE}:/file:ro", "$DIR/conf:/conf", "data:/data"], environment: {URI: "${URI}"}}
volumes: {data: {}}
`, nil)
	require.Empty(t, problems)
	require.NotNil(t, fleet.Instances["deu"].Graph)
	_, problems = repository(t, component, `services: {one: {image: "one:1", volumes: ["dat:/data"], environment: ["URI"]}}`, nil)
	require.Len(t, problems, 1)
	require.Contains(t, problems[0].Message, `volumes names volume "dat", and there is none`)
}

// What may be changed by hand is named in the words of the reasons, for services that there are.
func TestDriftSettingsAreChecked(t *testing.T) {
	_, problems := repository(t, `      drift: correct
      ignore: [memory limit, environment LOG, label, Memory_Limit, environmnt X]
      services:
        web: {drift: report, ignore: [CPU limit, mem]}
        off: {drift: ignore}
        wbe: {drift: report}
`, "services:\n  web: {image: \"web:1\"}\n  off: {image: \"off:1\", profiles: [debug]}\n", nil)
	texts := make([]string, 0, len(problems))
	for _, p := range problems {
		texts = append(texts, p.String())
	}
	golden(t, "drift-settings.golden", strings.Join(texts, "\n")+"\n")
	_, problems = repository(t, "      drift: repair\n", "services: {web: {image: \"web:1\"}}\n", nil)
	require.Len(t, problems, 1)
	require.Contains(t, problems[0].String(), "drift")
}

func TestMaxRestartsIsChecked(t *testing.T) {
	_, problems := repository(t, "      maxRestarts: -1\n      services: {web: {maxRestarts: -2}, other: {maxRestarts: 0}}\n",
		"services:\n  web: {image: \"web:1\"}\n  other: {image: \"other:1\"}\n", nil)
	require.Len(t, problems, 2)
	require.Contains(t, problems[0].String(), "blueprint.yaml:12:20: maxRestarts: it counts from 1; 0: a service is never given up")
	require.Contains(t, problems[1].String(), "blueprint.yaml:13:37: maxRestarts: it counts from 1; 0: service web is never given up")
}

// A profile is chosen by values: what it turns off is no node, and waits for nothing.
func TestProfilesByValues(t *testing.T) {
	const file = "services:\n  web: {image: \"web:1\"}\n  debug: {image: \"debug:1\", profiles: [debug], environment: [\"URI\"]}\n"
	nodes := func(component string) (ids []string) {
		fleet, problems := repository(t, component, file, nil)
		require.Empty(t, problems)
		for _, node := range fleet.Instances["deu"].Graph.Nodes {
			ids = append(ids, node.ID)
		}
		return ids
	}
	const uses = "      environment: {URI: \"${database.uri}\"}\n"
	require.NotContains(t, nodes(uses+"      profiles: ['${offset == 0 ? \"debug\" : \"\"}']\n"), "stack/debug")
	require.Contains(t, nodes(uses+"      profiles: ['${offset == 11 ? \"debug\" : \"\"}']\n"), "stack/debug")
	for profile, want := range map[string]string{
		"${database.uri}": `12:17: profiles: the profile "${database.uri}" must be known from the start and no secret`,
		"${PASSWORD}":     `12:17: profiles: the profile "${PASSWORD}" must be known from the start and no secret`,
	} {
		_, problems := repository(t, "      profiles: [\""+profile+"\"]\n", file, nil)
		require.NotEmpty(t, problems)
		require.Contains(t, problems.Error(), want)
	}
}
