package desired

import (
	"iter"
	"maps"
	"net/url"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// Scope is what the names in expressions mean: values of the instance, its secrets, the built-in objects "instance", "hub",
// "fleet" and "instances", and per component the object of its outputs. A Scope is immutable; With makes a new one.
type Scope struct {
	names     map[string]cty.Value
	functions map[string]function.Function
	evaluator *hcl.EvalContext
	former    map[string][]Value
}

// NewScope makes a scope of plain names.
func NewScope(names map[string]Value) *Scope {
	s := &Scope{names: map[string]cty.Value{}, functions: functions}
	return s.With(names)
}

// With gives a scope in which the names are added or replaced.
func (s *Scope) With(names map[string]Value) *Scope {
	next := &Scope{names: maps.Clone(s.names), functions: s.functions, former: s.former}
	for name, value := range names {
		next.names[name] = value.Cty()
	}
	next.evaluator = &hcl.EvalContext{Variables: next.names, Functions: next.functions}
	return next
}

// Telling gives a scope that tells of every secret that a function makes of secrets, such as ${upper(PASSWORD)}: who looks
// for secrets in texts would not know it. tell must be safe for concurrent use.
func (s *Scope) Telling(tell func(Value)) *Scope {
	next := &Scope{names: s.names, former: s.former, functions: make(map[string]function.Function, len(s.functions))}
	for name, f := range s.functions {
		next.functions[name] = telling(f, tell)
	}
	return next.With(nil)
}

// telling wraps a function without a change of what it takes and gives.
func telling(f function.Function, tell func(Value)) function.Function {
	open := func(p function.Parameter) function.Parameter {
		p.AllowNull, p.AllowUnknown, p.AllowDynamicType, p.AllowMarked = true, true, true, true
		return p
	}
	spec := &function.Spec{
		Type: f.ReturnTypeForValues,
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			result, err := f.Call(args)
			if err == nil && result.ContainsMarked() {
				tell(Value{result})
			}
			return result, err
		},
	}
	for _, p := range f.Params() {
		spec.Params = append(spec.Params, open(p))
	}
	if p := f.VarParam(); p != nil {
		more := open(*p)
		spec.VarParam = &more
	}
	return function.New(spec)
}

// WithObject gives a scope in which name is an object of the values, such as the outputs of a component.
func (s *Scope) WithObject(name string, fields map[string]Value) *Scope {
	object := make(map[string]cty.Value, len(fields))
	for field, value := range fields {
		object[field] = value.Cty()
	}
	return s.With(map[string]Value{name: ValueOf(cty.ObjectVal(object))})
}

// WithFormer gives a scope that knows values which secrets had before, newest first.
func (s *Scope) WithFormer(former map[string][]Value) *Scope {
	next := s.With(nil)
	next.former = former
	return next
}

// FormerNames are the secrets of which former values are known.
func (s *Scope) FormerNames() iter.Seq[string] { return maps.Keys(s.former) }

// Former are the scopes that were, newest first, as far as secrets in them are remembered: for who has to prove an old
// password before it sets the new one, and for nothing else.
func (s *Scope) Former() []*Scope {
	if s == nil {
		return nil
	}
	var scopes []*Scope
	for age := 0; ; age++ {
		names := map[string]Value{}
		for name, values := range s.former {
			if age < len(values) {
				names[name] = values[age]
			}
		}
		if len(names) == 0 {
			return scopes
		}
		scopes = append(scopes, s.With(names))
	}
}

func (s *Scope) context() *hcl.EvalContext {
	if s == nil || s.evaluator == nil {
		return &hcl.EvalContext{Functions: functions}
	}
	return s.evaluator
}

var functions = map[string]function.Function{
	"lower": stdlib.LowerFunc, "upper": stdlib.UpperFunc, "title": stdlib.TitleFunc, "trimspace": stdlib.TrimSpaceFunc,
	"replace": stdlib.ReplaceFunc, "split": stdlib.SplitFunc, "join": stdlib.JoinFunc, "format": stdlib.FormatFunc,
	"substr": stdlib.SubstrFunc, "trimprefix": stdlib.TrimPrefixFunc, "trimsuffix": stdlib.TrimSuffixFunc,
	"min": stdlib.MinFunc, "max": stdlib.MaxFunc, "coalesce": stdlib.CoalesceFunc, "concat": stdlib.ConcatFunc,
	"contains": stdlib.ContainsFunc, "length": stdlib.LengthFunc, "keys": stdlib.KeysFunc, "values": stdlib.ValuesFunc,
	"lookup": stdlib.LookupFunc, "merge": stdlib.MergeFunc, "jsonencode": stdlib.JSONEncodeFunc,
	"urlencode": urlencodeFunc,
}

// urlencodeFunc escapes a text for the password or the query of a URL.
var urlencodeFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "text", Type: cty.String}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		return cty.StringVal(strings.ReplaceAll(url.QueryEscape(args[0].AsString()), "+", "%20")), nil
	},
})
