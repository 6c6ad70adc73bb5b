package main

import (
	"context"
	"reflect"
	"sort"
)

// userProfile is the realm's declaration of what a user may have. The whole of it is one representation.
func userProfile() *kind {
	k := &kind{
		name: "realm_user_profile",
		fields: parseFields("realm_user_profile", `
id                         string OC .
realm_id                   string RF .
unmanaged_attribute_policy string O  unmanagedAttributePolicy
`),
		blocks: []block{
			{name: "attribute", fields: parseFields("attribute", `
annotations         map    O .
default_value       string O .
display_name        string O .
enabled_when_scope  set    O .
group               string O .
multi_valued        bool   O .
name                string R .
required_for_roles  set    O .
required_for_scopes set    O .
`), blocks: []block{
				{name: "permissions", max: 1, fields: parseFields("permissions", "edit set R .\nview set R .")},
				{name: "validator", set: true, fields: parseFields("validator", "name string R .\nconfig map O .")},
			}},
			{name: "group", set: true, fields: parseFields("group", `
annotations         map    O .
display_description string O .
display_header      string O .
name                string R .
`)},
		},
	}
	k.item = func(s object) string { return inRealm(text(s, "realm_id"), "users", "profile") }
	k.create = func(ctx context.Context, c *client, plan object) (string, error) {
		return text(plan, "realm_id"), c.put(ctx, k.item(plan), profileOf(plan))
	}
	k.update = func(ctx context.Context, c *client, plan, _ object) error {
		return c.put(ctx, k.item(plan), profileOf(plan))
	}
	k.remove = func(ctx context.Context, c *client, s object) error {
		all := []any{}
		for _, name := range []string{"username", "email", "firstName", "lastName"} {
			all = append(all, object{
				"name": name, "displayName": "${" + name + "}",
				"permissions": object{"view": []string{"admin", "user"}, "edit": []string{"admin", "user"}},
			})
		}
		return c.put(ctx, k.item(s), object{"attributes": all})
	}
	k.settle = func(rep, prior object) object {
		state := observe(k.fields, nil, rep, prior)
		state["attribute"], state["group"] = prior["attribute"], prior["group"]
		if len(rep) > 0 && !reflect.DeepEqual(plain(profileOf(prior)), plain(rep)) {
			state["attribute"], state["group"] = attributesSeen(rep), groupsSeen(rep)
		}
		return state
	}
	return k
}

// profileOf is the representation that a state asks for.
func profileOf(s object) object {
	rep := object{}
	if policy := text(s, "unmanaged_attribute_policy"); policy != "" {
		rep["unmanagedAttributePolicy"] = policy
	}
	attributes := []any{}
	for _, one := range objects(s["attribute"]) {
		a := object{
			"name": one["name"], "displayName": one["display_name"], "group": one["group"],
			"multivalued": one["multi_valued"] == true, "annotations": one["annotations"], "defaultValue": one["default_value"],
		}
		if scopes := texts(one["enabled_when_scope"]); len(scopes) > 0 {
			a["selector"] = object{"scopes": anys(scopes)}
		}
		roles, scopes := texts(one["required_for_roles"]), texts(one["required_for_scopes"])
		if len(roles)+len(scopes) > 0 {
			a["required"] = object{"roles": anys(roles), "scopes": anys(scopes)}
		}
		if p := only(one["permissions"]); p != nil {
			a["permissions"] = object{"view": p["view"], "edit": p["edit"]}
		}
		validations := object{}
		for _, v := range objects(one["validator"]) {
			config, _ := v["config"].(object)
			if config == nil {
				config = object{}
			}
			validations[text(v, "name")] = config
		}
		a["validations"] = validations
		attributes = append(attributes, a)
	}
	groups := []any{}
	for _, one := range objects(s["group"]) {
		groups = append(groups, object{
			"name": one["name"], "displayHeader": one["display_header"],
			"displayDescription": one["display_description"], "annotations": one["annotations"],
		})
	}
	rep["attributes"], rep["groups"] = attributes, groups
	return rep
}

func attributesSeen(rep object) any {
	all := []any{}
	for _, one := range objects(rep["attributes"]) {
		required, _ := one["required"].(object)
		selector, _ := one["selector"].(object)
		a := object{
			"name": one["name"], "display_name": one["displayName"], "group": one["group"], "default_value": one["defaultValue"],
			"annotations": words(one["annotations"]), "enabled_when_scope": selector["scopes"],
			"required_for_roles": required["roles"], "required_for_scopes": required["scopes"],
		}
		if one["multivalued"] == true {
			a["multi_valued"] = true
		}
		if p, ok := one["permissions"].(object); ok {
			a["permissions"] = []any{object{"view": listOf(p["view"]), "edit": listOf(p["edit"])}}
		}
		validators := []any{}
		validations, _ := one["validations"].(object)
		for name, config := range validations {
			validators = append(validators, object{"name": name, "config": words(config)})
		}
		a["validator"] = validators
		all = append(all, a)
	}
	return all
}

func groupsSeen(rep object) any {
	all := []any{}
	for _, one := range objects(rep["groups"]) {
		all = append(all, object{
			"name": one["name"], "display_header": one["displayHeader"],
			"display_description": one["displayDescription"], "annotations": words(one["annotations"]),
		})
	}
	return all
}

func listOf(v any) any {
	if v == nil {
		return []any{}
	}
	return v
}

// words is a map whose values are all strings, nil when it is empty.
func words(v any) any { return field{kind: "map"}.decode(v) }

func objects(v any) []object {
	list, _ := v.([]any)
	var all []object
	for _, e := range list {
		if o, ok := e.(object); ok {
			all = append(all, o)
		}
	}
	return all
}

// plain is a JSON value without what is empty, with lists of strings in order and numbers as text, to compare.
func plain(v any) any {
	switch value := v.(type) {
	case object:
		o := object{}
		for name, m := range value {
			if m = plain(m); m != nil {
				o[name] = m
			} else if name == "permissions" {
				o[name] = object{}
			}
		}
		if len(o) == 0 {
			return nil
		}
		return o
	case []any:
		if len(value) == 0 {
			return nil
		}
		if all := texts(value); len(all) == len(value) {
			sort.Strings(all)
			return all
		}
		all := make([]any, len(value))
		for i, e := range value {
			all[i] = plain(e)
		}
		return all
	case string:
		if value == "" {
			return nil
		}
	case bool:
		if !value {
			return nil
		}
	}
	return v
}
