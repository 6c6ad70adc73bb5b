package desired

import (
	"errors"
	"fmt"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Portable gives a known value, secret or not, as a text that ParsePortable reads on another host: a text as it is, anything else
// as JSON. What is unknown or null is an error. Where the text may go is for the caller to decide.
func (v Value) Portable() (text string, isJSON bool, err error) {
	raw, _ := v.Cty().UnmarkDeep()
	switch {
	case !raw.IsWhollyKnown():
		return "", false, errors.New("the value is not known")
	case raw.IsNull():
		return "", false, errors.New("the value is null")
	case raw.Type() == cty.String:
		return raw.AsString(), false, nil
	}
	content, err := ctyjson.Marshal(raw, raw.Type())
	if err != nil {
		return "", false, fmt.Errorf("a value of type %s has no JSON", raw.Type().FriendlyName())
	}
	return string(content), true, nil
}

// ParsePortable reads what Portable gave. Lists come back as tuples and maps as objects, which expressions use alike. An
// error repeats nothing of the text.
func ParsePortable(text string, isJSON, secret bool) (Value, error) {
	value := cty.StringVal(text)
	if isJSON {
		typ, err := ctyjson.ImpliedType([]byte(text))
		if err == nil {
			value, err = ctyjson.Unmarshal([]byte(text), typ)
		}
		if err != nil || value.IsNull() {
			return Value{}, errors.New("it is no JSON value")
		}
	}
	if secret {
		value = value.Mark(secretMark{})
	}
	return Value{value}, nil
}

// Entry is the value that an output with one for each instance has for one of them: a field of an object or map. It is secret
// when the whole is. False: there is none.
func (v Value) Entry(name string) (Value, bool) {
	raw, marks := v.Cty().Unmark()
	if !raw.IsKnown() || raw.IsNull() {
		return Value{}, false
	}
	switch typ := raw.Type(); {
	case typ.IsObjectType() && typ.HasAttribute(name):
		return Value{raw.GetAttr(name).WithMarks(marks)}, true
	case typ.IsMapType() && raw.HasIndex(cty.StringVal(name)).True():
		return Value{raw.Index(cty.StringVal(name)).WithMarks(marks)}, true
	}
	return Value{}, false
}
