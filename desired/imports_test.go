package desired_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zclconf/go-cty/cty"

	"dive-agent/desired"
)

// realmSpec publishes outputs of all sorts, one of them for each instance that reads it.
type realmSpec struct {
	Variables map[string]desired.Expr `yaml:"variables"`
	Spare     desired.Expr            `yaml:"spare" late:"true"`
}

func (*realmSpec) Outputs() []desired.Output {
	return []desired.Output{
		{Name: "url"}, {Name: "secret", Secret: true}, {Name: "token", Secret: true, PerInstance: true}, {Name: "spare"},
	}
}

var crossing = append(slices.Clone(kinds), desired.Kind{Name: "Realm", New: func() any { return new(realmSpec) }})

const hubWithRealm = `apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: usa}
spec:
  role: hub
  host: hub-host
  components:
    identity:
      kind: Realm
      publish: [url, secret, token]
    partners:
      kind: Realm
      variables:
        PARTNERS: %s
`

// spokeWithRealm is a spoke on a host of its own.
func spokeWithRealm(name, publish string, uses ...string) string {
	text := fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: %s}\nspec:\n  role: spoke\n  host: %s-host\n  values: {code: %s}\n  components:\n    identity:\n      kind: Realm\n      publish: [%s]\n    broker:\n      kind: Realm\n      variables:\n        NONE: x\n", name, name, strings.ToUpper(name), publish)
	for i, use := range uses {
		text += fmt.Sprintf("        USE%d: %s\n", i, use)
	}
	return text
}

func crossingFiles(over map[string]string) map[string]string {
	files := map[string]string{
		"fleet.yaml":     "apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: coalition}\n",
		"hosts/one.yaml": "", "blueprints/hub/blueprint.yaml": "", "blueprints/spoke/blueprint.yaml": "",
		"instances/usa.yaml": fmt.Sprintf(hubWithRealm, "none"),
		"instances/deu.yaml": spokeWithRealm("deu", "url, secret"),
		"instances/fra.yaml": spokeWithRealm("fra", "url"),
	}
	for _, host := range []string{"hub", "deu", "fra"} {
		files["hosts/"+host+"-host.yaml"] = "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: " + host + "-host}\nspec: {}\n"
	}
	for name, text := range over {
		files[name] = text
	}
	return files
}

func loadCrossing(t *testing.T, over map[string]string) *desired.Fleet {
	t.Helper()
	fleet, err := desired.LoadFS(tree(crossingFiles(over)), desired.Options{Kinds: crossing})
	require.NoError(t, err)
	return fleet
}

func crossingProblems(t *testing.T, over map[string]string) (lines []string) {
	t.Helper()
	_, err := desired.LoadFS(tree(crossingFiles(over)), desired.Options{Kinds: crossing})
	var problems desired.Problems
	if errors.As(err, &problems) {
		for _, p := range problems {
			lines = append(lines, p.String())
		}
	}
	return lines
}

func evalIn(t *testing.T, i *desired.Instance, component, variable string, scope *desired.Scope) desired.Value {
	t.Helper()
	v, err := i.Component(component).Spec.(*realmSpec).Variables[variable].Eval(scope)
	require.NoError(t, err)
	return v
}

func TestNothingWaitsForALateImport(t *testing.T) {
	text := spokeWithRealm("deu", "url") + "      spare: ${instances.usa.identity.token}\n"
	fleet := loadCrossing(t, map[string]string{"instances/deu.yaml": text})
	imports := fleet.Instances["deu"].Imports()
	require.Len(t, imports, 1)
	require.True(t, imports[0].Optional)
	require.False(t, imports[0].EachSpoke)
	require.Contains(t, fleet.Readers("usa"), desired.OutputName{Component: "identity", Output: "token"})
}

func TestImportsAreKnownByNameAndUnknownByValue(t *testing.T) {
	fleet := loadCrossing(t, map[string]string{"instances/deu.yaml": spokeWithRealm(
		"deu", "url, secret", "${instances.usa.identity.url}/x", "${instances.usa.identity.secret}", "${instances.usa.identity.token}", "${instances.usa.identity.url}")})
	deu := fleet.Instances["deu"]
	at := func(line, column int) desired.Position {
		return desired.Position{File: "instances/deu.yaml", Line: line, Column: column}
	}
	broker := []string{"broker"}
	require.Equal(t, []desired.Import{
		{Instance: "usa", Component: "identity", Output: "secret", Secret: true, Nodes: broker, Position: at(17, 17)},
		{Instance: "usa", Component: "identity", Output: "token", Secret: true, PerInstance: true, Nodes: broker, Position: at(18, 17)},
		{Instance: "usa", Component: "identity", Output: "url", Nodes: broker, Position: at(16, 17)},
	}, deu.Imports())
	require.Equal(t, "instances.usa.identity.url", deu.Imports()[2].String())
	require.Empty(t, fleet.Instances["usa"].Imports())
	require.Equal(t, []string{"url", "secret"}, deu.Component("identity").Publish)
	for _, n := range deu.Graph.Nodes {
		require.Empty(t, n.Needs, "what is on another host is no edge of this graph")
	}

	scope := deu.Scope(nil)
	for variable, secret := range map[string]bool{"USE0": false, "USE1": true, "USE2": true} {
		v := evalIn(t, deu, "broker", variable, scope)
		require.False(t, v.Known())
		require.Equal(t, secret, v.Secret())
	}
	known := scope.WithInstances(map[string]map[string]map[string]desired.Value{
		"usa":  {"identity": {"url": desired.String("https://usa"), "secret": desired.String("hush"), "spare": desired.String("not imported")}},
		"none": {"identity": {"url": desired.String("no such instance")}},
	})
	require.Equal(t, "https://usa/x", evalIn(t, deu, "broker", "USE0", known).Text())
	require.Equal(t, "hush", evalIn(t, deu, "broker", "USE1", known).Text())
	require.True(t, evalIn(t, deu, "broker", "USE1", known).Secret(), "what is declared secret is secret whoever says it")
	require.False(t, evalIn(t, deu, "broker", "USE2", known).Known())
	missing := deu.Component("broker").Spec.(*realmSpec).Variables["USE2"].Missing(known)
	require.Equal(t, []string{"instances.usa.identity.token"}, missing)
	require.False(t, evalIn(t, deu, "broker", "USE0", scope).Known(), "a scope does not change")
	require.False(t, evalIn(t, deu, "broker", "USE0", known.WithInstances(nil)).Secret())
}

const partners = "${{for s in fleet.spokes : s.name => {url = s.outputs.identity.url, key = s.outputs.identity.secret, on = s.host} if s.values.code != \"X\"}}"

// A for over the spokes goes over those that have published what it asks for.
func TestAForOverSpokesGoesOverThoseThatHavePublished(t *testing.T) {
	gbr := map[string]string{
		"instances/gbr.yaml": spokeWithRealm("gbr", "url, secret"), "hosts/gbr-host.yaml": "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: gbr-host}\nspec: {}\n",
		"instances/usa.yaml": fmt.Sprintf(hubWithRealm, "'"+partners+"'"),
	}
	fleet := loadCrossing(t, gbr)
	usa := fleet.Instances["usa"]
	var imports []string
	for _, i := range usa.Imports() {
		require.True(t, i.Optional && i.EachSpoke)
		require.Equal(t, []string{"partners"}, i.Nodes)
		require.Equal(t, i.Output == "secret", i.Secret)
		imports = append(imports, i.String())
	}
	require.Equal(t, []string{
		"instances.deu.identity.secret", "instances.deu.identity.url", "instances.gbr.identity.secret", "instances.gbr.identity.url",
	}, imports, "fra does not publish all of it")

	at := func(scope *desired.Scope) desired.Value { return evalIn(t, usa, "partners", "PARTNERS", scope) }
	plan := at(usa.Scope(nil))
	require.False(t, plan.Known(), "offline it is known after apply")
	require.Len(t, plan.Go(), 2)
	none := at(usa.Scope(nil).WithInstances(nil))
	require.True(t, none.Known(), "nobody waits")
	require.Empty(t, none.Go())
	values := map[string]map[string]map[string]desired.Value{
		"deu": {"identity": {"url": desired.String("https://deu")}},
		"fra": {"identity": {"url": desired.String("https://fra"), "secret": desired.Secret("passed over")}},
		"gbr": {"identity": {"url": desired.String("https://gbr"), "secret": desired.Secret("hush")}},
	}
	some := at(usa.Scope(nil).WithInstances(values))
	require.True(t, some.Known())
	require.True(t, some.Secret())
	gone := map[string]any{"gbr": map[string]any{"url": "https://gbr", "key": "hush", "on": "gbr-host"}}
	require.Equal(t, gone, some.Go())
	values["deu"]["identity"]["secret"] = desired.Secret("late")
	require.Len(t, at(usa.Scope(nil).WithInstances(values)).Go(), 2)
}

// Every way to write it: a template's for, [*], parentheses, names that hide one another.
func TestWaysToGoOverSpokes(t *testing.T) {
	for expr, want := range map[string]any{
		"${join(\",\", [for s in fleet.spokes : s.outputs.identity.url])}":                                                    "deu!,fra!",
		"${[for i, s in (fleet.spokes) : \"${i}${s.outputs.identity.url}\"]}":                                                 []any{"0deu!", "1fra!"},
		"%{ for s in fleet.spokes }${s.outputs.identity.url} %{ endfor }":                                                     "deu! fra! ",
		"${fleet.spokes[*].outputs.identity.url}":                                                                             []any{"deu!", "fra!"},
		"${join(\"\", fleet.spokes.*.outputs.identity.url)}":                                                                  "deu!fra!",
		"${[for s in fleet.spokes : s.name if s.outputs.identity.url == \"fra!\"]}":                                           []any{"fra"},
		"${[for s in fleet.spokes : s.outputs[\"identity\"].url]}":                                                            []any{"deu!", "fra!"},
		"${[for s in fleet.spokes : [for s in [{outputs = s.name}] : s.outputs]]}":                                            []any{[]any{"deu"}, []any{"fra"}},
		"${[for s in fleet.spokes : [for t in fleet.spokes : t.name if t.name != s.name && t.outputs.broker.spare != \"\"]]}": []any{[]any{}, []any{}},
		"${[for s in fleet.spokes : length(keys(s))]}":                                                                        []any{int64(3), int64(3)},
	} {
		usa := fmt.Sprintf(hubWithRealm, "'"+expr+"'")
		deu := strings.Replace(spokeWithRealm("deu", "url"), "    broker:\n      kind: Realm\n", "    broker:\n      kind: Realm\n      publish: [spare]\n", 1)
		fleet := loadCrossing(t, map[string]string{"instances/usa.yaml": usa, "instances/deu.yaml": deu})
		i := fleet.Instances["usa"]
		scope := i.Scope(nil).WithInstances(map[string]map[string]map[string]desired.Value{
			"deu": {"identity": {"url": desired.String("deu!")}}, "fra": {"identity": {"url": desired.String("fra!")}},
		})
		require.Equal(t, want, evalIn(t, i, "partners", "PARTNERS", scope).Go(), expr)
	}
}

// A spoke that goes over the spokes is not among them.
func TestASpokeDoesNotReadItself(t *testing.T) {
	fleet := loadCrossing(t, map[string]string{"instances/deu.yaml": spokeWithRealm("deu", "url", "'${[for s in fleet.spokes : s.outputs.identity.url]}'")})
	deu := fleet.Instances["deu"]
	require.Len(t, deu.Imports(), 1)
	require.Equal(t, "fra", deu.Imports()[0].Instance)
	require.Len(t, evalIn(t, deu, "broker", "USE0", deu.Scope(nil)).Go(), 1)
	own := deu.Scope(nil).WithInstances(map[string]map[string]map[string]desired.Value{"deu": {"identity": {"url": desired.String("own")}}})
	require.Empty(t, evalIn(t, deu, "broker", "USE0", own).Go())
}

// Readers say what Imports say, the other way round.
func TestReadersAreTheInverseOfImports(t *testing.T) {
	fleet := loadCrossing(t, map[string]string{
		"instances/usa.yaml": fmt.Sprintf(hubWithRealm, "'"+partners+"'") + "        DIRECT: ${instances.deu.identity.url}\n",
		"instances/deu.yaml": spokeWithRealm("deu", "url, secret", "${instances.usa.identity.token}", "${instances.fra.identity.url}"),
		"instances/fra.yaml": spokeWithRealm("fra", "url", "${instances.usa.identity.token}"),
	})
	requireInverse(t, fleet)
	require.Equal(t, map[desired.OutputName][]desired.Reader{
		{Component: "identity", Output: "token"}: {{Instance: "deu", Host: "deu-host"}, {Instance: "fra", Host: "fra-host"}},
	}, fleet.Readers("usa"))
	require.Equal(t, map[desired.OutputName][]desired.Reader{
		{Component: "identity", Output: "url"}:    {{Instance: "usa", Host: "hub-host"}},
		{Component: "identity", Output: "secret"}: {{Instance: "usa", Host: "hub-host"}},
	}, fleet.Readers("deu"))
}

func requireInverse(t *testing.T, fleet *desired.Fleet) {
	t.Helper()
	type pair struct{ from, output, to string }
	var imported, read []pair
	for name, i := range fleet.Instances {
		for _, m := range i.Imports() {
			p := pair{m.Instance, m.Component + "." + m.Output, name + " at " + i.Host}
			if !slices.Contains(imported, p) {
				imported = append(imported, p)
			}
			require.Contains(t, fleet.Instances[m.Instance].Component(m.Component).Publish, m.Output)
		}
		for output, readers := range fleet.Readers(name) {
			for _, r := range readers {
				read = append(read, pair{name, output.String(), r.Instance + " at " + r.Host})
			}
		}
	}
	require.ElementsMatch(t, imported, read)
}

// An output for each reader is an object within its own instance, and one value elsewhere.
func TestAnOutputForEachInstance(t *testing.T) {
	fleet := loadCrossing(t, map[string]string{
		"instances/usa.yaml": fmt.Sprintf(hubWithRealm, "${identity.token.deu}"),
		"instances/deu.yaml": spokeWithRealm("deu", "url", "Bearer ${instances.usa.identity.token}"),
	})
	usa := fleet.Instances["usa"]
	require.True(t, evalIn(t, usa, "partners", "PARTNERS", usa.Scope(nil)).Secret())
	entries := map[string]desired.Value{"token": desired.ValueOf(cty.ObjectVal(map[string]cty.Value{"deu": desired.Secret("mine").Cty()}))}
	require.Equal(t, "mine", evalIn(t, usa, "partners", "PARTNERS", usa.Scope(nil).WithOutputs(usa.Component("identity"), entries)).Text())
}

// An instance's digest is of what it takes of manifests: which spokes, which of their values; never of what they publish.
func TestTheDigestIsOfManifestsAlone(t *testing.T) {
	load := func(over map[string]string) *desired.Fleet {
		files := map[string]string{"instances/usa.yaml": fmt.Sprintf(hubWithRealm, "'"+partners+"'")}
		for name, text := range over {
			files[name] = text
		}
		return loadCrossing(t, files)
	}
	fleet := load(nil)
	usa := fleet.Instances["usa"].Digest
	same := load(map[string]string{"instances/fra.yaml": spokeWithRealm("fra", "url", "x")})
	require.Equal(t, usa, same.Instances["usa"].Digest, "fra is not gone over")
	joins := load(map[string]string{"instances/fra.yaml": spokeWithRealm("fra", "url, secret")})
	require.NotEqual(t, usa, joins.Instances["usa"].Digest, "fra publishes it now")
	moved := load(map[string]string{"instances/deu.yaml": strings.Replace(spokeWithRealm("deu", "url, secret"), "deu-host", "fra-host", 1)})
	require.NotEqual(t, usa, moved.Instances["usa"].Digest, "it uses the host")
	more := load(map[string]string{"instances/deu.yaml": spokeWithRealm("deu", "url, secret, spare", "y")})
	require.Equal(t, usa, more.Instances["usa"].Digest, "of deu it uses the same")

	const chosen = "${join(\",\", [for s in fleet.spokes : s.values.code if s.outputs.identity.url == \"https://deu\"])}"
	for _, expr := range []string{chosen, strings.Replace(chosen, "s.values.code if s.outputs.identity.url == \"https://deu\"", "s.outputs.identity.url == \"x\" ? s.values.code : \"\"", 1)} {
		files := map[string]string{"instances/usa.yaml": fmt.Sprintf(hubWithRealm, "'"+expr+"'")}
		before := load(files).Instances["usa"].Digest
		files["instances/deu.yaml"] = strings.Replace(spokeWithRealm("deu", "url, secret"), "code: DEU", "code: GER", 1)
		require.NotEqual(t, before, load(files).Instances["usa"].Digest, "what a published value may choose is a part of it: %s", expr)
	}

	reads := map[string]string{"instances/deu.yaml": spokeWithRealm("deu", "url, secret", "${instances.usa.identity.url}")}
	deu := load(reads).Instances["deu"].Digest
	reads["instances/usa.yaml"] = fmt.Sprintf(hubWithRealm, "another")
	require.Equal(t, deu, load(reads).Instances["deu"].Digest)
}

// Components of one pair of instances may read each other's values, as long as no value needs itself.
func TestInstancesMayReadEachOther(t *testing.T) {
	fleet := loadCrossing(t, map[string]string{
		"instances/usa.yaml": fmt.Sprintf(hubWithRealm, "${instances.deu.identity.url} ${instances.fra.identity.url}"),
		"instances/deu.yaml": spokeWithRealm("deu", "url", "${instances.usa.identity.url}", "${instances.fra.identity.url}"),
		"instances/fra.yaml": spokeWithRealm("fra", "url", "${instances.usa.identity.token}", "${instances.deu.identity.url}"),
	})
	requireInverse(t, fleet)
	mutual := loadCrossing(t, map[string]string{
		"instances/deu.yaml": strings.Replace(spokeWithRealm("deu", "url"), "publish: [url]", "publish: [url]\n      variables: {A: \"${instances.usa.partners.url}\"}", 1),
		"instances/usa.yaml": strings.Replace(fmt.Sprintf(hubWithRealm, "'${[for s in fleet.spokes : s.outputs.identity.url]}'"), "partners:\n      kind: Realm", "partners:\n      kind: Realm\n      publish: [url]", 1),
	})
	requireInverse(t, mutual)
}

// What is wrong with one instance is not told once more of those that read from it.
func TestAMistakeIsToldWhereItIs(t *testing.T) {
	for name, usa := range map[string]string{
		"a component that cannot be made": strings.Replace(fmt.Sprintf(hubWithRealm, "x"), "identity:\n      kind: Realm", "identity:\n      kind: Raelm", 1),
		"a file that cannot be read":      "{",
		"no blueprint of that name":       "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: usa}\nspec: {blueprint: none, host: hub-host}\n",
	} {
		problems := crossingProblems(t, map[string]string{
			"instances/usa.yaml": usa, "instances/deu.yaml": spokeWithRealm("deu", "url", "${instances.usa.identity.url}"),
		})
		require.Len(t, problems, 1, name)
		require.Contains(t, problems[0], "instances/usa.yaml", name)
	}
	broken := strings.Replace(spokeWithRealm("deu", "url"), "identity:\n      kind: Realm", "identity:\n      kind: Raelm", 1)
	problems := crossingProblems(t, map[string]string{
		"instances/usa.yaml": fmt.Sprintf(hubWithRealm, "'"+partners+"'"), "instances/deu.yaml": broken,
	})
	require.Len(t, problems, 1)
}

// Read lightly, all that a component with parts imports is known as its own.
func TestImportsOfALightLoad(t *testing.T) {
	files := crossingFiles(map[string]string{"instances/deu.yaml": spokeWithRealm("deu", "url") +
		"    stack: {kind: Stack, services: {a: {environment: {URL: \"${instances.usa.identity.url}\"}}, b: {}}}\n"})
	for light, node := range map[bool]string{true: "stack", false: "stack/a"} {
		fleet, err := desired.LoadFS(tree(files), desired.Options{Kinds: crossing, Light: light})
		require.NoError(t, err)
		require.Equal(t, []string{node}, fleet.Instances["deu"].Imports()[0].Nodes)
	}
}

// A blueprint that no instance uses may have the name of an instance whose values it reads.
func TestABlueprintOfTheNameOfAnInstance(t *testing.T) {
	loadCrossing(t, map[string]string{"blueprints/usa/blueprint.yaml": "apiVersion: dive/v1alpha1\nkind: Blueprint\nmetadata: {name: usa}\nspec:\n  role: spoke\n  components:\n    broker: {kind: Realm, variables: {A: \"${instances.usa.identity.url}\"}}\n"})
}
