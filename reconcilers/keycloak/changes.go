package keycloak

import (
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"

	"dive-agent/reconcilers"
)

// changesOf lists what a Terraform plan would do. It has addresses and names of attributes, and no value.
func changesOf(p *planned, s *Spec) []reconcilers.Change {
	var changes []reconcilers.Change
	for _, rc := range p.plan.ResourceChanges {
		if c, ok := changeOf(rc, p.stream.drift[rc.Address]); ok {
			s.guard(rc, &c)
			changes = append(changes, c)
		}
	}
	for _, name := range sortedKeys(p.plan.OutputChanges) {
		oc := p.plan.OutputChanges[name]
		if oc.Actions.NoOp() || oc.Actions.Read() {
			continue
		}
		c := reconcilers.Change{Action: reconcilers.Update, Address: "output." + name, Reason: "its value changes"}
		if oc.Actions.Create() {
			c.Action, c.Reason = reconcilers.Create, "new"
		} else if oc.Actions.Delete() {
			c.Action, c.Reason = reconcilers.Delete, "the module has it no longer"
		}
		changes = append(changes, c)
	}
	return changes
}

// changeOf words one of Terraform's changes; false when it changes nothing. drift is what was seen to have happened to the
// resource outside of Terraform.
func changeOf(rc *tfjson.ResourceChange, drift string) (reconcilers.Change, bool) {
	c := reconcilers.Change{Address: rc.Address}
	actions := rc.Change.Actions
	switch {
	case rc.Mode != tfjson.ManagedResourceMode || actions.Read():
		return c, false
	case rc.Change.Importing != nil && !actions.Replace():
		c.Action, c.Reason, c.Details = reconcilers.Update, "taken over as it is in the realm", attributes(rc)
	case actions.NoOp():
		return c, false
	case actions.Create() && drift == "delete":
		// What was there before and is gone is no small thing: a realm that was lost with its database looks like this.
		c.Action, c.Reason, c.Destroys = reconcilers.Create, "was deleted outside of Terraform; what it held is lost", true
	case actions.Create():
		c.Action, c.Reason = reconcilers.Create, "new"
	case actions.Replace():
		c.Action, c.Destroys = reconcilers.Replace, true
		c.Reason = "cannot be changed in place: " + strings.Join(replacing(rc), ", ")
		c.Details = attributes(rc)
	case actions.Delete():
		c.Action, c.Reason, c.Destroys = reconcilers.Delete, "the module has it no longer", true
	default:
		c.Action, c.Details = reconcilers.Update, attributes(rc)
		c.Reason = strings.Join(c.Details, ", ")
		if drift == "update" {
			c.Reason += " (changed outside of Terraform)"
		}
	}
	return c, true
}

func replacing(rc *tfjson.ResourceChange) []string {
	var paths []string
	for _, p := range rc.Change.ReplacePaths {
		steps, _ := p.([]any)
		if len(steps) > 0 {
			paths = append(paths, fmt.Sprint(steps[0]))
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// attributes names what an update changes, without values.
func attributes(rc *tfjson.ResourceChange) []string {
	before, _ := rc.Change.Before.(map[string]any)
	after, _ := rc.Change.After.(map[string]any)
	unknown, _ := rc.Change.AfterUnknown.(map[string]any)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(after)) {
		_, pending := unknown[name]
		if pending && unknown[name] == true || !reflect.DeepEqual(before[name], after[name]) {
			names = append(names, name)
		}
	}
	for name, pending := range unknown {
		if _, listed := after[name]; !listed && pending == true {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// contentOf is the digest an approval binds to: every change with its values, the module, the provider, the variables.
func contentOf(w *workspace, in *inputs, p *planned) (string, error) {
	type one struct {
		Address                     string
		Actions                     tfjson.Actions
		Before, After, AfterUnknown any
		Importing                   *tfjson.Importing
	}
	var all []one
	for _, rc := range p.plan.ResourceChanges {
		if rc.Mode == tfjson.ManagedResourceMode && (!rc.Change.Actions.NoOp() || rc.Change.Importing != nil) {
			all = append(all, one{rc.Address, rc.Change.Actions, rc.Change.Before, rc.Change.After, rc.Change.AfterUnknown, rc.Change.Importing})
		}
	}
	slices.SortFunc(all, func(a, b one) int { return strings.Compare(a.Address, b.Address) })
	outputs := map[string]any{}
	for name, oc := range p.plan.OutputChanges {
		if !oc.Actions.NoOp() {
			outputs[name] = []any{oc.Actions, oc.Before, oc.After}
		}
	}
	sum, err := digest(w.key, []any{all, outputs, in.digest, fileHash(filepath.Join(w.module, lockFile))})
	if err != nil {
		return "", err
	}
	return sum[:16], nil
}

// printOf is a plan's changes without values: what it touches, not what to.
func printOf(changes []reconcilers.Change) []string {
	lines := make([]string, len(changes))
	for i, c := range changes {
		lines[i] = strings.TrimSpace(string(c.Action) + " " + c.Address + " " + strings.Join(c.Details, ","))
	}
	return lines
}
