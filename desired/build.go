package desired

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"dive-agent/sopsfile"
)

// blueprint is blueprints/<name>/blueprint.yaml, read once for all its instances.
type blueprint struct {
	name   string
	file   string
	source string
	at     Position
	role   string
	values []*declaration
	decls  map[string]*declaration
	spec   blueprintSpec
	used   bool
	usable bool
}

// readBlueprints reads all of them, used or not. One that cannot be read stays known, so that instances of it are not
// told that it does not exist.
func (l *loader) readBlueprints() {
	files := l.manifests("blueprints", "blueprint.yaml", false)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b := &blueprint{name: name, file: files[name], source: path.Dir(files[name]), decls: map[string]*declaration{}}
		l.blueprints[name] = b
		root, _, problems := l.parse(b.file)
		l.problems = append(l.problems, problems...)
		if root == nil {
			continue
		}
		b.at = root.at
		spec, problems := l.open(b.file, root, BlueprintKind, name)
		d := &Decoder{problems: problems}
		if spec.n == nil {
			l.problems = append(l.problems, problems...)
			continue
		}
		d.decodeSpec(spec, &b.spec)
		b.role = b.spec.Role
		b.values = d.declarations(b.spec.Values)
		for _, decl := range b.values {
			b.decls[decl.name] = decl
		}
		l.problems = append(l.problems, d.problems...)
		b.usable = true
	}
	l.checkFleetValues()
}

// checkFleetValues refuses values of fleet.yaml that no blueprint declares.
func (l *loader) checkFleetValues() {
	var names []string
	for _, b := range l.blueprints {
		if !b.usable {
			return
		}
		names = append(names, slices.Collect(maps.Keys(b.decls))...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for name, n := range l.values {
		if !slices.Contains(names, name) {
			l.fail(n.at, "no blueprint declares the value %q%s", name, HintOr(name, names))
		}
	}
}

// HintOr gives `, did you mean "x"?`, or what there is.
func HintOr(name string, names []string) string {
	if hint := suggest(name, names); hint != "" {
		return hint
	}
	return " (has: " + listed(names) + ")"
}

// Hint proposes the name that was meant, of those there are; "" when none is near.
func Hint(name string, names []string) string { return suggest(name, names) }

// builder makes one instance.
type builder struct {
	l         *loader
	name      string
	file      string
	text      []byte
	root      *node
	spec      instanceSpec
	specNode  *node
	blueprint *blueprint
	instance  *Instance
	values    map[string]*node
	outputs   map[string][]string // component -> names, for messages
	declared  map[string][]Output // component -> its outputs
	secret    map[string]bool
	public    map[string]bool           // public halves of secrets that are keys
	sops      map[string]*sopsfile.File // files of SOPS that were read; nil: one that cannot be
	broken    map[string]bool           // components that could not be made; what refers to them is not looked at
	claims    []Claim
	problems  Problems
}

func (b *builder) fail(at Position, format string, args ...any) {
	b.problems = append(b.problems, Problem{at, fmt.Sprintf(format, args...)})
}

func (l *loader) readInstances() {
	files := l.manifests("instances", "instance.yaml", true)
	names := slices.Sorted(maps.Keys(files))
	l.builders = make([]*builder, len(names))
	parallel(len(names), func(i int) {
		b := &builder{l: l, name: names[i], file: files[names[i]]}
		l.builders[i] = b
		b.read()
	})
	lower := map[string]*builder{}
	for _, b := range l.builders {
		l.fleet.Instances[b.name] = b.instance
		if other := lower[strings.ToLower(b.name)]; other != nil {
			l.fail(Position{File: b.file}, "instance %s differs from %s (%s) in case only", b.name, other.name, other.file)
		}
		lower[strings.ToLower(b.name)] = b
	}
}

// read makes the instance as far as it needs no other one.
func (b *builder) read() {
	b.instance = &Instance{Name: b.name, Position: Position{File: b.file}, Graph: &Graph{}, hub: b.l.fleet.Hub.fields()}
	root, text, problems := b.l.parse(b.file)
	b.root, b.text, b.problems = root, text, problems
	if root == nil {
		return
	}
	i := b.instance
	i.Position = root.at
	spec, problems := b.l.open(b.file, root, InstanceKind, b.name)
	d := &Decoder{problems: problems}
	if b.specNode = spec.n; spec.n == nil {
		b.root, b.problems = nil, append(b.problems, problems...)
		return
	}
	d.decodeSpec(spec, &b.spec)
	b.problems = append(b.problems, d.problems...)
	i.Host, i.Blueprint, i.Role, i.Approve = b.spec.Host, b.spec.Blueprint, b.spec.Role, b.spec.Approve
	i.OnRemove, i.DestroyVolumes = b.spec.OnRemove, b.spec.DestroyVolumes
	if i.DestroyVolumes && i.OnRemove != OnRemoveDestroy {
		b.fail(b.specNode.get("destroyVolumes").at, "destroyVolumes needs onRemove: destroy beside it")
	}
	i.Source = strings.TrimSuffix(b.file, ".yaml")
	if strings.HasSuffix(b.file, "/instance.yaml") {
		i.Source = path.Dir(b.file)
	}
	if !b.findBlueprint() {
		b.root = nil
		return
	}
	b.checkHost()
	b.collectValues()
	b.makeSecrets()
	b.makeComponents()
}

func (b *builder) findBlueprint() bool {
	at := b.specNode.get("blueprint")
	if b.spec.Blueprint == "" {
		if b.specNode.get("components") == nil {
			return b.complain()
		}
		if b.spec.Role == "" {
			b.fail(b.specNode.at, "an instance without blueprint needs the field \"role\"")
		}
		return true
	}
	found := b.l.blueprints[b.spec.Blueprint]
	if found == nil {
		names := slices.Sorted(maps.Keys(b.l.blueprints))
		b.fail(at.at, "no blueprint %q in blueprints/%s", b.spec.Blueprint, HintOr(b.spec.Blueprint, names))
		return false
	}
	b.blueprint = found
	b.instance.Source = found.source
	if b.spec.Role != "" && b.spec.Role != found.role && found.role != "" {
		b.fail(b.specNode.get("role").at, "role %s differs from the role %s of blueprint %s", b.spec.Role, found.role, found.name)
	}
	b.instance.Role = found.role
	return found.usable
}

// complain says that an instance declares nothing, unless a mistake at its fields says so already.
func (b *builder) complain() bool {
	if b.specNode != nil && b.specNode.kind == mappingNode && len(b.problems) == 0 {
		b.fail(b.specNode.at, "the instance has neither a blueprint nor components")
	}
	return false
}

func (b *builder) checkHost() {
	if b.spec.Host == "" || b.l.fleet.Hosts[b.spec.Host] != nil {
		return
	}
	names := slices.Sorted(maps.Keys(b.l.fleet.Hosts))
	b.fail(b.specNode.get("host").at, "no host %q in hosts/%s", b.spec.Host, HintOr(b.spec.Host, names))
}

// collectValues finds each value's node: the instance's, else the fleet's, else the blueprint's.
func (b *builder) collectValues() {
	b.values = map[string]*node{}
	decls := map[string]*declaration{}
	if b.blueprint != nil {
		decls = b.blueprint.decls
		for _, decl := range b.blueprint.values {
			if decl.preset != nil {
				b.values[decl.name] = decl.preset
			}
			if n := b.l.values[decl.name]; n != nil {
				b.values[decl.name] = n
			}
		}
	}
	own := b.spec.Values.n
	if own != nil && own.kind != mappingNode {
		b.fail(own.at, "values must be a map, not %s", own.describe())
		own = nil
	}
	if own != nil {
		for _, f := range own.fields {
			b.ownValue(f, decls)
		}
	}
	for _, decl := range decls {
		if b.values[decl.name] == nil && decl.required {
			at := b.specNode.at
			if own != nil {
				at = own.at
			}
			b.fail(at, "value %q is missing; blueprint %s requires it", decl.name, b.blueprint.name)
		}
	}
	known := b.evaluate(b.values, decls)
	for name := range decls { // a missing one is one problem, not one more at each use
		if _, ok := known[name]; !ok {
			known[name] = Value{dynamic}
		}
	}
	b.instance.Values = known
}

func (b *builder) ownValue(f field, decls map[string]*declaration) {
	switch {
	case b.blueprint != nil && decls[f.name] == nil:
		b.fail(f.at, "blueprint %s declares no value %q%s", b.blueprint.name, f.name, HintOr(f.name, slices.Sorted(maps.Keys(decls))))
	case !validIdentifier(f.name):
		b.fail(f.at, "value name %q: use letters, digits and underscores", f.name)
	case f.value.kind == scalarNode && f.value.tag == "!!null":
		b.fail(f.at, "%s has no value", f.name)
	default:
		d := &Decoder{}
		d.tree(f.value)
		b.problems = append(b.problems, d.problems...)
		b.values[f.name] = f.value
	}
}

func (b *builder) blueprintNode(pick func(*blueprintSpec) Tree) *node {
	if b.blueprint == nil {
		return nil
	}
	return pick(&b.blueprint.spec).n
}

func (b *builder) makeSecrets() {
	n := merged(b.blueprintNode(func(s *blueprintSpec) Tree { return s.Secrets }), b.spec.Secrets.n)
	b.secret, b.public, b.sops = map[string]bool{}, map[string]bool{}, map[string]*sopsfile.File{}
	if n == nil {
		return
	}
	d := &Decoder{}
	var specs map[string]secretSpec
	d.Decode(Tree{n}, &specs)
	if n.kind == mappingNode {
		for _, f := range n.fields {
			b.makeSecret(d, f, specs[f.name])
		}
	}
	for _, secret := range b.instance.Secrets {
		public, has := secret.PublicName()
		if _, taken := b.instance.Values[public]; has && (taken || b.secret[public]) {
			d.Errorf(secret.Position, "secret %s is a key, and %s is its public half: name the other one otherwise", secret.Name, public)
		}
		b.public[public] = has
	}
	b.checkAuthorities(d)
	b.problems = append(b.problems, d.problems...)
}

// makeSecret adds the secret even when something of it is wrong, so that what refers to it is not refused as well.
func (b *builder) makeSecret(d *Decoder, f field, spec secretSpec) {
	b.secret[f.name] = true
	b.instance.Secrets = append(b.instance.Secrets, SecretSpec{
		Name: f.name, Generate: spec.Generate, Provide: spec.Provide, File: spec.File, Position: f.at,
		Source:      b.source(d, f, spec),
		Rotate:      rotation(d, f, spec),
		Certificate: b.certificate(d, f, spec.Generate),
		Keyfile:     spec.Generate != nil && spec.Generate.Kind == "mongodb-keyfile",
	})
	switch {
	case !validIdentifier(f.name):
		d.Errorf(f.at, "secret name %q: use letters, digits and underscores", f.name)
	case f.value.kind != mappingNode: // reported by the decoder
	default:
		checkOrigin(d, f, spec)
	}
	if g := spec.Generate; g != nil && f.value.get("generate").kind == mappingNode {
		at := f.value.get("generate").at
		switch {
		case (g.Kind == "password" || g.Kind == "token") && (g.Length < 12 || g.Length > 1024):
			d.Errorf(at, "length of secret %s must be 12 to 1024", f.name)
		case g.Kind == "rsa" && (g.Bits < 2048 || g.Bits > 8192):
			d.Errorf(at, "bits of secret %s must be 2048 to 8192", f.name)
		}
	}
	if spec.File != nil && spec.File.Path != "" {
		at := f.value.get("file").at
		if !fs.ValidPath(spec.File.Path) || spec.File.Path == "." {
			d.Errorf(at, "file path %q of secret %s must stay inside the secrets folder", spec.File.Path, f.name)
		}
		if !validMode(spec.File.Mode) {
			d.Errorf(at, "mode %q of secret %s must be an octal file mode such as \"0400\"", spec.File.Mode, f.name)
		}
		if spec.File.Owner < 0 || spec.File.Group < 0 {
			d.Errorf(at, "owner and group of secret %s must be numbers of 0 or more", f.name)
		}
	}
}

func validMode(mode string) bool {
	if len(mode) < 3 || len(mode) > 4 {
		return false
	}
	return strings.Trim(mode, "01234567") == "" && (len(mode) == 3 || mode[0] == '0')
}

func (b *builder) makeComponents() {
	base := b.blueprintNode(func(s *blueprintSpec) Tree { return s.Components })
	n := merged(base, b.spec.Components.n)
	if n == nil {
		return
	}
	if n.kind != mappingNode {
		b.fail(n.at, "components must be a map, not %s", n.describe())
		return
	}
	b.broken = map[string]bool{}
	for _, f := range n.fields {
		b.component(f, base.get(f.name))
	}
}

// component decodes one component. base is the blueprint's part of it, if any.
func (b *builder) component(f field, base *node) {
	b.broken[f.name] = true
	switch {
	case !validName(f.name):
		b.fail(f.at, "component name %q: use lower-case letters, digits and hyphens, at most 40", f.name)
		return
	case f.value.kind != mappingNode:
		b.fail(f.at, "component %s must be a map, not %s", f.name, f.value.describe())
		return
	}
	kindNode := f.value.get("kind")
	names := slices.Sorted(maps.Keys(b.l.kinds))
	if kindNode == nil {
		b.fail(f.at, "component %s needs the field \"kind\" (one of %s)", f.name, listed(names))
		return
	}
	kind := b.l.kinds[kindNode.text]
	if kindNode.kind != scalarNode || kind == nil {
		b.fail(kindNode.at, "unknown kind %s%s", kindNode.describe(), HintOr(kindNode.text, names))
		return
	}
	if was := base.get("kind"); was != nil && was.text != kindNode.text {
		b.fail(kindNode.at, "component %s is a %s in blueprint %s; an instance cannot change that", f.name, was.text, b.blueprint.name)
		return
	}
	delete(b.broken, f.name)
	c := &Component{Name: f.name, Kind: kind.Name, Spec: kind.New(), Position: f.at, node: f.value}
	d := &Decoder{}
	d.spec(f.value, c)
	c.exprs = d.exprs
	b.problems = append(b.problems, d.problems...)
	b.instance.Components = append(b.instance.Components, c)
}
