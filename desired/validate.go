package desired

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// validate checks all instances, each on its own, with the whole fleet in sight.
func (l *loader) validate() {
	l.checkHub()
	parallel(len(l.builders), func(i int) {
		if l.builders[i].root != nil {
			l.builders[i].validate()
		}
	})
	for _, b := range l.builders {
		l.problems = append(l.problems, b.problems...)
		if b.blueprint != nil {
			b.blueprint.used = true
		}
	}
	l.checkUnused()
}

func (l *loader) checkHub() {
	var hubs []*builder
	for _, b := range l.builders {
		if b.root != nil && b.instance.Role == RoleHub {
			hubs = append(hubs, b)
		}
	}
	for _, b := range hubs[min(1, len(hubs)):] {
		l.fail(b.instance.Position, "a second hub: %s (%s) is one already", hubs[0].name, hubs[0].file)
	}
	name := l.fleet.Hub.Instance
	if name == "" {
		return
	}
	at := Position{File: "fleet.yaml"}
	if l.fleet.Hub.at.Line > 0 {
		at = l.fleet.Hub.at
	}
	instance := l.fleet.Instances[name]
	switch {
	case instance == nil:
		l.fail(at, "no instance %q in instances/%s", name, HintOr(name, slices.Sorted(maps.Keys(l.fleet.Instances))))
	case instance.Role != RoleHub && instance.Role != "":
		l.fail(at, "instance %s is a %s, not a hub", name, instance.Role)
	}
}

// checkUnused looks at blueprints that no instance uses: their components and expressions, as far as that goes.
func (l *loader) checkUnused() {
	for _, name := range slices.Sorted(maps.Keys(l.blueprints)) {
		bp := l.blueprints[name]
		if bp.used || !bp.usable {
			continue
		}
		b := &builder{l: l, name: name, file: bp.file, blueprint: bp, specNode: bp.spec.Components.n, values: map[string]*node{}}
		b.instance = &Instance{Name: name, Role: bp.role, Blueprint: name, Source: bp.source, Position: bp.at, Graph: &Graph{}, Values: map[string]Value{}, hub: l.fleet.Hub.fields(), fleet: l.fleet.object}
		for _, decl := range bp.values {
			b.instance.Values[decl.name] = Value{dynamic}
		}
		b.makeSecrets()
		b.makeComponents()
		b.listOutputs()
		b.instance.instances, b.instance.outputs = l.instances, l.instances
		b.resolve()
		l.problems = append(l.problems, b.problems...)
	}
}

// validate checks one instance: names, expressions, what the kinds know, graph, claims.
func (b *builder) validate() {
	scope := b.resolve()
	files, err := fs.Sub(b.l.files, b.instance.Source)
	if err != nil {
		b.fail(b.instance.Position, "cannot read the folder %s: %v", b.instance.Source, err)
		return
	}
	var problems Problems
	var allow []string
	if b.l.options.Allow != nil {
		allow = b.l.options.Allow(b.instance.Host)
	}
	g := &grapher{b: b, blind: len(b.broken) > 0}
	for _, c := range b.instance.Components {
		check := &Check{
			Fleet: b.l.fleet, Instance: b.instance, Component: c, Files: files, SourceDir: b.l.sourceDir(b.instance.Source),
			Scope: scope, Light: b.l.options.Light, Allow: allow, problems: &problems, memo: b.l.memoOf(b.instance.Source),
		}
		if v, ok := c.Spec.(Validator); ok {
			v.Validate(check)
		}
		g.add(c, check)
		if claimer, ok := c.Spec.(Claimer); ok {
			for _, claim := range claimer.Claims(check) {
				claim.By = c.Name + "\x00" + claim.By
				b.claims = append(b.claims, claim)
			}
		}
	}
	b.problems = append(b.problems, problems...)
	g.link()
	b.instance.Graph = g.order()
	b.importsOf(g)
	b.checkApprovals(g)
}

func (b *builder) checkApprovals(g *grapher) {
	names := b.componentNames()
	for _, name := range slices.Sorted(maps.Keys(b.instance.Approve)) {
		component, part, _ := strings.Cut(name, "/")
		digest := b.instance.Approve[name]
		at := b.specNode.get("approve").get(name).at
		switch {
		case !slices.Contains(names, component):
			b.fail(at, "no component %q in %s%s", component, b.name, HintOr(component, names))
		case b.broken[component]:
		case part != "" && !b.l.options.Light && g.index[name] == nil:
			b.fail(at, "component %s of %s has no part %q", component, b.name, part)
		case len(digest) != 16 || strings.Trim(digest, "0123456789abcdef") != "":
			b.fail(at, "%q is not the digest of a plan: 16 hexadecimal digits in quotes, as the plan shows them", digest)
		}
	}
}

// resolve checks that every name an expression uses exists, and that the expressions can be evaluated. It gives the
// instance's scope.
func (b *builder) resolve() *Scope {
	b.checkNames()
	scope := b.instance.Scope(nil)
	if len(b.broken) > 0 {
		names := map[string]Value{}
		for name := range b.broken {
			names[name] = Value{dynamic}
		}
		scope = scope.With(names)
	}
	for _, c := range b.instance.Components {
		for _, e := range c.exprs {
			b.resolveExpr(e, scope)
		}
	}
	return scope
}

func (b *builder) resolveExpr(e Expr, scope *Scope) {
	ok := true
	for _, u := range e.uses {
		wrong, usable := b.wrongReference(u.path, e.position.File), true
		if u.path[0] == instancesName {
			wrong, usable = b.wrongImport(u.path)
		}
		if wrong != "" {
			b.fail(e.place(u.at), "${%s}: %s", strings.Join(u.path, "."), wrong)
		}
		ok = ok && usable && wrong == ""
	}
	for _, ask := range e.asks {
		for _, asked := range ask {
			wrong, usable := b.wrongAsk(asked.name)
			if wrong != "" {
				b.fail(e.place(asked.at), "%s: %s", asked.source(), wrong)
			}
			ok = ok && usable && wrong == ""
		}
	}
	if !ok || e.wrong || isPlain(e) {
		return
	}
	if _, err := e.Eval(scope); err != nil {
		b.problems = append(b.problems, asProblems(err, e.position)...)
	}
}

// isPlain says whether an expression is nothing but one checked name, whose evaluation cannot fail.
func isPlain(e Expr) bool {
	wrapped, ok := e.template.(*hclsyntax.TemplateWrapExpr)
	if !ok {
		return false
	}
	name, ok := wrapped.Wrapped.(*hclsyntax.ScopeTraversalExpr)
	return ok && len(name.Traversal) == 1
}

// wrongReference says what is wrong with a reference, or "".
func (b *builder) wrongReference(path []string, file string) string {
	root, where := path[0], b.where(file)
	outputs, isComponent := b.outputs[root]
	switch {
	case b.broken[root], root == instancesName: // the latter is looked at by wrongImport
		return ""
	case root == "instance":
		return wrongField(path, instanceFields)
	case root == "hub":
		return wrongField(path, hubFields)
	case root == fleetName:
		return wrongField(path, fleetFields)
	case isComponent && len(outputs) == 0:
		return fmt.Sprintf("component %q publishes no outputs", root)
	case isComponent && len(path) == 1:
		return fmt.Sprintf("%q is a component; name one of its outputs (%s)", root, listed(outputs))
	case isComponent:
		return wrongField(path, outputs)
	}
	if _, ok := b.instance.Values[root]; ok || b.secret[root] || b.public[root] {
		return ""
	}
	if len(path) > 1 {
		return b.unknownComponent(root, where)
	}
	names := append(slices.Sorted(maps.Keys(b.instance.Values)), slices.Sorted(maps.Keys(b.secret))...)
	return fmt.Sprintf("no value or secret %q in %s%s", root, where, hintAnd(root, names))
}

// where names what a file declares: the instance, or the blueprint for all its instances.
func (b *builder) where(file string) string {
	if b.blueprint != nil && file == b.blueprint.file {
		return "blueprint " + b.blueprint.name
	}
	return b.name
}

func (b *builder) unknownComponent(name, where string) string {
	return fmt.Sprintf("no component %q in %s%s", name, where, hintAnd(name, b.componentNames()))
}

// componentNames lists all that are declared, those that could not be made last.
func (b *builder) componentNames() []string {
	var names []string
	for _, c := range b.instance.Components {
		names = append(names, c.Name)
	}
	return append(names, slices.Sorted(maps.Keys(b.broken))...)
}

func wrongField(path, fields []string) string {
	if len(path) == 1 {
		return fmt.Sprintf("name one of its fields (%s)", listed(fields))
	}
	if slices.Contains(fields, path[1]) {
		return ""
	}
	return fmt.Sprintf("%q has no %q%s", path[0], path[1], hintAnd(path[1], fields))
}

// hintAnd gives `, did you mean "x"? (has: ...)`.
func hintAnd(name string, names []string) string {
	return suggest(name, names) + " (has: " + listed(names) + ")"
}

// checkNames refuses names that hide one another in expressions.
func (b *builder) checkNames() {
	taken := map[string]string{"instance": "the built-in object instance", "hub": "the built-in object hub", fleetName: "the built-in object fleet", instancesName: "the built-in object instances"}
	take := func(name, what string, at Position) {
		if other, twice := taken[name]; twice {
			b.fail(at, "%s has the name of %s; expressions could not tell them apart", what, other)
			return
		}
		taken[name] = what
	}
	for _, name := range slices.Sorted(maps.Keys(b.instance.Values)) {
		at := b.instance.Position
		if n := b.values[name]; n != nil {
			at = n.at
		}
		take(name, "value "+name, at)
	}
	for _, secret := range b.instance.Secrets {
		take(secret.Name, "secret "+secret.Name, secret.Position)
	}
	for _, c := range b.instance.Components {
		take(c.Name, "component "+c.Name, c.Position)
	}
}
