package desired

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// ask is what one for over fleet.spokes asks of each of them: the outputs in s.outputs.COMPONENT.OUTPUT of its body and
// its condition.
type ask []asked

type asked struct {
	name OutputName
	at   hcl.Range
}

// spokeOutputsName is where a scope keeps the outputs that a for over fleet.spokes may ask for. No expression can name it.
const spokeOutputsName = "outputs of fleet.spokes"

// askSpokes finds each for (and [*]) over fleet.spokes that asks for outputs of the spokes, and has it go over those
// that have them.
func (e *Expr) askSpokes(root hclsyntax.Expression) (problems Problems) {
	_ = hclsyntax.VisitAll(root, func(n hclsyntax.Node) hcl.Diagnostics {
		var over *hclsyntax.Expression
		var traversals []hcl.Traversal
		switch n := n.(type) {
		case *hclsyntax.ForExpr:
			over, traversals = &n.CollExpr, ofVariable(n.ValVar, n.KeyExpr, n.ValExpr, n.CondExpr)
		case *hclsyntax.SplatExpr:
			over, traversals = &n.Source, ofItem(n)
		default:
			return nil
		}
		if !isSpokes(*over) {
			return nil
		}
		var found ask
		for _, t := range traversals {
			path := pathOf(t)
			switch {
			case len(path) < 1 || path[0] != "outputs":
			case len(path) < 3:
				problems = append(problems, Problem{e.place(t.SourceRange()), fmt.Sprintf(
					"%s: name an output of the spokes, as in outputs.COMPONENT.OUTPUT", shown(e.source, t.SourceRange().Ptr()))})
			default:
				name := OutputName{path[1], path[2]}
				if !slices.ContainsFunc(found, func(a asked) bool { return a.name == name }) {
					found = append(found, asked{name, t.SourceRange()})
				}
			}
		}
		if len(found) > 0 {
			e.asks = append(e.asks, found)
			*over = &spokesWith{*over, found}
		}
		return nil
	})
	return problems
}

func isSpokes(x hclsyntax.Expression) bool {
	for {
		inner, ok := x.(*hclsyntax.ParenthesesExpr)
		if !ok {
			break
		}
		x = inner.Expression
	}
	t, ok := x.(*hclsyntax.ScopeTraversalExpr)
	return ok && slices.Equal(pathOf(t.Traversal), []string{fleetName, "spokes"}) && len(t.Traversal) == 2
}

// ofVariable gives what the expressions use of a variable that is not bound within them, without its name.
func ofVariable(name string, in ...hclsyntax.Expression) (traversals []hcl.Traversal) {
	for _, x := range in {
		if x == nil {
			continue
		}
		for _, t := range x.Variables() {
			if t.RootName() == name && len(t) > 1 {
				traversals = append(traversals, t[1:])
			}
		}
	}
	return traversals
}

// ofItem gives what a splat uses of each item.
func ofItem(splat *hclsyntax.SplatExpr) (traversals []hcl.Traversal) {
	_ = hclsyntax.VisitAll(splat.Each, func(n hclsyntax.Node) hcl.Diagnostics {
		if t, ok := n.(*hclsyntax.RelativeTraversalExpr); ok && t.Source == hclsyntax.Expression(splat.Item) {
			traversals = append(traversals, t.Traversal)
		}
		return nil
	})
	return traversals
}

// spokesWith stands for fleet.spokes in a for that asks for outputs: it gives the spokes that have all of them, each with
// those and no other as the field outputs.
type spokesWith struct {
	hclsyntax.Expression
	ask ask
}

// Value is hclsyntax.Expression.
func (s *spokesWith) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	all, diags := s.Expression.Value(ctx)
	if diags.HasErrors() || all.IsMarked() || !all.IsKnown() || all.IsNull() || !all.Type().IsTupleType() {
		return all, diags
	}
	outputs := variable(ctx, spokeOutputsName)
	having := []cty.Value{}
	for it := all.ElementIterator(); it.Next(); {
		_, spoke := it.Element()
		name, ok := attribute(spoke, "name")
		if !ok || name.Type() != cty.String || name.IsMarked() || !name.IsKnown() || name.IsNull() {
			continue
		}
		of, ok := attribute(outputs, name.AsString())
		if !ok {
			continue
		}
		if asked, ok := s.ask.of(of); ok {
			fields := spoke.AsValueMap()
			fields["outputs"] = asked
			having = append(having, cty.ObjectVal(fields))
		}
	}
	return cty.TupleVal(having), diags
}

// of takes what is asked for out of a spoke's outputs; false when one of them is not there.
func (a ask) of(outputs cty.Value) (cty.Value, bool) {
	components := map[string]map[string]cty.Value{}
	for _, asked := range a {
		component, ok := attribute(outputs, asked.name.Component)
		if !ok {
			return cty.NilVal, false
		}
		value, ok := attribute(component, asked.name.Output)
		if !ok {
			return cty.NilVal, false
		}
		if components[asked.name.Component] == nil {
			components[asked.name.Component] = map[string]cty.Value{}
		}
		components[asked.name.Component][asked.name.Output] = value
	}
	fields := map[string]cty.Value{}
	for name, outputs := range components {
		fields[name] = cty.ObjectVal(outputs)
	}
	return cty.ObjectVal(fields), true
}

// attribute is a field of an object; of what is wholly unknown, any field is.
func attribute(of cty.Value, name string) (cty.Value, bool) {
	switch {
	case of == cty.NilVal || of.IsMarked() || of.IsNull():
		return cty.NilVal, false
	case of.Type() == cty.DynamicPseudoType:
		return cty.DynamicVal, true
	case !of.IsKnown() || !of.Type().IsObjectType() || !of.Type().HasAttribute(name):
		return cty.NilVal, false
	}
	return of.GetAttr(name), true
}

// variable finds a name in a context or those around it.
func variable(ctx *hcl.EvalContext, name string) cty.Value {
	for ; ctx != nil; ctx = ctx.Parent() {
		if v, ok := ctx.Variables[name]; ok {
			return v
		}
	}
	return cty.NilVal
}

// spokes are the fleet's spokes but for the one that asks.
func (l *loader) spokes(but *builder) (spokes []*builder) {
	for _, b := range l.builders {
		if b != but && b.instance.Role == RoleSpoke {
			spokes = append(spokes, b)
		}
	}
	return spokes
}

func (l *loader) publishesAll(instance string, a ask) bool {
	return !slices.ContainsFunc(a, func(asked asked) bool {
		_, ok := l.published(instance, asked.name)
		return !ok
	})
}

// wrongAsk says what is wrong with an output that is asked of the spokes, or "". One that only some spokes publish is right:
// the others are not gone over. usable is as of wrongImport.
func (b *builder) wrongAsk(name OutputName) (wrong string, usable bool) {
	spokes := b.l.spokes(b)
	if len(spokes) == 0 {
		return "", true
	}
	components, outputs := map[string]bool{}, map[string]bool{}
	var unpublished *Component
	for _, other := range spokes {
		if other.root == nil || other.broken[name.Component] {
			return "", false
		}
		for _, component := range other.componentNames() {
			components[component] = true
		}
		for _, output := range other.outputs[name.Component] {
			outputs[output] = true
			if output == name.Output {
				unpublished = other.instance.Component(name.Component)
			}
		}
		if _, ok := b.l.published(other.name, name); ok {
			return "", true
		}
	}
	switch {
	case !components[name.Component]:
		return fmt.Sprintf("no spoke has a component %q%s", name.Component, hintAnd(name.Component, slices.Sorted(maps.Keys(components)))), false
	case len(outputs) == 0:
		return fmt.Sprintf("component %q of the spokes has no outputs", name.Component), false
	case unpublished == nil:
		return fmt.Sprintf("component %q of no spoke has an output %q%s", name.Component, name.Output, hintAnd(name.Output, slices.Sorted(maps.Keys(outputs)))), false
	}
	return fmt.Sprintf("no spoke publishes %s; %s", name, unpublished.publishHint(name.Output)), false
}

// source is how the ask is written, for people.
func (a asked) source() string {
	return strings.Join([]string{"outputs", a.name.Component, a.name.Output}, ".")
}
