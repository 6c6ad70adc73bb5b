package desired_test

import (
	"errors"
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
