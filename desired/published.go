package desired

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// instancesName is the name in expressions of the object of what other instances publish.
const instancesName = "instances"

// publication is one entry of the generic field `publish`.
type publication struct {
	output string
	at     Position
}

// publication reads the generic field `publish`.
func (d *Decoder) publication(n *node, c *Component) {
	publish := n.get("publish")
	if publish == nil {
		return
	}
	if publish.kind != sequenceNode {
		d.wrong(publish, "publish", "a list of outputs")
		return
	}
	for _, item := range publish.items {
		switch {
		case item.kind != scalarNode || item.tag != "!!str":
			d.wrong(item, "an entry of publish", "the name of an output")
		case slices.Contains(c.Publish, item.text):
			d.Errorf(item.at, "output %q stands in publish twice", item.text)
		default:
			c.Publish = append(c.Publish, item.text)
			c.publish = append(c.publish, publication{item.text, item.at})
		}
	}
}

// listOutputs asks the components for their outputs, and holds what they publish against that.
func (b *builder) listOutputs() {
	b.outputs, b.declared = map[string][]string{}, map[string][]Output{}
	for _, c := range b.instance.Components {
		if outputter, ok := c.Spec.(Outputter); ok {
			b.declared[c.Name] = outputter.Outputs()
		}
		names := []string{}
		for _, output := range b.declared[c.Name] {
			names = append(names, output.Name)
		}
		b.outputs[c.Name] = names
		for _, p := range c.publish {
			switch {
			case len(names) == 0:
				b.fail(p.at, "component %q cannot publish %q: the kind %s has no outputs", c.Name, p.output, c.Kind)
			case !slices.Contains(names, p.output):
				b.fail(p.at, "component %q has no output %q%s", c.Name, p.output, hintAnd(p.output, names))
			}
		}
	}
}

// shareOutputs makes known what every instance publishes: to all others, as values that are not known yet.
func (l *loader) shareOutputs() {
	l.byName = map[string]*builder{}
	instances := map[string]cty.Value{}
	for _, b := range l.builders {
		l.byName[b.name] = b
		if b.root == nil { // its own mistakes are told
			instances[b.name] = cty.DynamicVal
			continue
		}
		b.listOutputs()
		if published := b.publishedObject(); len(published) > 0 {
			instances[b.name] = cty.ObjectVal(published)
		}
	}
	all := Value{cty.ObjectVal(instances)}
	for _, b := range l.builders {
		b.instance.instances, b.instance.outputs = all, all
	}
	l.instances = all
}

func (b *builder) publishedObject() map[string]cty.Value {
	components := map[string]cty.Value{}
	for name := range b.broken {
		components[name] = cty.DynamicVal
	}
	for _, c := range b.instance.Components {
		outputs := map[string]cty.Value{}
		for _, output := range b.declared[c.Name] {
			if slices.Contains(c.Publish, output.Name) {
				outputs[output.Name] = unknownOutput(Output{Secret: output.Secret}).Cty()
			}
		}
		if len(outputs) > 0 {
			components[c.Name] = cty.ObjectVal(outputs)
		}
	}
	return components
}

// published finds an output that an instance publishes.
func (l *loader) published(instance string, name OutputName) (Output, bool) {
	b := l.byName[instance]
	if b == nil {
		return Output{}, false
	}
	c := b.instance.Component(name.Component)
	if c == nil || !slices.Contains(c.Publish, name.Output) {
		return Output{}, false
	}
	i := slices.IndexFunc(b.declared[c.Name], func(o Output) bool { return o.Name == name.Output })
	if i < 0 {
		return Output{}, false
	}
	return b.declared[c.Name][i], true
}

// wrongImport says what is wrong with a reference to an output of another instance, or "". usable says whether the
// expression can be evaluated: not when it names what could not be read.
func (b *builder) wrongImport(path []string) (wrong string, usable bool) {
	if len(path) < 4 {
		return "name an output that another instance publishes, as in instances.INSTANCE.COMPONENT.OUTPUT, each of them written out" + b.candidates(path), false
	}
	name := OutputName{path[2], path[3]}
	other := b.l.byName[path[1]]
	switch {
	case other == b: // not by its name: a blueprint that no instance uses may have that of one
		return fmt.Sprintf("%s is this instance itself; write ${%s}", b.name, strings.Join(path[2:], ".")), false
	case other == nil:
		return fmt.Sprintf("no instance %q in instances/%s", path[1], hintAnd(path[1], b.otherNames())), false
	case other.root == nil || other.broken[name.Component]:
		return "", false
	}
	c := other.instance.Component(name.Component)
	if c == nil {
		return fmt.Sprintf("no component %q in %s%s", name.Component, other.name, hintAnd(name.Component, other.componentNames())), false
	}
	outputs := other.outputs[c.Name]
	switch {
	case len(outputs) == 0:
		return fmt.Sprintf("component %q of %s has no outputs", c.Name, other.name), false
	case !slices.Contains(outputs, name.Output):
		return fmt.Sprintf("component %q of %s has no output %q%s", c.Name, other.name, name.Output, hintAnd(name.Output, outputs)), false
	case !slices.Contains(c.Publish, name.Output):
		return fmt.Sprintf("%s does not publish %s; %s", other.name, name, c.publishHint(name.Output)), false
	}
	return "", true
}

// importOutside refuses an import outside of components, where nothing could wait for it.
func importOutside(path []string) string {
	return fmt.Sprintf("${%s}: what other instances publish can be used in components only, not in values and secrets", strings.Join(path, "."))
}

// publishHint is the way out for who reads what is not published.
func (c *Component) publishHint(output string) string {
	all := append(slices.Clone(c.Publish), output)
	return fmt.Sprintf("add publish: [%s] to component %s at %s", strings.Join(all, ", "), c.Name, c.Position)
}

// candidates are what could stand in the next step of a reference that ends too early.
func (b *builder) candidates(path []string) string {
	switch len(path) {
	case 1:
		return " (instances: " + listed(b.otherNames()) + ")"
	case 2, 3:
		other := b.l.byName[path[1]]
		if other == nil || other == b {
			return ""
		}
		var names []string
		for _, c := range other.instance.Components {
			for _, output := range c.Publish {
				names = append(names, c.Name+"."+output)
			}
		}
		return fmt.Sprintf(" (%s publishes: %s)", other.name, listed(names))
	}
	return ""
}

// otherNames are the names of all other instances.
func (b *builder) otherNames() []string {
	names := slices.Sorted(maps.Keys(b.l.byName))
	return slices.DeleteFunc(names, func(name string) bool { return b.l.byName[name] == b })
}
