package desired

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// declaration is a value that a blueprint declares.
type declaration struct {
	name     string
	at       Position
	typ      string // empty: whatever the default is
	required bool
	preset   *node
	enum     []string
	pattern  *regexp.Regexp
}

// declarations reads the values of a blueprint.
func (d *Decoder) declarations(values Tree) []*declaration {
	if values.n == nil {
		return nil
	}
	if values.n.kind != mappingNode {
		d.wrong(values.n, "values", "a map")
		return nil
	}
	var out []*declaration
	for _, f := range values.n.fields {
		if !validIdentifier(f.name) {
			d.Errorf(f.at, "value name %q: use letters, digits and underscores", f.name)
			continue
		}
		decl := &declaration{name: f.name, at: f.at}
		out = append(out, decl)
		if f.value.kind != mappingNode {
			decl.preset = f.value
			if f.value.kind == scalarNode && f.value.tag == "!!null" {
				d.Errorf(f.at, "value %s has no default; write {required: true} when each instance must set it", f.name)
			}
			decl.typ = typeOfNode(f.value)
			d.tree(f.value)
			continue
		}
		d.declaration(f, decl)
	}
	return out
}

func (d *Decoder) declaration(f field, decl *declaration) {
	var spec valueSpec
	d.Decode(Tree{f.value}, &spec)
	decl.typ, decl.required, decl.preset, decl.enum = spec.Type, spec.Required, spec.Default.n, spec.Enum
	if decl.typ == "" && decl.preset != nil {
		decl.typ = typeOfNode(decl.preset)
	}
	if decl.typ == "" {
		decl.typ = "string"
	}
	if decl.required == (decl.preset != nil) {
		d.Errorf(f.at, "value %s needs either a default or required: true", f.name)
	}
	if spec.Pattern != "" {
		pattern, err := regexp.Compile(`\A(?:` + spec.Pattern + `)\z`)
		if err != nil {
			d.Errorf(f.value.get("pattern").at, "pattern is no regular expression: %v", err)
		}
		decl.pattern = pattern
	}
}

// typeOfNode gives the type a value has by its look; "" for a text that is an expression, which may become anything.
func typeOfNode(n *node) string {
	switch n.kind {
	case mappingNode:
		return "map"
	case sequenceNode:
		return "list"
	}
	switch n.tag {
	case "!!int", "!!float":
		return "number"
	case "!!bool":
		return "bool"
	case "!!str":
		if !n.expression().expr.static {
			return ""
		}
	}
	return "string"
}

// check says what is wrong with a value, or "".
func (decl *declaration) check(v cty.Value) string {
	if !v.IsWhollyKnown() {
		return ""
	}
	if v.IsNull() {
		return fmt.Sprintf("value %s is empty", decl.name)
	}
	have := typeName(v.Type())
	if decl.typ != "" && have != decl.typ {
		return fmt.Sprintf("value %s must be a %s, not a %s", decl.name, decl.typ, have)
	}
	if have != "string" && have != "number" {
		return ""
	}
	text := ValueOf(v).Text()
	if len(decl.enum) > 0 && !slices.Contains(decl.enum, text) {
		return fmt.Sprintf("value %s must be one of %s, not %q%s", decl.name, strings.Join(decl.enum, ", "), text, suggest(text, decl.enum))
	}
	if decl.pattern != nil && !decl.pattern.MatchString(text) {
		shown := strings.TrimSuffix(strings.TrimPrefix(decl.pattern.String(), `\A(?:`), `)\z`)
		return fmt.Sprintf("value %s must match %s, and %q does not", decl.name, shown, text)
	}
	return ""
}

func typeName(t cty.Type) string {
	switch {
	case t == cty.String:
		return "string"
	case t == cty.Number:
		return "number"
	case t == cty.Bool:
		return "bool"
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		return "list"
	}
	return "map"
}

// evaluation works out the values of one instance, which may use one another.
type evaluation struct {
	b        *builder
	nodes    map[string]*node
	decls    map[string]*declaration
	base     *Scope
	values   map[string]Value
	state    map[string]int // 1 under way, 2 done
	path     []string
	problems Problems
}

// values evaluates all values of the instance. A value that cannot be had is unknown, so that one mistake is one problem.
func (b *builder) evaluate(nodes map[string]*node, decls map[string]*declaration) map[string]Value {
	e := &evaluation{
		b: b, nodes: nodes, decls: decls, values: map[string]Value{}, state: map[string]int{},
		base: NewScope(nil).WithObject("instance", b.instance.builtins(Builtins{})).WithObject("hub", b.instance.hub),
	}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		e.value(name)
	}
	b.problems = append(b.problems, e.problems...)
	return e.values
}

// value evaluates a value after those that it uses, each once. A cycle is reported once, by the first value that closes
// it, and makes the values on it unknown, which spares them messages that only follow from it.
func (e *evaluation) value(name string) {
	n := e.nodes[name]
	switch e.state[name] {
	case 2:
		return
	case 1:
		from := slices.Index(e.path, name)
		e.problems = append(e.problems, Problem{n.at, "cycle: values " + strings.Join(append(e.path[from:], name), " -> ")})
		e.values[name] = ValueOf(cty.DynamicVal)
		return
	}
	e.state[name] = 1
	e.path = append(e.path, name)
	scope := map[string]Value{}
	usable := true
	for _, expr := range (Tree{n}).Exprs() {
		for _, u := range expr.uses {
			root := u.path[0]
			switch {
			case root == "instance" || root == "hub":
			case e.nodes[root] != nil:
				e.value(root)
				scope[root] = e.values[root]
			case e.decls[root] != nil: // a value that is missing was reported
				scope[root] = Value{dynamic}
			default:
				usable = false
				e.problems = append(e.problems, Problem{expr.place(u.at), e.unknown(u.path)})
			}
		}
	}
	e.path = e.path[:len(e.path)-1]
	if e.state[name] == 2 { // found in a cycle
		return
	}
	e.state[name] = 2
	if !usable {
		e.values[name] = ValueOf(cty.DynamicVal)
		return
	}
	e.values[name] = e.evaluated(name, n, scope)
}

func (e *evaluation) evaluated(name string, n *node, scope map[string]Value) Value {
	decl := e.decls[name]
	if decl != nil && decl.typ == "string" && n.kind == scalarNode && (n.tag == "!!int" || n.tag == "!!float" || n.tag == "!!timestamp") {
		return e.checked(decl, n, cty.StringVal(n.text))
	}
	within := e.base
	if len(scope) > 0 {
		within = within.With(scope)
	}
	v := n.eval(within, &e.problems)
	return e.checked(decl, n, v)
}

func (e *evaluation) checked(decl *declaration, n *node, v cty.Value) Value {
	if decl != nil {
		if wrong := decl.check(v); wrong != "" {
			e.problems = append(e.problems, Problem{n.at, wrong})
			return ValueOf(cty.DynamicVal)
		}
	}
	return ValueOf(v)
}

func (e *evaluation) unknown(path []string) string {
	names := slices.Sorted(maps.Keys(e.nodes))
	if path[0] == instancesName {
		return importOutside(path)
	}
	return fmt.Sprintf("${%s}: no value %q%s; a value may use other values (has: %s), instance and hub",
		strings.Join(path, "."), path[0], strings.TrimSuffix(suggest(path[0], names), "?"), listed(names))
}
