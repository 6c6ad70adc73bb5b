package desired

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// Schema gives the JSON Schema (draft 2020-12) of all manifests, made from the types, for editors and for CI. It is
// wider than Load where only Load can know: a number may stand where an expression may.
func Schema(kinds []Kind) ([]byte, error) {
	s := &schemaMaker{defs: map[string]any{}}
	var variants []any
	for _, m := range []struct {
		kind string
		spec any
	}{{FleetKind, fleetSpec{}}, {HostKind, hostSpec{}}, {BlueprintKind, blueprintSpec{}}, {InstanceKind, instanceSpec{}}} {
		s.defs[m.kind] = s.manifest(m.kind, reflect.TypeOf(m.spec))
		variants = append(variants, map[string]any{"$ref": "#/$defs/" + m.kind})
	}
	s.common(kinds)
	return json.MarshalIndent(map[string]any{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"$id":         "https://dive-agent.invalid/schema/v1alpha1.json",
		"title":       "dive-agent manifests, " + APIVersion,
		"description": "Manifests of a fleet repository.",
		"type":        "object",
		"required":    []string{"apiVersion", "kind", "metadata"},
		"oneOf":       variants,
		"$defs":       s.defs,
	}, "", "  ")
}

type schemaMaker struct {
	defs  map[string]any
	depth int // of structs, bounded for types that hold themselves
}

const maxSchemaDepth = 12

// manifest makes the schema of a kind of file. Values, secrets and components refer to definitions that all kinds share.
func (s *schemaMaker) manifest(kind string, spec reflect.Type) map[string]any {
	required := []string{"apiVersion", "kind", "metadata"}
	if kind != FleetKind {
		required = append(required, "spec")
	}
	body := s.structure(spec)
	properties := body["properties"].(map[string]any)
	partial := kind == InstanceKind // an instance may give only some fields of a blueprint's parts
	for name, def := range map[string]string{"values": "Values", "secrets": "Secrets", "components": "Components"} {
		if _, ok := properties[name]; !ok {
			continue
		}
		switch {
		case name == "values" && kind == BlueprintKind:
			def = "Declarations"
		case partial && name != "values":
			def = "Partial" + def
		}
		properties[name] = map[string]any{"$ref": "#/$defs/" + def, "description": properties[name].(map[string]any)["description"]}
	}
	return map[string]any{
		"type": "object", "additionalProperties": false, "required": required,
		"properties": map[string]any{
			"apiVersion": map[string]any{"const": APIVersion, "description": "Version of the format."},
			"kind":       map[string]any{"const": kind, "description": "What the file declares."},
			"metadata": map[string]any{
				"type": "object", "additionalProperties": false, "required": []string{"name"},
				"properties": map[string]any{"name": map[string]any{
					"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$",
					"description": "Name; the same as the file's or folder's.",
				}},
			},
			"spec": body,
		},
	}
}

// common makes the parts that manifests share.
func (s *schemaMaker) common(kinds []Kind) {
	anything := map[string]any{"type": []string{"string", "number", "boolean", "array", "object"}}
	s.defs["Values"] = map[string]any{"type": "object", "additionalProperties": anything}
	s.defs["Declarations"] = map[string]any{"type": "object", "additionalProperties": map[string]any{"anyOf": []any{
		map[string]any{"type": []string{"string", "number", "boolean", "array"}},
		s.structure(reflect.TypeFor[valueSpec]()),
	}}}
	for _, prefix := range []string{"", "Partial"} {
		secret := s.structure(reflect.TypeFor[secretSpec]())
		components := map[string]any{"type": "object"}
		var variants []any
		for _, kind := range kinds {
			def := s.component(kind, prefix != "")
			s.defs[prefix+kind.Name] = def
			variants = append(variants, map[string]any{"$ref": "#/$defs/" + prefix + kind.Name})
		}
		switch {
		case prefix != "":
			secret = relaxed(secret)
			components["additionalProperties"] = map[string]any{"type": "object", "anyOf": variants}
		default:
			components["additionalProperties"] = map[string]any{"type": "object", "required": []string{"kind"}, "oneOf": variants}
		}
		s.defs[prefix+"Secrets"] = map[string]any{"type": "object", "additionalProperties": secret}
		s.defs[prefix+"Components"] = components
	}
}

func (s *schemaMaker) component(kind Kind, partial bool) map[string]any {
	t := reflect.TypeOf(kind.New()).Elem()
	out := map[string]any{"type": "object", "properties": map[string]any{}}
	if t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(unmarshalerType) {
		out = s.structure(t)
	}
	if partial {
		out = relaxed(out)
	}
	properties := out["properties"].(map[string]any)
	properties["kind"] = map[string]any{"const": kind.Name, "description": kind.Doc}
	if _, own := properties["after"]; !own {
		properties["after"] = map[string]any{
			"type": "array", "items": map[string]any{"type": "string"},
			"description": afterDoc,
		}
	}
	if _, ok := kind.New().(Outputter); ok {
		properties["publish"] = map[string]any{"type": "array", "items": map[string]any{"type": "string"}, "uniqueItems": true, "description": publishDoc}
	}
	out["description"] = kind.Doc
	return out
}

const afterDoc = "Components (or component/part) that must be ready first, where the data does not say so already."

const publishDoc = "Outputs that other instances may read, as ${instances.INSTANCE.COMPONENT.OUTPUT}. Plain ones stand in the instance's status branch as they are, secret ones sealed to the hosts of the instances that read them."

// relaxed is a schema in which nothing is required, all the way down.
func relaxed(schema map[string]any) map[string]any {
	out := make(map[string]any, len(schema))
	for key, value := range schema {
		switch v := value.(type) {
		case map[string]any:
			out[key] = relaxed(v)
		default:
			if key != "required" {
				out[key] = value
			}
		}
	}
	return out
}

func (s *schemaMaker) structure(t reflect.Type) map[string]any {
	if s.depth++; s.depth > maxSchemaDepth {
		s.depth--
		return map[string]any{"type": "object"}
	}
	defer func() { s.depth-- }()
	properties := map[string]any{}
	var required []string
	for _, f := range infoOf(t).fields {
		property := s.of(f.typ, f)
		if f.doc != "" {
			property["description"] = f.doc
		}
		if f.preset != "" {
			property["default"] = presetValue(f)
		}
		if f.required {
			required = append(required, f.name)
		}
		properties[f.name] = property
	}
	out := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

func presetValue(f fieldInfo) any {
	switch f.typ.Kind() {
	case reflect.Bool:
		return f.preset == "true"
	case reflect.Int, reflect.Float64:
		if number, err := strconv.ParseFloat(f.preset, 64); err == nil {
			return number
		}
	}
	return f.preset
}

// of gives the schema of a field's type.
func (s *schemaMaker) of(t reflect.Type, f fieldInfo) map[string]any {
	if reflect.PointerTo(t).Implements(unmarshalerType) || t.Kind() == reflect.Pointer && t.Implements(unmarshalerType) {
		return map[string]any{}
	}
	switch t {
	case exprType:
		return map[string]any{"type": []string{"string", "number", "boolean"}}
	case treeType:
		return map[string]any{}
	case durationType:
		return map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem(), f)
	case reflect.Interface:
		return map[string]any{}
	case reflect.Struct:
		return s.structure(t)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": s.of(t.Elem(), f)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": s.of(t.Elem(), fieldInfo{})}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.String:
		out := map[string]any{"type": []string{"string", "number"}}
		if len(f.enum) > 0 {
			out = map[string]any{"enum": f.enum}
		}
		return out
	}
	out := map[string]any{"type": "integer"}
	if strings.HasPrefix(t.Kind().String(), "uint") {
		out["minimum"] = 0
	}
	return out
}
