package desired

import (
	"errors"
	"math/big"

	"github.com/zclconf/go-cty/cty"
	"gopkg.in/yaml.v3"
)

// Tree is a piece of a manifest as it stands: a field of type any holds one, and a type with UnmarshalManifest gets
// one. Its texts are expressions. The zero Tree is a field that was left out.
type Tree struct{ n *node }

// TreeField is one entry of a map.
type TreeField struct {
	Name     string
	Position Position // of the key
	Value    Tree
}

// ParseTree reads a YAML text that no repository holds, such as a test's.
func ParseTree(name string, data []byte) (Tree, error) {
	n, problems := parseManifest(name, data)
	if len(problems) > 0 {
		return Tree{}, problems
	}
	return Tree{n}, nil
}

// IsZero says whether the manifest left the field out.
func (t Tree) IsZero() bool { return t.n == nil }

// Position is where the piece stands.
func (t Tree) Position() Position {
	if t.n == nil {
		return Position{}
	}
	return t.n.at
}

// IsMap says whether the piece is a map; Fields gives its entries.
func (t Tree) IsMap() bool { return t.n != nil && t.n.kind == mappingNode }

// IsList says whether the piece is a list; Items gives its entries.
func (t Tree) IsList() bool { return t.n != nil && t.n.kind == sequenceNode }

// IsScalar says whether the piece is a text, a number, true, false or null.
func (t Tree) IsScalar() bool { return t.n != nil && t.n.kind == scalarNode }

// IsNull says whether the piece is null.
func (t Tree) IsNull() bool { return t.IsScalar() && t.n.tag == "!!null" }

// Fields gives the entries of a map in the order of the manifest.
func (t Tree) Fields() []TreeField {
	if t.n == nil {
		return nil
	}
	fields := make([]TreeField, len(t.n.fields))
	for i, f := range t.n.fields {
		fields[i] = TreeField{f.name, f.at, Tree{f.value}}
	}
	return fields
}

// Get gives the field of a map, or the zero Tree.
func (t Tree) Get(name string) Tree { return Tree{t.n.get(name)} }

// Items gives the entries of a list.
func (t Tree) Items() []Tree {
	if t.n == nil {
		return nil
	}
	items := make([]Tree, len(t.n.items))
	for i, n := range t.n.items {
		items[i] = Tree{n}
	}
	return items
}

// Expr gives a scalar as an expression; the zero Expr for maps, lists and null.
func (t Tree) Expr() Expr {
	if !t.IsScalar() || t.IsNull() {
		return Expr{}
	}
	return t.n.expression().expr
}

// Exprs gives every text below the piece as an expression.
func (t Tree) Exprs() []Expr {
	var exprs []Expr
	if t.n != nil {
		t.n.walk(func(n *node) {
			if n.tag == "!!str" {
				exprs = append(exprs, n.expression().expr)
			}
		})
	}
	return exprs
}

// Eval gives the value of the piece: maps become objects, lists tuples, and a text that is one whole ${...} keeps the
// type of what it refers to. The error is a Problems.
func (t Tree) Eval(scope *Scope) (Value, error) {
	if t.n == nil {
		return Value{cty.NullVal(cty.DynamicPseudoType)}, nil
	}
	var problems Problems
	v := t.n.eval(scope, &problems)
	if len(problems) > 0 {
		return Value{}, problems
	}
	return ValueOf(v), nil
}

// Go gives the value as plain Go: nil, bool, int64, float64, string, []any, map[string]any; unknown parts are nil.
// Secrets are in it: the caller decides where it may go.
func (v Value) Go() any {
	raw, _ := v.Cty().UnmarkDeep()
	return plain(raw)
}

// plain gives strings, bools, int64 or float64, maps and slices. What is not known becomes nil.
func plain(v cty.Value) any {
	if v == cty.NilVal || !v.IsKnown() || v.IsNull() {
		return nil
	}
	t := v.Type()
	switch {
	case t == cty.String:
		return v.AsString()
	case t == cty.Bool:
		return v.True()
	case t == cty.Number:
		number := v.AsBigFloat()
		if i, accuracy := number.Int64(); accuracy == big.Exact {
			return i
		}
		f, _ := number.Float64()
		return f
	case t.IsObjectType() || t.IsMapType():
		out := make(map[string]any, v.LengthInt())
		for it := v.ElementIterator(); it.Next(); {
			key, value := it.Element()
			out[key.AsString()] = plain(value)
		}
		return out
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		out := make([]any, 0, v.LengthInt())
		for it := v.ElementIterator(); it.Next(); {
			_, value := it.Element()
			out = append(out, plain(value))
		}
		return out
	}
	return nil
}

// walk calls f for every scalar below n.
func (n *node) walk(f func(*node)) {
	if n.kind == scalarNode {
		f(n)
		return
	}
	for i := range n.fields {
		n.fields[i].value.walk(f)
	}
	for _, item := range n.items {
		item.walk(f)
	}
}

func (n *node) eval(scope *Scope, problems *Problems) cty.Value {
	switch n.kind {
	case mappingNode:
		object := make(map[string]cty.Value, len(n.fields))
		for _, f := range n.fields {
			object[f.name] = f.value.eval(scope, problems)
		}
		return cty.ObjectVal(object)
	case sequenceNode:
		items := make([]cty.Value, len(n.items))
		for i, item := range n.items {
			items[i] = item.eval(scope, problems)
		}
		return cty.TupleVal(items)
	}
	if n.tag != "!!str" {
		return n.scalar()
	}
	v, err := n.expression().expr.Eval(scope)
	if err != nil {
		*problems = append(*problems, asProblems(err, n.at)...)
		return cty.DynamicVal
	}
	return v.Cty()
}

// scalar gives the value of a scalar that is no text; what YAML cannot read as its type stays a text.
func (n *node) scalar() cty.Value {
	y := yaml.Node{Kind: yaml.ScalarNode, Tag: n.tag, Value: n.text}
	switch n.tag {
	case "!!null":
		return cty.NullVal(cty.DynamicPseudoType)
	case "!!bool":
		var b bool
		if y.Decode(&b) == nil {
			return cty.BoolVal(b)
		}
	case "!!int":
		var i int64
		if y.Decode(&i) == nil {
			return cty.NumberIntVal(i)
		}
		if number, _, err := big.ParseFloat(n.text, 10, 512, big.ToNearestEven); err == nil {
			return cty.NumberVal(number)
		}
	case "!!float":
		var f float64
		if y.Decode(&f) == nil && f == f && f-f == 0 { // neither NaN nor infinite
			return cty.NumberFloatVal(f)
		}
	}
	return cty.StringVal(n.text)
}

// expression parses the scalar once.
func (n *node) expression() *parsedExpr {
	if p := n.expr.Load(); p != nil {
		return p
	}
	p := &parsedExpr{}
	p.expr, p.problems = parseExpr(n.text, n.at, n)
	n.expr.Store(p)
	return p
}

func asProblems(err error, at Position) Problems {
	var problems Problems
	if errors.As(err, &problems) {
		return problems
	}
	return Problems{{at, err.Error()}}
}
