package desired

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Manual gives the manifest reference in Markdown, made from the types.
func Manual(kinds []Kind) string {
	r := &referenceMaker{}
	r.line("# Manifest reference")
	r.line("")
	r.line("Made from the types by `go generate`; do not edit. All manifests are YAML, one per file, and strict: an unknown")
	r.line("field, a duplicate key, a wrong type or a name that does not exist is an error with file, line and column.")
	r.line("")
	r.line("| file | kind |")
	r.line("| --- | --- |")
	r.line("| `fleet.yaml` | [Fleet](#fleet) |")
	r.line("| `hosts/<name>.yaml` | [Host](#host) |")
	r.line("| `blueprints/<name>/blueprint.yaml` | [Blueprint](#blueprint) |")
	r.line("| `instances/<name>.yaml` or `instances/<name>/instance.yaml` | [Instance](#instance) |")
	r.line("")
	r.line("Every manifest begins with `apiVersion: %s`, `kind` and `metadata: {name: ...}`; the fields below stand in `spec`.", APIVersion)
	r.expressions()
	r.section("Fleet", "The whole repository.", fleetSpec{})
	r.section("Host", "One Docker host that runs an agent.", hostSpec{})
	r.section("Blueprint", "A reusable body of instances. Files that it names are in its folder, the source folder of its instances.", blueprintSpec{})
	r.part("Declaration of a value", "A value of a blueprint is its default, or a map of:", reflect.TypeFor[valueSpec]())
	r.part("Secret", "Exactly one of `generate`, `provide`, `sops`, `vault`, `gcp`, `hostFile` and `hostEnv`.", reflect.TypeFor[secretSpec]())
	r.section("Instance", "One hub or spoke, bound to one host. Blueprint and instance are merged: maps field by field, lists and plain values are replaced; the instance wins.", instanceSpec{})
	r.line("## Components")
	r.line("")
	r.line("Each component has a `kind`, and `after`: %s", lowerFirst(afterDoc))
	r.line("One that has outputs may have `publish`: %s", lowerFirst(publishDoc))
	r.line("")
	for _, kind := range slices.SortedFunc(slices.Values(kinds), func(a, b Kind) int { return strings.Compare(a.Name, b.Name) }) {
		r.kind(kind)
	}
	return strings.TrimRight(r.text.String(), "\n") + "\n"
}

type referenceMaker struct{ text strings.Builder }

func (r *referenceMaker) line(format string, args ...any) {
	if len(args) == 0 {
		r.text.WriteString(format + "\n")
		return
	}
	fmt.Fprintf(&r.text, format+"\n", args...)
}

func (r *referenceMaker) expressions() {
	r.line("")
	r.line("## Expressions")
	r.line("")
	r.line("In texts, `${...}` is an HCL template. `$${` is a literal `${`, and a plain `$` needs no escape. A value made from a secret is a")
	r.line("secret; a value made from an output that does not exist yet is known after apply, and what uses it waits.")
	r.line("")
	r.line("| name | meaning |")
	r.line("| --- | --- |")
	r.line("| `${code}` | a value of the instance, from its manifest, `fleet.yaml` or the blueprint, in this order |")
	r.line("| `${MONGO_PASSWORD}` | a secret of the instance |")
	r.line("| `${OPAL_KEY_PUBLIC}` | the public half, in PEM, of a secret that is a key (`generate: {kind: rsa}` or `ed25519`); no secret |")
	r.line("| `${database.uri}` | an output of a component |")
	r.line("| `${instance.name}`, `.role`, `.host`, `.project_dir`, `.secrets_dir` | the instance itself |")
	r.line("| `${hub.url}`, `.instance`, `.ca` | the hub, as `fleet.yaml` has it |")
	r.line("| `${fleet.name}`, `.spokes` | the fleet's manifests: each spoke has `name`, `host` and `values`, in the order of names; in components only |")
	r.line("| `${instances.usa.identity.realm_url}` | an output of another instance, which has to publish it (`publish: [realm_url]` at its component); in components only |")
	r.line("")
	r.line("A list or map of others is made by a `for`: `${{for s in fleet.spokes : s.values.code => s.values.idpURL}}`, with `if` for some of them.")
	r.line("What an expression makes of the fleet counts as the instance's own: it is looked at again exactly when that changes.")
	r.line("")
	r.line("Within such a `for`, what the spokes publish is `s.outputs.COMPONENT.OUTPUT`, as in `${{for s in fleet.spokes : s.name => s.outputs.identity.realm_url}}`. It goes")
	r.line("over the spokes that have published all that its body and its condition ask for; the others join when they do, and nothing waits")
	r.line("for them. A spoke is not among those that it goes over itself, and neither is one whose manifest does not publish all of it. The same holds for `fleet.spokes[*]`.")
	r.line("")
	r.line("A value of another instance is unknown until it was published and read; what uses it waits and names it. It is read from the status branch of its")
	r.line("instance, so values of two instances may be made of each other over time, but none may need itself: that is refused. Secret ones stay secret.")
	r.line("")
	names := make([]string, 0, len(functions))
	for name := range functions {
		names = append(names, "`"+name+"`")
	}
	slices.Sort(names)
	r.line("Functions: %s.", strings.Join(names, ", "))
	r.line("")
}

func (r *referenceMaker) section(title, doc string, spec any) {
	r.line("## %s", title)
	r.line("")
	r.line("%s", doc)
	r.line("")
	r.table(reflect.TypeOf(spec))
}

func (r *referenceMaker) part(title, doc string, t reflect.Type) {
	r.line("### %s", title)
	r.line("")
	r.line("%s", doc)
	r.line("")
	r.table(t)
}

func (r *referenceMaker) kind(kind Kind) {
	r.line("### %s", kind.Name)
	r.line("")
	r.line("%s", kind.Doc)
	r.line("")
	spec := kind.New()
	if t := reflect.TypeOf(spec).Elem(); t.Kind() == reflect.Struct {
		r.table(t)
	}
	outputter, ok := spec.(Outputter)
	if !ok || len(outputter.Outputs()) == 0 {
		return
	}
	r.line("| output | |")
	r.line("| --- | --- |")
	for _, output := range outputter.Outputs() {
		doc := output.Doc
		if output.Secret {
			doc = strings.TrimSpace(doc + " Secret.")
		}
		if output.PerInstance {
			doc = strings.TrimSpace(doc + " One for each instance that reads it, by its name.")
		}
		r.line("| `%s` | %s |", output.Name, cell(doc))
	}
	r.line("")
}

// table lists all fields of a type, with those of what is inside under their paths.
func (r *referenceMaker) table(t reflect.Type) {
	r.line("| field | type | |")
	r.line("| --- | --- | --- |")
	r.rows(t, "", 0)
	r.line("")
}

func (r *referenceMaker) rows(t reflect.Type, prefix string, depth int) {
	for _, f := range infoOf(t).fields {
		name := prefix + f.name
		doc := f.doc
		if f.required {
			doc = "**Required.** " + doc
		}
		if len(f.enum) > 0 {
			doc += " One of `" + strings.Join(f.enum, "`, `") + "`."
		}
		if f.preset != "" {
			doc += " Default `" + f.preset + "`."
		}
		typ, inner, suffix := describeType(f.typ)
		if f.shape != "" {
			typ = f.shape
		}
		r.line("| `%s` | %s | %s |", name, typ, cell(doc))
		if inner != nil && depth < 6 {
			r.rows(inner, name+suffix+".", depth+1)
		}
	}
}

func cell(text string) string { return strings.ReplaceAll(strings.TrimSpace(text), "|", "\\|") }

// describeType names a type for people; inner is the struct inside, and suffix what leads to it.
func describeType(t reflect.Type) (name string, inner reflect.Type, suffix string) {
	switch t {
	case exprType:
		return "text with `${...}`", nil, ""
	case treeType:
		return "anything", nil, ""
	case durationType:
		return "duration", nil, ""
	}
	if reflect.PointerTo(t).Implements(unmarshalerType) {
		return "see text", nil, ""
	}
	switch t.Kind() {
	case reflect.Pointer:
		return describeType(t.Elem())
	case reflect.Struct:
		return "map", t, ""
	case reflect.Slice:
		name, inner, suffix := describeType(t.Elem())
		return "list of " + plural(name), inner, "[]" + suffix
	case reflect.Map:
		name, inner, suffix := describeType(t.Elem())
		return "map of name to " + name, inner, ".<name>" + suffix
	case reflect.Bool:
		return "true or false", nil, ""
	case reflect.Interface:
		return "anything", nil, ""
	case reflect.String:
		return "text", nil, ""
	case reflect.Float32, reflect.Float64:
		return "number", nil, ""
	}
	return "whole number", nil, ""
}

func plural(name string) string {
	switch name {
	case "text", "map", "number", "whole number", "duration":
		return name + "s"
	}
	return name
}
