package main

import (
	"fmt"
	"math/big"

	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// Values of Terraform as plain Go: nil for null, unknown for unknown, string, bool, int64, []any for lists
// and sets, map[string]any for maps and objects.

type object = map[string]any

type unknownValue struct{}

var unknown = unknownValue{}

func isUnknown(v any) bool { return v == any(unknown) }

func toObject(v tftypes.Value) (object, error) {
	plain, err := toGo(v)
	if err != nil {
		return nil, err
	}
	if plain == nil {
		return nil, nil
	}
	o, ok := plain.(object)
	if !ok {
		return nil, fmt.Errorf("not an object: %s", v.Type())
	}
	return o, nil
}

// toGo gives nil for null, unknown for what is not known yet, and numbers as int64: no field of the provider has others.
func toGo(v tftypes.Value) (any, error) {
	switch {
	case v.IsNull():
		return nil, nil
	case !v.IsKnown():
		return unknown, nil
	case v.Type().Is(tftypes.String):
		var s string
		err := v.As(&s)
		return s, err
	case v.Type().Is(tftypes.Bool):
		var b bool
		err := v.As(&b)
		return b, err
	case v.Type().Is(tftypes.Number):
		var n big.Float
		err := v.As(&n)
		i, _ := n.Int64()
		return i, err
	case v.Type().Is(tftypes.Map{}), v.Type().Is(tftypes.Object{}):
		return toGoMap(v)
	default:
		var elements []tftypes.Value
		if err := v.As(&elements); err != nil {
			return nil, err
		}
		list := make([]any, len(elements))
		for i, e := range elements {
			plain, err := toGo(e)
			if err != nil {
				return nil, err
			}
			list[i] = plain
		}
		return list, nil
	}
}

func toGoMap(v tftypes.Value) (any, error) {
	var members map[string]tftypes.Value
	if err := v.As(&members); err != nil {
		return nil, err
	}
	o := object{}
	for name, m := range members {
		plain, err := toGo(m)
		if err != nil {
			return nil, err
		}
		o[name] = plain
	}
	return o, nil
}

// fromGo makes a value of exactly the given type. A member that an object lacks is null, and a nested block
// that is null becomes an empty one, as Terraform has it.
func fromGo(t tftypes.Type, v any) (tftypes.Value, error) {
	if isUnknown(v) {
		return tftypes.NewValue(t, tftypes.UnknownValue), nil
	}
	switch typ := t.(type) {
	case tftypes.Object:
		return fromGoObject(typ, v)
	case tftypes.Map:
		if v == nil {
			return tftypes.NewValue(t, nil), nil
		}
		members := map[string]tftypes.Value{}
		for name, m := range v.(object) {
			value, err := fromGo(typ.ElementType, m)
			if err != nil {
				return tftypes.Value{}, err
			}
			members[name] = value
		}
		return tftypes.NewValue(t, members), nil
	case tftypes.List:
		return fromGoList(t, typ.ElementType, v)
	case tftypes.Set:
		return fromGoList(t, typ.ElementType, v)
	}
	if v == nil {
		return tftypes.NewValue(t, nil), nil
	}
	if err := tftypes.ValidateValue(t, v); err != nil {
		return tftypes.Value{}, err
	}
	return tftypes.NewValue(t, v), nil
}

func fromGoObject(t tftypes.Object, v any) (tftypes.Value, error) {
	if v == nil {
		return tftypes.NewValue(t, nil), nil
	}
	o, ok := v.(object)
	if !ok {
		return tftypes.Value{}, fmt.Errorf("%T is not an object", v)
	}
	members := map[string]tftypes.Value{}
	for name, mt := range t.AttributeTypes {
		value, err := fromGo(mt, o[name])
		if err != nil {
			return tftypes.Value{}, fmt.Errorf("%s: %w", name, err)
		}
		members[name] = value
	}
	return tftypes.NewValue(t, members), nil
}

func fromGoList(t, element tftypes.Type, v any) (tftypes.Value, error) {
	if v == nil {
		if element.Is(tftypes.Object{}) {
			return tftypes.NewValue(t, []tftypes.Value{}), nil
		}
		return tftypes.NewValue(t, nil), nil
	}
	list, ok := v.([]any)
	if !ok {
		return tftypes.Value{}, fmt.Errorf("%T is not a list", v)
	}
	elements := make([]tftypes.Value, len(list))
	for i, e := range list {
		value, err := fromGo(element, e)
		if err != nil {
			return tftypes.Value{}, err
		}
		elements[i] = value
	}
	return tftypes.NewValue(t, elements), nil
}

// text is a string member, "" for null, unknown and missing.
func text(o object, name string) string {
	s, _ := o[name].(string)
	return s
}

// texts is a set of strings as Go strings.
func texts(v any) []string {
	list, _ := v.([]any)
	all := make([]string, 0, len(list))
	for _, e := range list {
		if s, ok := e.(string); ok {
			all = append(all, s)
		}
	}
	return all
}

// anys is the reverse of texts.
func anys(list []string) []any {
	all := make([]any, len(list))
	for i, s := range list {
		all[i] = s
	}
	return all
}
