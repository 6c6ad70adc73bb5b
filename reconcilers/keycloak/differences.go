package keycloak

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	tfjson "github.com/hashicorp/terraform-json"

	"dive-agent/reconcilers"
)

// shownValue bounds the text of one value.
const shownValue = 160

const (
	shownSecret  = "(secret)"
	shownUnknown = "(known after apply)"
)

// differencesOf tells what a plan's updates and replacements set, by address. What Terraform takes for sensitive, what its
// name says is a secret (the provider marks neither client_secret nor password) and what the redactor knows is not shown.
func differencesOf(p *planned, redact func(string) string) map[string][]reconcilers.Difference {
	all := map[string][]reconcilers.Difference{}
	for _, rc := range p.plan.ResourceChanges {
		if _, told := changeOf(rc, p.stream.drift[rc.Address]); !told {
			continue
		}
		for _, name := range attributes(rc) {
			d := compared{redact: redact}
			d.add(name, sides(rc.Change).get(name))
			all[rc.Address] = append(all[rc.Address], d.found...)
		}
		if rc.Change.Actions.Create() || rc.Change.Actions.Delete() {
			delete(all, rc.Address)
		}
	}
	for name, oc := range p.plan.OutputChanges {
		if oc.Actions.Update() {
			d := compared{redact: redact}
			d.add("value", pair{oc.Before, oc.After, oc.AfterUnknown, []any{oc.BeforeSensitive, oc.AfterSensitive, looksSecret(name)}})
			all["output."+name] = d.found
		}
	}
	return all
}

// pair is a value before and after, what of it is not known yet, and what of it is sensitive on either side: Terraform
// says both by trees of the value's shape with true in them.
type pair struct {
	before, after, unknown any
	sensitive              []any
}

func sides(c *tfjson.Change) pair {
	return pair{c.Before, c.After, c.AfterUnknown, []any{c.BeforeSensitive, c.AfterSensitive}}
}

// get is the same of one field.
func (p pair) get(name string) pair {
	of := func(v any) any {
		if fields, ok := v.(map[string]any); ok {
			return fields[name]
		}
		if v == true { // the whole tree is unknown, or sensitive
			return true
		}
		return nil
	}
	next := pair{before: of(p.before), after: of(p.after), unknown: of(p.unknown)}
	for _, marks := range p.sensitive {
		next.sensitive = append(next.sensitive, of(marks))
	}
	return next
}

// compared collects differences.
type compared struct {
	redact  func(string) string
	outline bool // there is nothing before: what is there is told
	found   []reconcilers.Difference
}

// add compares a value; the entries of a map and of a list of plain values one by one, all else as a whole.
func (c *compared) add(path string, p pair) {
	before, wasMap := p.before.(map[string]any)
	after, isMap := p.after.(map[string]any)
	if (wasMap || p.before == nil) && (isMap || p.after == nil) && (wasMap || isMap) && p.unknown != true {
		names := map[string]bool{}
		for _, fields := range []map[string]any{before, after} {
			for name := range fields {
				names[name] = true
			}
		}
		if unknown, ok := p.unknown.(map[string]any); ok {
			for name := range unknown {
				names[name] = true
			}
		}
		for _, name := range sortedKeys(names) {
			c.add(path+"."+name, p.get(name))
		}
		return
	}
	if p.unknown == nil && reflect.DeepEqual(p.before, p.after) {
		return
	}
	if !looksSecret(path) && !anyTrue(p.sensitive) && !anyTrue(p.unknown) && c.addList(path, p) {
		return
	}
	d := reconcilers.Difference{Path: c.redact(path), Before: c.show(p.before), After: c.show(p.after)}
	switch {
	case looksSecret(path) || anyTrue(p.sensitive):
		d.Before, d.After = hidden(p.before), hidden(p.after)
	case anyTrue(p.unknown):
		d.After = shownUnknown
	}
	if d.Before != d.After || d.Before == shownSecret {
		c.found = append(c.found, d)
	}
}

// addList compares lists of plain values, in which the place seldom matters: what came and what went. It says whether
// that tells all.
func (c *compared) addList(path string, p pair) bool {
	before, ok := c.plainList(p.before)
	after, also := c.plainList(p.after)
	if !ok || !also || p.before == nil && !c.outline {
		return false
	}
	told := len(c.found)
	for _, one := range after {
		if !slices.Contains(before, one) {
			c.found = append(c.found, reconcilers.Difference{Path: c.redact(path) + "[+]", After: one})
		}
	}
	for _, one := range before {
		if !slices.Contains(after, one) {
			c.found = append(c.found, reconcilers.Difference{Path: c.redact(path) + "[-]", Before: one})
		}
	}
	return len(c.found) > told
}

// plainList gives the shown values of a list that has no lists or maps in it.
func (c *compared) plainList(v any) (shown []string, ok bool) {
	list, ok := v.([]any)
	if !ok {
		return nil, v == nil
	}
	for _, one := range list {
		switch one.(type) {
		case []any, map[string]any:
			return nil, false
		}
		shown = append(shown, c.show(one))
	}
	return shown, true
}

// attributes are what was found, by path; the values of a list each with a path of its own.
func (c *compared) attributes() map[string]string {
	all := map[string]string{}
	for _, d := range c.found {
		if list, ok := strings.CutSuffix(d.Path, "[+]"); ok {
			all[list+"["+d.After+"]"] = "listed"
		} else {
			all[d.Path] = d.After
		}
	}
	return all
}

func hidden(v any) string {
	if v == nil {
		return ""
	}
	return shownSecret
}

// anyTrue says whether true stands anywhere in a tree of marks.
func anyTrue(marks any) bool {
	switch m := marks.(type) {
	case bool:
		return m
	case []any:
		for _, one := range m {
			if anyTrue(one) {
				return true
			}
		}
	case map[string]any:
		for _, one := range m {
			if anyTrue(one) {
				return true
			}
		}
	}
	return false
}

// show is a value in one line, without secrets.
func (c *compared) show(v any) string {
	if v == nil {
		return ""
	}
	text, ok := c.cleaned("", v).(string)
	if !ok || text == "" {
		var b strings.Builder
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(c.cleaned("", v)); err != nil {
			return fmt.Sprint(err)
		}
		text = b.String()
	}
	return cutText(strings.Join(strings.Fields(text), " "), shownValue)
}

// cutText shortens a text to a number of characters.
func cutText(text string, limit int) string {
	if utf8.RuneCountInString(text) > limit {
		return string([]rune(text)[:limit]) + "…"
	}
	return text
}

// cleaned takes secrets out of a value: what the name says is one, and what the redactor knows in each of its texts.
func (c *compared) cleaned(name string, v any) any {
	switch x := v.(type) {
	case nil:
		return nil
	case []any:
		all := make([]any, len(x))
		for i, one := range x {
			all[i] = c.cleaned(name, one)
		}
		return all
	case map[string]any:
		all := map[string]any{}
		for field, one := range x {
			all[c.redact(field)] = c.cleaned(field, one)
		}
		return all
	case string:
		if looksSecret(name) {
			return shownSecret
		}
		return c.redact(x)
	}
	if looksSecret(name) {
		return shownSecret
	}
	return v
}
