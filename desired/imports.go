package desired

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// Import is one output of another instance that expressions of this one use.
type Import struct {
	Instance, Component, Output string // whose it is

	Secret      bool // while it is unknown; the value itself says it afterwards
	PerInstance bool // there is one for each instance that reads it, and this one reads its own
	// EachSpoke imports are those of a for over fleet.spokes: the spoke is gone over once all that the for asks of it is known.
	EachSpoke bool
	// Optional imports may come at any time, and nothing waits for them: those of a for over fleet.spokes, and those of fields
	// that a kind marks with the tag late. The same output may stand in a list more than once, waited for and not.
	Optional bool
	Nodes    []string // IDs of the nodes that use it, in the order of the graph; those of one that is not optional wait for it
	Position Position // of its first use
}

// String is the import as expressions name it, such as "instances.usa.identity.realm_url".
func (i Import) String() string {
	return strings.Join([]string{instancesName, i.Instance, i.Component, i.Output}, ".")
}

// OutputName names an output within its instance.
type OutputName struct{ Component, Output string }

func (n OutputName) String() string { return n.Component + "." + n.Output }

// Reader is an instance that reads an output of another one, and the host whose agent does.
type Reader struct{ Instance, Host string }

// Imports lists what the instance's expressions use of other instances, by instance, component and output. It is read only.
func (i *Instance) Imports() []Import { return i.imports }

// ImportsOf lists those imports that a node uses.
func (i *Instance) ImportsOf(node string) (list []Import) {
	for _, one := range i.imports {
		if slices.Contains(one.Nodes, node) {
			list = append(list, one)
		}
	}
	return list
}

// Readers tells who reads which outputs of an instance, in the order of the readers' names; outputs that nobody reads are
// left out. It is exactly what Imports of all other instances say, and read only.
func (f *Fleet) Readers(instance string) map[OutputName][]Reader { return f.readers[instance] }

// importsOf collects what the components' expressions use of other instances. Which nodes use what is known of the graph.
func (b *builder) importsOf(g *grapher) {
	type key struct {
		name                string
		optional, eachSpoke bool
	}
	var imports []Import
	index := map[key]int{}
	find := func(i Import) *Import {
		k := key{i.String(), i.Optional, i.EachSpoke}
		at, ok := index[k]
		if !ok {
			at, imports = len(imports), append(imports, i)
			index[k] = at
		}
		return &imports[at]
	}
	for _, c := range b.instance.Components {
		for _, e := range c.exprs {
			b.exprImports(e, func(found Import) { find(found) })
		}
	}
	for _, n := range b.instance.Graph.Nodes {
		for _, e := range g.imports[n] {
			b.exprImports(e, func(found Import) {
				if i := find(found); !slices.Contains(i.Nodes, n.ID) {
					i.Nodes = append(i.Nodes, n.ID)
				}
			})
		}
	}
	slices.SortFunc(imports, func(x, y Import) int {
		return cmp.Or(strings.Compare(x.Instance, y.Instance), strings.Compare(x.Component, y.Component), strings.Compare(x.Output, y.Output),
			cmp.Compare(x.freedom(), y.freedom()))
	})
	b.instance.imports = imports
}

// freedom orders the imports of one output: what is waited for first.
func (i Import) freedom() int {
	switch {
	case i.EachSpoke:
		return 2
	case i.Optional:
		return 1
	}
	return 0
}

// exprImports tells the imports of one expression, as far as they exist.
func (b *builder) exprImports(e Expr, tell func(Import)) {
	for _, u := range e.uses {
		if u.path[0] != instancesName || len(u.path) < 4 || u.path[1] == b.name {
			continue
		}
		if o, ok := b.l.published(u.path[1], OutputName{u.path[2], u.path[3]}); ok {
			tell(Import{
				Instance: u.path[1], Component: u.path[2], Output: u.path[3],
				Secret: o.Secret, PerInstance: o.PerInstance, Optional: e.late, Position: e.place(u.at),
			})
		}
	}
	for _, ask := range e.asks {
		for _, other := range b.l.spokes(b) {
			if !b.l.publishesAll(other.name, ask) {
				continue
			}
			for _, asked := range ask {
				o, _ := b.l.published(other.name, asked.name)
				tell(Import{
					Instance: other.name, Component: asked.name.Component, Output: asked.name.Output,
					Secret: o.Secret, PerInstance: o.PerInstance, EachSpoke: true, Optional: true, Position: e.place(asked.at),
				})
			}
		}
	}
}

// shareImports gives every instance the objects of what it imports alone, and the fleet who reads what.
func (l *loader) shareImports() {
	l.fleet.readers = map[string]map[OutputName][]Reader{}
	for _, b := range l.builders { // by name, and so are the readers
		i := b.instance
		for _, imported := range i.imports {
			outputs := l.fleet.readers[imported.Instance]
			if outputs == nil {
				outputs = map[OutputName][]Reader{}
				l.fleet.readers[imported.Instance] = outputs
			}
			name, reader := OutputName{imported.Component, imported.Output}, Reader{i.Name, i.Host}
			if !slices.Contains(outputs[name], reader) {
				outputs[name] = append(outputs[name], reader)
			}
		}
		i.instances = unknownImports(i.imports, func(Import) bool { return true })
		i.outputs = unknownImports(i.imports, func(i Import) bool { return i.EachSpoke })
	}
}

// unknownImports is an object of instances, components and outputs with what is known before anything was read.
func unknownImports(imports []Import, which func(Import) bool) Value {
	values := map[string]map[string]map[string]Value{}
	for _, i := range imports {
		if which(i) {
			put3(values, i.Instance, i.Component, i.Output, unknownOutput(Output{Secret: i.Secret}))
		}
	}
	return nested(values)
}

// importNames gives every import its name as its value, marked so that it shows where it went.
func (b *builder) importNames() map[string]map[string]map[string]Value {
	values := map[string]map[string]map[string]Value{}
	for _, i := range b.instance.imports {
		put3(values, i.Instance, i.Component, i.Output, Secret(i.String()))
	}
	return values
}

// put3 puts a value into maps of maps.
func put3(values map[string]map[string]map[string]Value, instance, component, output string, v Value) {
	if values[instance] == nil {
		values[instance] = map[string]map[string]Value{}
	}
	if values[instance][component] == nil {
		values[instance][component] = map[string]Value{}
	}
	values[instance][component][output] = v
}

// nested is the object of maps of maps.
func nested(values map[string]map[string]map[string]Value) Value {
	instances := make(map[string]Value, len(values))
	for name, components := range values {
		fields := make(map[string]Value, len(components))
		for component, outputs := range components {
			fields[component] = object(outputs)
		}
		instances[name] = object(fields)
	}
	return object(instances)
}

// WithInstances gives a scope that knows values of other instances: instance -> component -> output. What the instance
// does not import is passed over; an import that is not given stays unknown, and a for over fleet.spokes passes over the
// spokes of which one is asked. Before this call such a for goes over all spokes that are to publish what it asks for, with
// values that are unknown.
func (s *Scope) WithInstances(values map[string]map[string]map[string]Value) *Scope {
	known := func(i, c, o string, unknown Value) (Value, bool) {
		v, ok := values[i][c][o]
		if !ok || !v.Known() {
			return unknown, false
		}
		if unknown.Secret() && !v.Secret() {
			v = v.AsSecret()
		}
		return v, true
	}
	all, optional := map[string]map[string]map[string]Value{}, map[string]map[string]map[string]Value{}
	s.eachImport(instancesName, func(i, c, o string, unknown Value) {
		v, _ := known(i, c, o, unknown)
		put3(all, i, c, o, v)
	})
	s.eachImport(spokeOutputsName, func(i, c, o string, unknown Value) {
		if v, ok := known(i, c, o, unknown); ok {
			put3(optional, i, c, o, v)
		}
	})
	return s.With(map[string]Value{instancesName: nested(all), spokeOutputsName: nested(optional)})
}

// eachImport goes over an object of instances, components and outputs.
func (s *Scope) eachImport(name string, f func(instance, component, output string, v Value)) {
	each := func(v cty.Value, f func(string, cty.Value)) {
		if v != cty.NilVal && !v.IsMarked() && v.IsKnown() && !v.IsNull() && v.Type().IsObjectType() {
			fields := v.AsValueMap()
			for _, name := range slices.Sorted(maps.Keys(fields)) {
				f(name, fields[name])
			}
		}
	}
	each(s.names[name], func(instance string, components cty.Value) {
		each(components, func(component string, outputs cty.Value) {
			each(outputs, func(output string, v cty.Value) { f(instance, component, output, Value{v}) })
		})
	})
}
