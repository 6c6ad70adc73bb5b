package desired

import "github.com/zclconf/go-cty/cty"

// WithOutputs gives a scope in which the component's name is the object of its outputs. Declared outputs that are not
// known yet are unknown, and secret where the kind declares them so.
func (s *Scope) WithOutputs(c *Component, known map[string]Value) *Scope {
	outputter, ok := c.Spec.(Outputter)
	if !ok {
		return s
	}
	return s.With(map[string]Value{c.Name: object(outputsOf(outputter, known))})
}

func outputsOf(outputter Outputter, known map[string]Value) map[string]Value {
	outputs := outputter.Outputs()
	fields := make(map[string]Value, len(outputs))
	for _, output := range outputs {
		value, ok := known[output.Name]
		switch {
		case ok:
		default:
			value = unknownOutput(output)
		}
		fields[output.Name] = value
	}
	return fields
}

// unknownOutput is an output before it is known.
func unknownOutput(o Output) Value {
	v := Unknown()
	if o.PerInstance {
		v = Value{cty.DynamicVal}
	}
	if o.Secret {
		return v.AsSecret()
	}
	return v
}

func object(fields map[string]Value) Value {
	values := make(map[string]cty.Value, len(fields))
	for name, value := range fields {
		values[name] = value.Cty()
	}
	return Value{cty.ObjectVal(values)}
}
