package keycloak

import (
	"maps"
	"slices"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// parents are the attributes by which a resource says what it belongs to. Those that end in _id hold the other one's id.
var parents = []string{"realm_id", "client_id", "client_scope_id", "parent_id", "group_id", "user_id", "execution_id"}

// wishOf is what a plan says of a resource that is to be created, with the ids of its parents where they are known by now.
func (a *adopter) wishOf(plan *tfjson.Plan, rc *tfjson.ResourceChange) wish {
	after, _ := rc.Change.After.(map[string]any)
	x := wish(maps.Clone(after))
	if x == nil {
		x = wish{}
	}
	unknown, _ := rc.Change.AfterUnknown.(map[string]any)
	text := textOf(plan, rc)
	if text == nil {
		return x
	}
	for _, name := range parents {
		if unknown[name] != true || text.Expressions[name] == nil || text.Expressions[name].ExpressionData == nil {
			continue
		}
		if id := a.ids[parentOf(plan, rc, text.Expressions[name].References)]; id != "" {
			x[name] = id
		}
	}
	return x
}

// textOf gives a resource as the module's own text has it; nil for those of modules that it calls, whose references are by
// other names.
func textOf(plan *tfjson.Plan, rc *tfjson.ResourceChange) *tfjson.ConfigResource {
	if plan.Config == nil || plan.Config.RootModule == nil || rc.ModuleAddress != "" {
		return nil
	}
	for _, one := range plan.Config.RootModule.Resources {
		if one.Mode == tfjson.ManagedResourceMode && one.Type == rc.Type && one.Name == rc.Name {
			return one
		}
	}
	return nil
}

// parentOf gives the address that an expression's references mean, when they mean one resource for sure and take its id:
// `keycloak_realm.this.id`, `keycloak_role.each["reader"].id`, or, from an instance with a key, `keycloak_group.each[each.key].id`.
// It is empty for all others.
func parentOf(plan *tfjson.Plan, rc *tfjson.ResourceChange, references []string) string {
	var (
		address string
		own     bool // the key is that of the resource which refers
	)
	for _, reference := range references {
		switch {
		case reference == "each.key" || reference == "count.index":
			own = true
		case address == "": // the first one is the longest
			address = reference
		case !strings.HasPrefix(address, reference):
			return "" // of two things
		}
	}
	address = strings.TrimSuffix(address, ".id")
	if own {
		key := strings.TrimPrefix(rc.Address, rc.Type+"."+rc.Name)
		if key == "" || strings.HasSuffix(address, "]") {
			return ""
		}
		address += key
	}
	if !slices.ContainsFunc(plan.ResourceChanges, func(other *tfjson.ResourceChange) bool {
		return other.Address == address && other.Mode == tfjson.ManagedResourceMode
	}) {
		return ""
	}
	return address
}
