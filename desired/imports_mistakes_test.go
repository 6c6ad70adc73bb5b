package desired_test

import (
	"fmt"
	"strings"
	"testing"
)

// What is wrong with publishing and importing: each mistake alone, what is told of it, and that nothing else is.
func TestMistakesAcrossInstances(t *testing.T) {
	deu := func(uses ...string) map[string]string {
		for i, use := range uses {
			uses[i] = "'" + use + "'"
		}
		return map[string]string{"instances/deu.yaml": spokeWithRealm("deu", "url, secret", uses...)}
	}
	usa := func(partners string) map[string]string {
		return map[string]string{"instances/usa.yaml": fmt.Sprintf(hubWithRealm, "'"+partners+"'")}
	}
	instead := func(old, new string) map[string]string {
		return map[string]string{"instances/deu.yaml": strings.Replace(spokeWithRealm("deu", "url, secret"), old, new, 1)}
	}
	both := func(a, b map[string]string) map[string]string {
		for name, text := range b {
			a[name] = text
		}
		return a
	}
	var text strings.Builder
	for _, c := range []struct {
		name string
		over map[string]string
	}{
		{"unknown instance", deu("x ${instances.uas.identity.url}")},
		{"unknown component", deu("${instances.usa.idenity.url}")},
		{"unknown output", deu("${instances.usa.identity.ulr}")},
		{"component without outputs", both(deu("${instances.usa.stack.url}"), map[string]string{"instances/usa.yaml": fmt.Sprintf(hubWithRealm, "x") + "    stack: {kind: Stack, services: {a: {}}}\n"})},
		{"not published", deu("${instances.usa.identity.spare}")},
		{"nothing of it published", deu("${instances.usa.partners.url}")},
		{"itself", deu("${instances.deu.identity.url}")},
		{"ends at the instance", deu("${instances.usa}")},
		{"ends at the component", deu("${instances.usa.identity}")},
		{"no instance at all", deu("${keys(instances)}")},
		{"an instance that is chosen", deu("${instances[code].identity.url}")},
		{"by a number", deu("${instances[0].usa.identity.url}")},
		{"what a text does not have", deu("${instances.usa.identity.url.host}")},
		{"on the second line", deu("${\n  instances.usa.identity.url}/${instances.usa.identity.ulr}")},
		{"in a value", instead("values: {code: DEU}", "values: {code: DEU, url: \"${instances.usa.identity.url}\"}")},
		{"in a secret", instead("  values:", "  secrets: {K: {hostFile: {path: \"/etc/${instances.usa.identity.url}\"}}}\n  values:")},
		{"in a value of the fleet", map[string]string{"blueprints/hub/blueprint.yaml": hubBlueprint, "hosts/one.yaml": "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: one}\nspec: {}\n", "instances/est.yaml": "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: est}\nspec: {blueprint: hub, host: one}\n", "instances/usa.yaml": "", "fleet.yaml": "apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: x}\nspec:\n  values: {portOffset: \"${instances.deu.identity.url}\"}\n"}},
		{"a component of the name", instead("    broker:", "    instances:")},
		{"publishes what there is not", instead("publish: [url, secret]", "publish: [url, sercet]")},
		{"publishes twice", instead("publish: [url, secret]", "publish: [url, url]")},
		{"publishes a text", instead("publish: [url, secret]", "publish: url")},
		{"publishes a number", instead("publish: [url, secret]", "publish: [1]")},
		{"publishes an expression", instead("publish: [url, secret]", "publish: [\"${code}\"]")},
		{"a kind that has no outputs publishes", instead("kind: Realm\n      publish: [url, secret]", "kind: Stack\n      services: {a: {}}\n      publish: [url]")},
		{"no spoke has the component", usa("${[for s in fleet.spokes : s.outputs.idenity.url]}")},
		{"no spoke has the output", usa("${[for s in fleet.spokes : s.outputs.identity.ulr]}")},
		{"no spoke publishes the output", usa("${[for s in fleet.spokes : s.outputs.identity.spare]}")},
		{"components of the spokes without outputs", both(usa("${[for s in fleet.spokes : s.outputs.stack.url]}"), map[string]string{"instances/deu.yaml": spokeWithRealm("deu", "url") + "    stack: {kind: Stack, services: {a: {}}}\n"})},
		{"no output of the spokes is named", usa("${[for s in fleet.spokes : s.outputs.identity]}")},
		{"all outputs of the spokes", usa("%{ for s in fleet.spokes }${jsonencode(s.outputs)}%{ endfor }")},
		{"without a for", usa("${fleet.spokes[0].outputs.identity.url}")},
		{"by way of another list", usa("${[for s in concat(fleet.spokes, []) : s.outputs.identity.url]}")},
		{"of a splat", usa("${fleet.spokes[*].outputs.identity.ulr}")},
		{"a mistake beside it", usa("${[for s in fleet.spokes : s.outputs.identity.url if s.nam != \"\"]}")},
		{"values that need each other", both(
			map[string]string{"instances/deu.yaml": strings.Replace(spokeWithRealm("deu", "url, secret"), "publish: [url, secret]", "publish: [url, secret]\n      variables: {A: \"${instances.usa.identity.url}\"}", 1)},
			map[string]string{"instances/usa.yaml": strings.Replace(fmt.Sprintf(hubWithRealm, "x"), "publish: [url, secret, token]", "publish: [url, secret, token]\n      variables: {B: \"${instances.deu.identity.url}\"}", 1)})},
		{"values that need each other by way of a third", both(
			map[string]string{"instances/deu.yaml": strings.Replace(spokeWithRealm("deu", "url, secret"), "publish: [url, secret]", "publish: [url, secret]\n      variables: {A: \"${broker.spare}\"}", 1) + "        USE: ${instances.usa.identity.url}\n"},
			both(map[string]string{"instances/usa.yaml": strings.Replace(fmt.Sprintf(hubWithRealm, "x"), "publish: [url, secret, token]", "publish: [url, secret, token]\n      variables: {B: \"${instances.fra.identity.url}\"}", 1)},
				map[string]string{"instances/fra.yaml": strings.Replace(spokeWithRealm("fra", "url"), "publish: [url]", "publish: [url]\n      variables: {A: \"${instances.deu.identity.url}\"}", 1)}))},
	} {
		fmt.Fprintf(&text, "%s\n", c.name)
		for _, problem := range crossingProblems(t, c.over) {
			fmt.Fprintf(&text, "    %s\n", problem)
		}
	}
	golden(t, "imports.golden", text.String())
}
