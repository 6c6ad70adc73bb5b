package keycloak

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"dive-agent/reconcilers"
)

// moduleText evaluates a module as far as its text, its variables and its locals go. What comes of a resource, of data or
// of a function that it does not know is unknown.
type moduleText struct {
	resources []*hclsyntax.Block
	modules   []string
	variables map[string]*hclsyntax.Block
	locals    map[string]hclsyntax.Expression
	scope     map[string]cty.Value
}

// textItems lists the resources of a module; one whose number is not known by its text has the address name[*].
func textItems(source string, values map[string]any) ([]reconcilers.Item, error) {
	m := &moduleText{variables: map[string]*hclsyntax.Block{}, locals: map[string]hclsyntax.Expression{}}
	files, err := filepath.Glob(filepath.Join(source, "*.tf"))
	if err != nil {
		return nil, err
	}
	parser := hclparse.NewParser()
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		file, diags := parser.ParseHCL(text, filepath.Base(name))
		if diags.HasErrors() {
			return nil, diags
		}
		m.collect(file.Body.(*hclsyntax.Body))
	}
	m.evaluate(values)
	var items []reconcilers.Item
	for _, block := range m.resources {
		items = append(items, m.instances(block)...)
	}
	for _, name := range m.modules {
		items = append(items, reconcilers.Item{Address: "module." + name, Lasting: true})
	}
	return items, nil
}

func (m *moduleText) collect(body *hclsyntax.Body) {
	for _, block := range body.Blocks {
		switch {
		case block.Type == "resource" && len(block.Labels) == 2:
			m.resources = append(m.resources, block)
		case block.Type == "module" && len(block.Labels) == 1:
			m.modules = append(m.modules, block.Labels[0])
		case block.Type == "variable" && len(block.Labels) == 1:
			m.variables[block.Labels[0]] = block
		case block.Type == "locals":
			for name, attribute := range block.Body.Attributes {
				m.locals[name] = attribute.Expr
			}
		}
	}
}

// evaluate gives variables their values, and then locals, each after those that it uses: as many rounds as there are
// locals are enough.
func (m *moduleText) evaluate(values map[string]any) {
	variables := map[string]cty.Value{}
	for name, block := range m.variables {
		variables[name] = m.variable(block, values[name])
	}
	known := map[string]cty.Value{}
	for name := range m.locals {
		known[name] = cty.DynamicVal
	}
	for range m.locals {
		m.scope = map[string]cty.Value{"var": cty.ObjectVal(variables), "local": cty.ObjectVal(known)}
		next, changed := map[string]cty.Value{}, false
		for name, expr := range m.locals {
			next[name] = m.value(expr, nil)
			changed = changed || !next[name].RawEquals(known[name])
		}
		if known = next; !changed {
			break
		}
	}
	m.scope = map[string]cty.Value{"var": cty.ObjectVal(variables), "local": cty.ObjectVal(known)}
}

func (m *moduleText) variable(block *hclsyntax.Block, given any) cty.Value {
	value := cty.DynamicVal
	if given != nil {
		if data, err := json.Marshal(given); err == nil {
			if implied, err := ctyjson.ImpliedType(data); err == nil {
				if v, err := ctyjson.Unmarshal(data, implied); err == nil {
					value = v
				}
			}
		}
	} else if preset := block.Body.Attributes["default"]; preset != nil {
		value, _ = preset.Expr.Value(nil)
	}
	constraint := block.Body.Attributes["type"]
	if constraint == nil {
		return value
	}
	typ, defaults, diags := typeexpr.TypeConstraintWithDefaults(constraint.Expr)
	if diags.HasErrors() {
		return cty.DynamicVal
	}
	if defaults != nil && value.IsKnown() && !value.IsNull() {
		value = defaults.Apply(value)
	}
	if converted, err := convert.Convert(value, typ); err == nil {
		return converted
	}
	return cty.DynamicVal
}

// value is an expression's value; unknown where it cannot be had.
func (m *moduleText) value(expr hclsyntax.Expression, more map[string]cty.Value) cty.Value {
	names := maps.Clone(m.scope)
	maps.Copy(names, more)
	for _, used := range expr.Variables() {
		if root := used.RootName(); names[root] == cty.NilVal {
			names[root] = cty.DynamicVal
		}
	}
	v, diags := expr.Value(&hcl.EvalContext{Variables: names, Functions: moduleFunctions})
	if diags.HasErrors() {
		return cty.DynamicVal
	}
	v, _ = v.UnmarkDeep()
	return v
}

// instances evaluates for_each and count of a resource.
func (m *moduleText) instances(block *hclsyntax.Block) []reconcilers.Item {
	address := strings.Join(block.Labels, ".")
	item := func(key string, more map[string]cty.Value) reconcilers.Item {
		return reconcilers.Item{Address: address + key, Attributes: m.attributes(block, more), Lasting: true}
	}
	if each := block.Body.Attributes["for_each"]; each != nil {
		v := m.value(each.Expr, nil)
		if !v.IsKnown() || v.IsNull() || !v.CanIterateElements() {
			return []reconcilers.Item{item("[*]", nil)}
		}
		var items []reconcilers.Item
		for it := v.ElementIterator(); it.Next(); {
			key, value := it.Element()
			if v.Type().IsSetType() {
				key = value
			}
			if !key.IsKnown() || key.Type() != cty.String {
				return []reconcilers.Item{item("[*]", nil)}
			}
			items = append(items, item(fmt.Sprintf("[%q]", key.AsString()), map[string]cty.Value{
				"each": cty.ObjectVal(map[string]cty.Value{"key": key, "value": value}),
			}))
		}
		return items
	}
	count := block.Body.Attributes["count"]
	if count == nil {
		return []reconcilers.Item{item("", nil)}
	}
	v, err := convert.Convert(m.value(count.Expr, nil), cty.Number)
	if err != nil || !v.IsKnown() || v.IsNull() {
		return []reconcilers.Item{item("[*]", nil)}
	}
	number, _ := v.AsBigFloat().Int64()
	var items []reconcilers.Item
	for i := range min(number, 10_000) {
		items = append(items, item(fmt.Sprintf("[%d]", i), map[string]cty.Value{
			"count": cty.ObjectVal(map[string]cty.Value{"index": cty.NumberIntVal(i)}),
		}))
	}
	return items
}

// attributes are those of the resource's own arguments that are known. Nested blocks are left out.
func (m *moduleText) attributes(block *hclsyntax.Block, more map[string]cty.Value) map[string]string {
	c := compared{redact: func(text string) string { return text }, outline: true}
	for _, name := range slices.Sorted(maps.Keys(block.Body.Attributes)) {
		if slices.Contains([]string{"for_each", "count", "depends_on", "provider"}, name) {
			continue
		}
		v := m.value(block.Body.Attributes[name].Expr, more)
		if !v.IsWhollyKnown() {
			continue
		}
		data, err := ctyjson.Marshal(v, v.Type())
		var plain any
		if err == nil && json.Unmarshal(data, &plain) == nil {
			c.add(name, pair{after: plain})
		}
	}
	return c.attributes()
}

// moduleFunctions are those of Terraform's functions that decide how many of a resource there are, and their like.
var moduleFunctions = map[string]function.Function{
	"abs": stdlib.AbsoluteFunc, "ceil": stdlib.CeilFunc, "chomp": stdlib.ChompFunc, "chunklist": stdlib.ChunklistFunc,
	"coalesce": coalesceFunc, "coalescelist": stdlib.CoalesceListFunc, "compact": stdlib.CompactFunc, "concat": stdlib.ConcatFunc,
	"contains": stdlib.ContainsFunc, "distinct": stdlib.DistinctFunc, "element": stdlib.ElementFunc, "flatten": stdlib.FlattenFunc,
	"floor": stdlib.FloorFunc, "format": stdlib.FormatFunc, "formatlist": stdlib.FormatListFunc, "indent": stdlib.IndentFunc,
	"join": stdlib.JoinFunc, "jsondecode": stdlib.JSONDecodeFunc, "jsonencode": stdlib.JSONEncodeFunc, "keys": stdlib.KeysFunc,
	"length": stdlib.LengthFunc, "lookup": stdlib.LookupFunc, "lower": stdlib.LowerFunc, "max": stdlib.MaxFunc, "merge": stdlib.MergeFunc,
	"min": stdlib.MinFunc, "range": stdlib.RangeFunc, "regex": stdlib.RegexFunc, "regexall": stdlib.RegexAllFunc, "replace": replaceFunc,
	"reverse": stdlib.ReverseListFunc, "setintersection": stdlib.SetIntersectionFunc, "setproduct": stdlib.SetProductFunc,
	"setsubtract": stdlib.SetSubtractFunc, "setunion": stdlib.SetUnionFunc, "slice": stdlib.SliceFunc, "sort": stdlib.SortFunc,
	"split": stdlib.SplitFunc, "strrev": stdlib.ReverseFunc, "substr": stdlib.SubstrFunc, "title": stdlib.TitleFunc, "trim": stdlib.TrimFunc,
	"trimprefix": stdlib.TrimPrefixFunc, "trimspace": stdlib.TrimSpaceFunc, "trimsuffix": stdlib.TrimSuffixFunc, "upper": stdlib.UpperFunc,
	"values": stdlib.ValuesFunc, "zipmap": stdlib.ZipmapFunc, "can": tryfunc.CanFunc, "try": tryfunc.TryFunc,
	"tolist": stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)), "tomap": stdlib.MakeToFunc(cty.Map(cty.DynamicPseudoType)),
	"toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)), "tostring": stdlib.MakeToFunc(cty.String),
	"tonumber": stdlib.MakeToFunc(cty.Number), "tobool": stdlib.MakeToFunc(cty.Bool),
}

// coalesceFunc takes the first that is neither null nor an empty text: the library's does not pass over empty ones.
var coalesceFunc = function.New(&function.Spec{
	VarParam: &function.Parameter{Name: "values", Type: cty.DynamicPseudoType, AllowNull: true},
	Type: func(args []cty.Value) (cty.Type, error) {
		types := make([]cty.Type, len(args))
		for i, arg := range args {
			types[i] = arg.Type()
		}
		typ, _ := convert.UnifyUnsafe(types)
		if typ == cty.NilType {
			return typ, errors.New("all arguments must have one type")
		}
		return typ, nil
	},
	Impl: func(args []cty.Value, typ cty.Type) (cty.Value, error) {
		for _, arg := range args {
			v, err := convert.Convert(arg, typ)
			if err == nil && !v.IsNull() && (typ != cty.String || v.AsString() != "") {
				return v, nil
			}
		}
		return cty.NilVal, errors.New("no argument has a value")
	},
})

// replaceFunc takes what stands between slashes for a regular expression.
var replaceFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "text", Type: cty.String}, {Name: "part", Type: cty.String}, {Name: "by", Type: cty.String}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		if part := args[1].AsString(); len(part) > 1 && part[0] == '/' && part[len(part)-1] == '/' {
			return stdlib.RegexReplace(args[0], cty.StringVal(part[1:len(part)-1]), args[2])
		}
		return stdlib.Replace(args[0], args[1], args[2])
	},
})
