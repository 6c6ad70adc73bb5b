package desired

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"gopkg.in/yaml.v3"
)

// Unmarshaler decodes itself. It reports mistakes through d and must cope with any shape of manifest.
type Unmarshaler interface {
	UnmarshalManifest(d *Decoder, t Tree)
}

// Decoder fills types from manifests and collects what is wrong.
type Decoder struct {
	problems Problems
	exprs    []Expr
}

// Errorf reports a problem.
func (d *Decoder) Errorf(at Position, format string, args ...any) {
	d.problems = append(d.problems, Problem{at, fmt.Sprintf(format, args...)})
}

// Decode fills what `into` points to, strictly, as Load does with a spec.
func (d *Decoder) Decode(t Tree, into any) {
	if t.n != nil {
		d.value(t.n, reflect.ValueOf(into).Elem(), "")
	}
}

// decodeSpec fills the spec of a manifest.
func (d *Decoder) decodeSpec(t Tree, into any) {
	if t.n != nil {
		d.value(t.n, reflect.ValueOf(into).Elem(), "spec")
	}
}

// DecodeSpec reads a spec from a YAML text, for tests of kinds. Generic fields of components are no part of it.
func DecodeSpec(k Kind, file string, text []byte) (any, error) {
	n, problems := parseManifest(file, text)
	if len(problems) > 0 {
		return nil, problems
	}
	spec := k.New()
	d := &Decoder{}
	d.value(n, reflect.ValueOf(spec).Elem(), "")
	if len(d.problems) > 0 {
		return nil, d.problems.Sort()
	}
	return spec, nil
}

var (
	exprType        = reflect.TypeFor[Expr]()
	treeType        = reflect.TypeFor[Tree]()
	durationType    = reflect.TypeFor[Duration]()
	positionType    = reflect.TypeFor[Position]()
	unmarshalerType = reflect.TypeFor[Unmarshaler]()
)

// fieldInfo is one field of a spec type, as its tags say.
type fieldInfo struct {
	name     string
	index    []int
	required bool
	preset   string // default
	enum     []string
	doc      string
	shape    string // the type in the manual, where the Go type does not tell
	literal  bool   // a plain text that may hold ${
	late     bool   // nothing waits for what its expressions import
	typ      reflect.Type
}

type structInfo struct {
	fields    []fieldInfo
	byName    map[string]int
	names     []string
	positions [][]int // fields of type Position, filled with the map's place
}

var structInfos sync.Map // reflect.Type -> *structInfo

func infoOf(t reflect.Type) *structInfo {
	if info, ok := structInfos.Load(t); ok {
		return info.(*structInfo)
	}
	info := &structInfo{byName: map[string]int{}}
	info.collect(t, nil)
	for i, f := range info.fields {
		info.byName[f.name] = i
		info.names = append(info.names, f.name)
	}
	structInfos.Store(t, info)
	return info
}

// collect lists the fields that manifests can give, those of inlined structs among them. Fields without a yaml tag are
// the agent's own.
func (info *structInfo) collect(t reflect.Type, index []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		at := append(append([]int(nil), index...), i)
		tag, _ := f.Tag.Lookup("yaml")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case f.Type == positionType && f.IsExported():
			info.positions = append(info.positions, at)
			continue
		case !f.IsExported() || name == "-":
			continue
		case f.Type.Kind() == reflect.Struct && (f.Anonymous && name == "" || strings.Contains(options, "inline")):
			info.collect(f.Type, at)
			continue
		case name == "":
			continue
		}
		field := fieldInfo{
			name: name, index: at, typ: f.Type, doc: f.Tag.Get("doc"), shape: f.Tag.Get("shape"),
			required: f.Tag.Get("required") == "true", preset: f.Tag.Get("default"), literal: f.Tag.Get("literal") == "true",
			late: f.Tag.Get("late") == "true",
		}
		if enum := f.Tag.Get("enum"); enum != "" {
			field.enum = strings.Split(enum, ",")
		}
		info.fields = append(info.fields, field)
	}
}

// value fills v from n. name is the field's name for messages; it may be empty.
func (d *Decoder) value(n *node, v reflect.Value, name string) {
	t := v.Type()
	if v.CanAddr() && reflect.PointerTo(t).Implements(unmarshalerType) {
		v.Addr().Interface().(Unmarshaler).UnmarshalManifest(d, d.tree(n))
		return
	}
	switch t {
	case exprType:
		d.expr(n, v, name)
		return
	case treeType:
		v.Set(reflect.ValueOf(d.tree(n)))
		return
	case durationType:
		d.duration(n, v, name)
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		d.value(n, v.Elem(), name)
	case reflect.Interface:
		v.Set(reflect.ValueOf(d.tree(n)))
	case reflect.Struct:
		d.structure(n, v, name, nil)
	case reflect.Slice:
		d.slice(n, v, name)
	case reflect.Map:
		d.stringMap(n, v, name)
	default:
		d.scalar(n, v, name)
	}
}

// tree hands out a piece as it stands; its texts count as expressions of what is being decoded.
func (d *Decoder) tree(n *node) Tree {
	n.walk(func(n *node) {
		if n.tag == "!!str" {
			p := n.expression()
			d.problems = append(d.problems, p.problems...)
			if !p.expr.static {
				d.exprs = append(d.exprs, p.expr)
			}
		}
	})
	return Tree{n}
}

func (d *Decoder) wrong(n *node, name, want string) {
	if name != "" {
		name += " "
	}
	d.Errorf(n.at, "%smust be %s, not %s", name, want, n.describe())
}

func (d *Decoder) expr(n *node, v reflect.Value, name string) {
	switch {
	case n.kind != scalarNode:
		d.wrong(n, name, "a text")
	case n.tag == "!!null":
		d.Errorf(n.at, `%s has no value; write "" for an empty text`, name)
	default:
		p := n.expression()
		d.problems = append(d.problems, p.problems...)
		if !p.expr.static {
			d.exprs = append(d.exprs, p.expr)
		}
		v.Set(reflect.ValueOf(p.expr))
	}
}

func (d *Decoder) duration(n *node, v reflect.Value, name string) {
	if n.kind != scalarNode || n.tag != "!!str" {
		d.wrong(n, name, `a duration such as "750ms", "30s" or "15m"`)
		return
	}
	duration, err := time.ParseDuration(n.text)
	if err != nil || duration < 0 {
		d.wrong(n, name, `a duration such as "750ms", "30s" or "15m"`)
		return
	}
	v.SetInt(int64(duration))
}

// structure fills a struct. generic are fields that belong to the surroundings and are passed over.
func (d *Decoder) structure(n *node, v reflect.Value, name string, generic []string) {
	info := infoOf(v.Type())
	for _, index := range info.positions {
		v.FieldByIndex(index).Set(reflect.ValueOf(n.at))
	}
	if n.kind != mappingNode {
		d.wrong(n, name, "a map")
		return
	}
	have := make([]bool, len(info.fields))
	for _, f := range n.fields {
		i, known := info.byName[f.name]
		if !known {
			if !contains(generic, f.name) {
				d.unknownField(f, append(append([]string(nil), info.names...), generic...))
			}
			continue
		}
		have[i] = true
		target := v.FieldByIndex(info.fields[i].index)
		if f.value.kind == scalarNode && f.value.tag == "!!null" && info.fields[i].typ.Kind() != reflect.Interface && info.fields[i].typ != treeType {
			d.Errorf(f.at, "%s has no value", f.name)
			continue
		}
		before, exprs := len(d.problems), len(d.exprs)
		d.value(f.value, target, f.name)
		if info.fields[i].late {
			for e := range d.exprs[exprs:] {
				d.exprs[exprs+e].late = true
			}
		}
		if isText(info.fields[i].typ) && !info.fields[i].literal {
			d.checkPlain(f)
		}
		if len(d.problems) == before {
			d.checkEnum(f, target, info.fields[i])
		}
	}
	for i, f := range info.fields {
		switch {
		case have[i]:
		case f.required:
			what := "this"
			if name != "" {
				what = name
			}
			d.Errorf(n.at, "%s needs the field %q", what, f.name)
		case f.preset != "":
			setPreset(v.FieldByIndex(f.index), f.preset)
		}
	}
}

// isText says whether a type is plain text, a list or a map of plain texts.
func isText(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(unmarshalerType) {
		return false
	}
	switch t.Kind() {
	case reflect.String:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return isText(t.Elem())
	}
	return false
}

// checkPlain refuses an expression where nothing would evaluate it.
func (d *Decoder) checkPlain(f field) {
	f.value.walk(func(n *node) {
		if n.kind == scalarNode && n.tag == "!!str" && strings.Contains(n.text, "${") {
			d.Errorf(n.at, "no expression is possible here: %s is a plain text, not %s", f.name, n.describe())
		}
	})
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func (d *Decoder) unknownField(f field, names []string) {
	hint := suggest(f.name, names)
	if hint == "" {
		hint = " (known: " + listed(names) + ")"
	}
	d.Errorf(f.at, "unknown field %q%s", f.name, hint)
}

func (d *Decoder) checkEnum(f field, v reflect.Value, info fieldInfo) {
	if len(info.enum) == 0 {
		return
	}
	check := func(n *node, text string) {
		if !contains(info.enum, text) {
			d.Errorf(n.at, "%s must be one of %s, not %q%s", f.name, strings.Join(info.enum, ", "), text, suggest(text, info.enum))
		}
	}
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch {
	case v.Kind() == reflect.String:
		check(f.value, v.String())
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String && len(f.value.items) == v.Len():
		for i, item := range f.value.items {
			check(item, v.Index(i).String())
		}
	case v.Type() == exprType:
		if e := v.Interface().(Expr); e.static {
			check(f.value, e.source)
		}
	}
}

// setPreset fills a field from its default tag; the tag of a type that it does not fit is documentation alone.
func setPreset(v reflect.Value, preset string) {
	if v.Kind() == reflect.Pointer {
		return
	}
	switch v.Type() {
	case exprType:
		v.Set(reflect.ValueOf(Literal(preset)))
		return
	case durationType:
		if d, err := time.ParseDuration(preset); err == nil {
			v.SetInt(int64(d))
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(preset)
	case reflect.Bool:
		v.SetBool(preset == "true")
	case reflect.Int, reflect.Int64:
		if i, err := strconv.ParseInt(preset, 10, 64); err == nil {
			v.SetInt(i)
		}
	case reflect.Float64:
		if f, err := strconv.ParseFloat(preset, 64); err == nil {
			v.SetFloat(f)
		}
	}
}

func (d *Decoder) slice(n *node, v reflect.Value, name string) {
	if n.kind != sequenceNode {
		d.wrong(n, name, "a list")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		d.value(item, out.Index(i), singular(name))
	}
	v.Set(out)
}

func singular(name string) string {
	if name == "" {
		return ""
	}
	return "an entry of " + name
}

func (d *Decoder) stringMap(n *node, v reflect.Value, name string) {
	if n.kind != mappingNode {
		d.wrong(n, name, "a map")
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(n.fields))
	for _, f := range n.fields {
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(f.value, element, f.name)
		out.SetMapIndex(reflect.ValueOf(f.name).Convert(v.Type().Key()), element)
	}
	v.Set(out)
}

// scalar takes YAML's own types only: a number does not become a truth value nor the reverse, null is no text, and true
// is one only in quotes. It reports what does not fit, or is too large, and leaves v as it is.
func (d *Decoder) scalar(n *node, v reflect.Value, name string) {
	y := yaml.Node{Kind: yaml.ScalarNode, Tag: n.tag, Value: n.text}
	isScalar := n.kind == scalarNode
	switch v.Kind() {
	case reflect.String:
		if !isScalar || n.tag == "!!null" || n.tag == "!!bool" {
			want := "a text"
			if n.tag == "!!bool" {
				want = "a text (in quotes)"
			}
			d.wrong(n, name, want)
			return
		}
		v.SetString(n.text)
	case reflect.Bool:
		var b bool
		if !isScalar || n.tag != "!!bool" || y.Decode(&b) != nil {
			d.wrong(n, name, "true or false")
			return
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var i int64
		if !isScalar || n.tag != "!!int" || y.Decode(&i) != nil || v.OverflowInt(i) {
			d.wrong(n, name, "a whole number")
			return
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var u uint64
		if !isScalar || n.tag != "!!int" || y.Decode(&u) != nil || v.OverflowUint(u) {
			d.wrong(n, name, "a whole number of 0 or more")
			return
		}
		v.SetUint(u)
	case reflect.Float32, reflect.Float64:
		var f float64
		if !isScalar || n.tag != "!!int" && n.tag != "!!float" || y.Decode(&f) != nil {
			d.wrong(n, name, "a number")
			return
		}
		v.SetFloat(f)
	default:
		d.Errorf(n.at, "%s cannot be set in a manifest", name)
	}
}
