package desired

import (
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

type secretMark struct{}

// Value is what an expression gives. It may be unknown (an output that does not exist yet) and it may be secret; a
// value made from an unknown is unknown, one made from a secret is secret. The zero Value is an unknown plain string.
type Value struct{ v cty.Value }

// ValueOf wraps a cty value, marks included.
func ValueOf(v cty.Value) Value { return Value{v} }

// String is a known plain text.
func String(s string) Value { return Value{cty.StringVal(s)} }

// Secret is a known text that must never be shown.
func Secret(s string) Value { return Value{cty.StringVal(s).Mark(secretMark{})} }

// Unknown is a text that is known only after something was applied.
func Unknown() Value { return Value{cty.UnknownVal(cty.String)} }

// Object is a value of named values, each as known and as secret as it is.
func Object(fields map[string]Value) Value { return object(fields) }

// Fields gives the values of an object or a map by their names; false: it is none, or not known.
func (v Value) Fields() (map[string]Value, bool) {
	raw, marks := v.Cty().Unmark()
	if !raw.IsKnown() || raw.IsNull() || !raw.Type().IsObjectType() && !raw.Type().IsMapType() {
		return nil, false
	}
	fields := map[string]Value{}
	for name, field := range raw.AsValueMap() {
		fields[name] = Value{field.WithMarks(marks)}
	}
	return fields, true
}

// AsSecret is the value as one that must never be shown.
func (v Value) AsSecret() Value { return Value{v.Cty().Mark(secretMark{})} }

// UnknownSecret is a secret that does not exist yet.
func UnknownSecret() Value { return Value{cty.UnknownVal(cty.String).Mark(secretMark{})} }

// Cty gives the wrapped value, marks included.
func (v Value) Cty() cty.Value {
	if v.v == cty.NilVal {
		return cty.UnknownVal(cty.String)
	}
	return v.v
}

// Known says whether the whole value is known.
func (v Value) Known() bool { return v.Cty().IsWhollyKnown() }

// Secret says whether any part of the value is secret.
func (v Value) Secret() bool { return v.Cty().ContainsMarked() }

// Text gives the value as text, secret or not: the caller decides where it may go. It is "" when unknown or null.
func (v Value) Text() string {
	raw, _ := v.Cty().UnmarkDeep()
	if !raw.IsWhollyKnown() || raw.IsNull() {
		return ""
	}
	text, err := convert.Convert(raw, cty.String)
	if err != nil || text.IsNull() {
		return ""
	}
	return text.AsString()
}

// Display gives what people may see: the text, "(secret)" or "(known after apply)".
func (v Value) Display() string {
	switch {
	case v.Secret():
		return "(secret)"
	case !v.Known():
		return "(known after apply)"
	}
	return v.Text()
}

// Equal says whether both are known and the same, secret or not.
func (v Value) Equal(o Value) bool {
	a, _ := v.Cty().UnmarkDeep()
	b, _ := o.Cty().UnmarkDeep()
	return a.IsWhollyKnown() && b.IsWhollyKnown() && a.RawEquals(b)
}
