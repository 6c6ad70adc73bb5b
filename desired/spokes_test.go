package desired_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// A hub takes from the spokes' manifests what it names, and no more than that makes it another hub.
func TestTheFleetsSpokesInExpressions(t *testing.T) {
	const partners = "${{for s in fleet.spokes : s.values.code => {port = s.values.portOffset, on = \"${s.host}/${s.name}\"} if s.name != \"est\"}}"
	load := func(over map[string]string) *desired.Fleet {
		t.Helper()
		files := map[string]string{
			"instances/usa.yaml": "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: usa}\nspec: {blueprint: hub, host: one, components: {job: {kind: Job, steps: ['" + partners + "']}}}\n",
		}
		for name, text := range over {
			files[name] = text
		}
		return loadTree(t, files)
	}
	deu := func(values string) map[string]string {
		return map[string]string{"instances/deu.yaml": spoke("deu", "one", "  values: {code: DEU, portOffset: 11"+values+"}\n")}
	}
	fleet := load(nil)
	usa := fleet.Instances["usa"]
	given, err := usa.Component("job").Expressions()[0].Eval(usa.Scope(nil))
	require.NoError(t, err)
	require.Equal(t, map[string]any{"DEU": map[string]any{"port": int64(11), "on": "one/deu"}}, given.Go())
	require.Empty(t, usa.Graph.Nodes[len(usa.Graph.Nodes)-1].Needs, "the fleet is nothing to wait for")

	same := load(deu(", image: 'mongo:8'"))
	require.NotEqual(t, fleet.Instances["deu"].Digest, same.Instances["deu"].Digest)
	require.Equal(t, usa.Digest, same.Instances["usa"].Digest, "what it does not take is not its own")

	one := "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: deu}\nspec: {blueprint: spoke, host: one, values: {code: DEU, portOffset: 12}}\n"
	other := load(map[string]string{"instances/deu.yaml": one})
	require.NotEqual(t, usa.Digest, other.Instances["usa"].Digest)
	gbr := spoke("gbr", "one", "  values: {code: GBR, portOffset: 31}\n")
	joined := load(map[string]string{"instances/gbr.yaml": gbr})
	require.NotEqual(t, usa.Digest, joined.Instances["usa"].Digest)
	require.Equal(t, fleet.Instances["deu"].Digest, joined.Instances["deu"].Digest, "a spoke takes nothing of others")
	est := spoke("est", "one", "  values: {code: EST, portOffset: 41}\n")
	require.Equal(t, usa.Digest, load(map[string]string{"instances/est.yaml": est}).Instances["usa"].Digest, "left out by the expression")
	require.NotEqual(t, usa.Digest, load(map[string]string{"instances/deu.yaml": ""}).Instances["usa"].Digest)
}

func TestMistakesWithTheFleet(t *testing.T) {
	usa := func(step string) map[string]string {
		return map[string]string{"instances/usa.yaml": "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: usa}\nspec: {blueprint: hub, host: one, components: {job: {kind: Job, steps: ['" + step + "']}}}\n"}
	}
	problems := problemsIn(t, usa("${{for s in fleet.spokes : s.name => s.values.cod}}"))
	require.Len(t, problems, 1)
	require.True(t, strings.HasPrefix(problems[0], "instances/usa.yaml:4:"), problems[0])
	require.Contains(t, problems[0], `this object does not have an attribute named "cod"`)
	require.Contains(t, problemsIn(t, usa("${fleet.spoke}"))[0], `"fleet" has no "spoke", did you mean "spokes"? (has: name, spokes)`)
	require.Contains(t, problemsIn(t, map[string]string{"blueprints/spoke/blueprint.yaml": strings.Replace(spokeBlueprint, "image: mongo:7", "fleet: mongo:7", 1)})[0], "value fleet has the name of the built-in object fleet")
	inAValue := problemsIn(t, map[string]string{"blueprints/spoke/blueprint.yaml": strings.Replace(spokeBlueprint, "image: mongo:7", "image: ${fleet.name}", 1)})
	require.Contains(t, inAValue[0], "${fleet.name}: no value \"fleet\"")
}

// With a secret in it the expression cannot be evaluated here: then all that could be taken counts.
func TestAnExpressionOfFleetAndSecretCountsForAllSpokes(t *testing.T) {
	manifest := "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: usa}\nspec: {blueprint: hub, host: one, secrets: {KEY: {generate: {}}}, components: {job: {kind: Job, steps: ['${{for s in fleet.spokes : s.name => KEY}}']}}}\n"
	load := func(values string) string {
		return loadTree(t, map[string]string{"instances/usa.yaml": manifest, "instances/deu.yaml": spoke("deu", "one", "  values: {code: DEU, portOffset: "+values+"}\n")}).Instances["usa"].Digest
	}
	require.NotEqual(t, load("11"), load("12"))
}
