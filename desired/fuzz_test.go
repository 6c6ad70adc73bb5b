package desired_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"dive-agent/desired"
)

// Load never panics, and each of its errors is a list of problems with a file.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(fleetYAML), []byte(hubBlueprint), []byte(spoke("deu", "one", "  values: {code: DEU}\n")))
	f.Add([]byte("a: &a [*a]"), []byte(spokeBlueprint), []byte("spec: {<<: [*x], blueprint: hub}"))
	f.Add([]byte(fleetYAML), []byte(spokeBlueprint), []byte("kind: Instance\nspec: {components: {stack: {services: {a: {port: \"${[for x in 1: x]}\"}}}}}"))
	f.Fuzz(func(t *testing.T, fleet, blueprint, instance []byte) {
		files := fstest.MapFS{
			"fleet.yaml":                      {Data: fleet},
			"hosts/one.yaml":                  {Data: []byte("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: one}\nspec: {}\n")},
			"blueprints/spoke/blueprint.yaml": {Data: blueprint},
			"instances/deu.yaml":              {Data: instance},
		}
		fleetOut, err := desired.LoadFS(files, desired.Options{Kinds: kinds})
		if err == nil {
			if fleetOut == nil {
				t.Fatal("neither fleet nor problems")
			}
			return
		}
		var problems desired.Problems
		if !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("no problems: %v", err)
		}
		for _, p := range problems {
			if p.Position.File == "" || p.Message == "" {
				t.Fatalf("a problem without place or text: %#v", p)
			}
		}
	})
}

// FuzzImports reads expressions of two instances that may use each other's values: whatever is taken can be evaluated in
// every round, with all imports known nothing is missing, and who reads what is the inverse of what is imported.
func FuzzImports(f *testing.F) {
	for _, text := range []string{
		"${instances.usa.identity.url}", "${instances.deu.identity.secret}", "${instances.usa.identity.token}x", "${instances[\"deu\"].identity.url}",
		"${[for s in fleet.spokes : s.outputs.identity.url]}", partners, "%{ for s in fleet.spokes }${s.outputs.identity.secret}%{ endfor }",
		"${fleet.spokes[*].outputs.identity.url}", "${{for i, s in (fleet.spokes) : s.outputs.identity.url => i...}}", "${instances.usa}",
		"${[for s in fleet.spokes : [for s in fleet.spokes : s.outputs.identity.url if s.outputs.identity.secret != \"\"]]}",
	} {
		f.Add(text, "${instances.deu.identity.url}")
		f.Add("x", text)
	}
	f.Fuzz(func(t *testing.T, inDEU, inUSA string) {
		quoted := func(text string) string { return fmt.Sprintf("%q", strings.ToValidUTF8(text, "?")) }
		fleet, err := desired.LoadFS(tree(crossingFiles(map[string]string{
			"instances/deu.yaml": spokeWithRealm("deu", "url, secret", quoted(inDEU)), "instances/usa.yaml": fmt.Sprintf(hubWithRealm, quoted(inUSA)),
		})), desired.Options{Kinds: crossing})
		if err != nil {
			return
		}
		requireInverse(t, fleet)
		for _, i := range fleet.Instances {
			all := map[string]map[string]map[string]desired.Value{}
			for _, one := range i.Imports() {
				all[one.Instance] = map[string]map[string]desired.Value{"identity": {"url": desired.String("u"), "secret": desired.Secret("s"), "token": desired.Secret("t")}}
			}
			for _, c := range i.Components {
				for _, e := range c.Expressions() {
					for _, scope := range []*desired.Scope{i.Scope(nil).WithInstances(nil), i.Scope(nil).WithInstances(all)} {
						v, err := e.Eval(scope)
						_ = e.Missing(scope)
						if err == nil {
							_, _ = v.Display(), v.Go()
						}
					}
					others := func(r desired.Reference) bool {
						return !slices.Contains([]string{"instances", "fleet", "code"}, r.Path[0])
					}
					if v, err := e.Eval(i.Scope(nil).WithInstances(all)); err == nil && !v.Known() && !slices.ContainsFunc(e.References(), others) {
						t.Fatalf("%q is not known with all that it imports", e.Source())
					}
				}
			}
		}
	})
}

func FuzzExpr(f *testing.F) {
	for _, text := range []string{"${a}", "${a.b[0]}", "$${", "%{ if a }x%{ endif }", "${[for x in a: x if x]}", "${\"${\"${a}\"}\"}", "${-!-1}", "${a ? b : c}", "${upper(a)...}", "${1/0}", "${a.*.b}"} {
		f.Add(text)
	}
	scope := desired.NewScope(map[string]desired.Value{"a": desired.Secret("x"), "b": desired.Unknown(), "c": desired.ValueOf(number(1))})
	f.Fuzz(func(t *testing.T, text string) {
		e, problems := desired.ParseExpr(text, desired.Position{File: "f", Line: 1, Column: 1})
		_ = e.References()
		if len(problems) > 0 {
			return
		}
		v, err := e.Eval(scope)
		if err == nil {
			_, _, _ = v.Text(), v.Display(), v.Go()
		}
	})
}
