package desired_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// What a hub's round has to do for a for over 500 spokes that publish a plain and a secret value: a scope with all values,
// and the expression.
func BenchmarkAForOverManySpokes(b *testing.B) {
	over := map[string]string{"instances/usa.yaml": fmt.Sprintf(hubWithRealm, "'"+partners+"'"), "instances/deu.yaml": "", "instances/fra.yaml": ""}
	values := map[string]map[string]map[string]desired.Value{}
	for n := range 500 {
		name := fmt.Sprintf("s%03d", n)
		over["instances/"+name+".yaml"] = spokeWithRealm(name, "url, secret", "${instances.usa.identity.url}")
		over["hosts/"+name+"-host.yaml"] = "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: " + name + "-host}\nspec: {}\n"
		values[name] = map[string]map[string]desired.Value{"identity": {"url": desired.String("https://" + name), "secret": desired.Secret("hush")}}
	}
	fleet, err := desired.LoadFS(tree(crossingFiles(over)), desired.Options{Kinds: crossing})
	require.NoError(b, err)
	usa := fleet.Instances["usa"]
	expr := usa.Component("partners").Spec.(*realmSpec).Variables["PARTNERS"]
	require.Len(b, usa.Imports(), 1000)
	for b.Loop() {
		v, err := expr.Eval(usa.Scope(nil).WithInstances(values))
		if err != nil || !v.Known() {
			b.Fatal(v, err)
		}
	}
}
