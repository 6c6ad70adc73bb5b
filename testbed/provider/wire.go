package main

import (
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"
)

// virtual tells whether a wire is no part of the representation.
func virtual(wire string) bool {
	return wire == "" || wire == "." || strings.HasPrefix(wire, "@")
}

// lookup walks a path of keys separated by "/" through a JSON object.
func lookup(rep object, wire string) any {
	if strings.HasPrefix(wire, "@") {
		return rep[wire]
	}
	var at any = rep
	for _, key := range strings.Split(wire, "/") {
		o, ok := at.(object)
		if !ok {
			return nil
		}
		at = o[key]
	}
	return at
}

func place(rep object, wire string, value any) {
	keys := strings.Split(wire, "/")
	for _, key := range keys[:len(keys)-1] {
		next, ok := rep[key].(object)
		if !ok {
			next = object{}
			rep[key] = next
		}
		rep = next
	}
	rep[keys[len(keys)-1]] = value
}

// encode gives the value as the admin API wants it.
func (f field) encode(v any) (any, error) {
	switch value := v.(type) {
	case nil:
		return nil, nil
	case string:
		if f.how["secs"] {
			d, err := time.ParseDuration(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %q is not a duration such as 15m0s", f.name, value)
			}
			return int64(d / time.Second), nil
		}
		return value, nil
	case bool, int64:
		if f.how["text"] {
			return fmt.Sprint(value), nil
		}
		return value, nil
	case []any:
		if f.how["hash"] {
			all := texts(value)
			sort.Strings(all)
			return strings.Join(all, "##"), nil
		}
		return value, nil
	case object:
		if !f.how["lists"] {
			return value, nil
		}
		lists := object{}
		for name, joined := range value {
			lists[name] = anys(strings.Split(fmt.Sprint(joined), "##"))
		}
		return lists, nil
	}
	return nil, fmt.Errorf("%s: cannot send a %T", f.name, v)
}

// decode gives what the admin API says as a value of the field's type; empty things become nil.
func (f field) decode(live any) any {
	switch f.kind {
	case "bool":
		b, _ := live.(bool)
		if s, ok := live.(string); ok {
			b = s == "true"
		}
		return b
	case "number":
		n, ok := number(live)
		if !ok {
			return nil
		}
		return n
	case "set":
		if joined, ok := live.(string); ok && joined != "" {
			return anys(strings.Split(joined, "##"))
		}
		if list, ok := live.([]any); ok && len(list) > 0 {
			return list
		}
		return nil
	case "map":
		return f.decodeMap(live)
	default:
		return f.decodeString(live)
	}
}

func (f field) decodeString(live any) any {
	if f.how["secs"] {
		n, ok := number(live)
		if !ok {
			return nil
		}
		return (time.Duration(n) * time.Second).String()
	}
	if s, ok := live.(string); ok && s != "" {
		return s
	}
	return nil
}

func (f field) decodeMap(live any) any {
	members, _ := live.(object)
	o := object{}
	for name, m := range members {
		switch value := m.(type) {
		case []any:
			o[name] = strings.Join(texts(value), "##")
		case nil:
		default:
			o[name] = fmt.Sprint(value)
		}
	}
	if len(o) == 0 {
		return nil
	}
	return o
}

func number(live any) (int64, bool) {
	switch n := live.(type) {
	case float64:
		return int64(n), true
	case int64:
		return n, true
	case string:
		i, err := strconv.ParseInt(n, 10, 64)
		return i, err == nil
	}
	return 0, false
}

// same tells whether a value of the state means what is live: spelling, order of sets and the difference
// between empty and null do not count.
func (f field) same(v, live any) bool {
	wanted, err := f.encode(v)
	if err != nil {
		return false
	}
	return reflect.DeepEqual(settle(f.decode(wanted)), settle(f.decode(live)))
}

// settle gives all values that the provider takes for one the same form: nothing, empty, false and 0 are nil; what stands
// in a set, or in a list that is joined by ##, is in order.
func settle(v any) any {
	switch value := v.(type) {
	case []any:
		if len(value) == 0 {
			return nil
		}
		all := texts(value)
		sort.Strings(all)
		return all
	case object:
		o := map[string]any{}
		for name, m := range value {
			if s, ok := m.(string); ok && strings.Contains(s, "##") {
				parts := strings.Split(s, "##")
				sort.Strings(parts)
				m = strings.Join(parts, "##")
			}
			if m != "" && m != nil {
				o[name] = m
			}
		}
		if len(o) == 0 {
			return nil
		}
		return o
	case string:
		if value == "" {
			return nil
		}
	case bool:
		if !value {
			return nil
		}
	case int64:
		if value == 0 {
			return nil
		}
	}
	return v
}

// overlay writes what the plan says over a representation. prior is the state before, nil on create.
func overlay(fields []field, blocks []block, rep, plan, prior object) error {
	for _, f := range fields {
		if err := f.write(rep, plan[f.name], prior[f.name], prior == nil); err != nil {
			return err
		}
	}
	for _, b := range blocks {
		now, before := only(plan[b.name]), only(prior[b.name])
		if now == nil && before == nil {
			continue
		}
		if b.flag.wire != "" {
			if err := b.flag.write(rep, now != nil, nil, false); err != nil {
				return err
			}
		}
		if err := overlay(b.fields, b.blocks, rep, now, before); err != nil {
			return err
		}
	}
	return nil
}

// write puts the planned value into the representation. What the plan leaves open stays as it is live; on create it gets
// the provider's standard. What the plan takes away is emptied, unless it is empty already or somebody else's to set.
func (f field) write(rep object, v, before any, creating bool) error {
	if virtual(f.wire) {
		if f.wire == "" && settle(v) != nil && !isUnknown(v) && !reflect.DeepEqual(v, before) {
			return fmt.Errorf("%s is not supported by the test bed's provider", f.name)
		}
		return nil
	}
	if isUnknown(v) || v == nil && f.computed {
		if !creating || f.standard == nil {
			return nil
		}
		v = f.standard
	}
	if f.how["own"] {
		f.writeOwn(rep, v, before)
		return nil
	}
	if v == nil {
		v = f.standard
	}
	if v == nil {
		if before == nil && f.how["loose"] || settle(f.decode(lookup(rep, f.wire))) == nil {
			return nil
		}
		v = map[string]any{"string": "", "bool": false, "number": int64(0), "set": []any{}, "map": object{}}[f.kind]
		if f.how["secs"] {
			return nil
		}
	}
	wanted, err := f.encode(v)
	if err != nil {
		return err
	}
	place(rep, f.wire, wanted)
	return nil
}

// writeOwn sets the keys that are ours and empties those that were.
func (f field) writeOwn(rep object, v, before any) {
	members, _ := v.(object)
	were, _ := before.(object)
	for name := range were {
		if _, still := members[name]; !still {
			place(rep, f.wire+"/"+name, "")
		}
	}
	for name, m := range members {
		place(rep, f.wire+"/"+name, m)
	}
}

// observe gives the state that says what is live, in the words of the state before wherever these mean the
// same.
func observe(fields []field, blocks []block, rep, prior object) object {
	state := object{}
	for _, f := range fields {
		state[f.name] = f.read(rep, prior[f.name])
	}
	for _, b := range blocks {
		state[b.name] = prior[b.name]
		if b.max != 1 || b.flag.wire == "." {
			continue
		}
		if b.flag.wire != "" && b.flag.decode(lookup(rep, b.flag.wire)) != true {
			state[b.name] = nil
		} else if before := only(prior[b.name]); before != nil {
			state[b.name] = []any{observe(b.fields, b.blocks, rep, before)}
		}
	}
	return state
}

// read gives the value for the state: the one before where the live one means the same, and where the API does not tell
// it (a masked secret), so that a plan shows no difference that is none.
func (f field) read(rep object, prior any) any {
	if f.wire == "" || f.wire == "." || f.how["masked"] || prior == nil && f.how["loose"] {
		if isUnknown(prior) {
			return nil
		}
		return prior
	}
	live := lookup(rep, f.wire)
	if f.how["own"] {
		return f.readOwn(live, prior)
	}
	if isUnknown(prior) {
		return f.decode(live)
	}
	meant := prior
	if meant == nil {
		meant = f.standard
	}
	if f.same(meant, live) && (prior != nil || !f.computed) {
		return prior
	}
	return f.decode(live)
}

func (f field) readOwn(live, prior any) any {
	mine, _ := prior.(object)
	if mine == nil {
		return nil
	}
	there, _ := live.(object)
	o := object{}
	for name := range mine {
		if value, found := there[name]; found {
			o[name] = fmt.Sprint(value)
		}
	}
	return o
}

// only is the one object in a list of at most one.
func only(v any) object {
	list, _ := v.([]any)
	if len(list) == 0 {
		return nil
	}
	o, _ := list[0].(object)
	return o
}
