package main

import (
	"context"
	"slices"
	"strings"
)

func peopleKinds() []*kind {
	return []*kind{role(), group(), user(), roleMembership("group_roles", "group_id", "groups"), roleMembership("user_roles", "user_id", "users"), userGroups()}
}

// role is one of the realm or of a client. Its composites are given and taken away apart from it.
func role() *kind {
	k := &kind{
		name: "role",
		fields: parseFields("role", `
id              string OC  .
realm_id        string RF  .
client_id       string OF  .
name            string R   name
description     string OC  description
attributes      map    OC  lists:attributes
composite_roles set    OC  @composites
import          bool   OF  -
`),
		item:  func(s object) string { return inRealm(text(s, "realm_id"), "roles-by-id", text(s, "id")) },
		adopt: realmAndID,
	}
	k.parent = func(s object) string {
		if of := text(s, "client_id"); of != "" {
			return inRealm(text(s, "realm_id"), "clients", of, "roles")
		}
		return inRealm(text(s, "realm_id"), "roles")
	}
	k.identify = func(ctx context.Context, c *client, plan object, _ string) (string, error) {
		var made object
		err := c.get(ctx, k.parent(plan)+"/"+escape(text(plan, "name")), &made)
		return text(made, "id"), err
	}
	k.extend = func(ctx context.Context, c *client, rep, s object) error {
		if rep["clientRole"] == true {
			rep["@client"] = rep["containerId"]
		}
		if rep["composite"] != true {
			return nil
		}
		var live []any
		err := c.get(ctx, k.item(s)+"/composites", &live)
		rep["@composites"] = idsOf(live)
		return err
	}
	k.settle = func(rep, prior object) object {
		s := observe(k.fields, nil, rep, prior)
		if of, ok := rep["@client"].(string); ok {
			s["client_id"] = of
		}
		return s
	}
	k.after = func(ctx context.Context, c *client, plan, prior object) error {
		wanted, known := plan["composite_roles"].([]any)
		if !known || prior == nil && len(wanted) == 0 {
			return nil
		}
		var live []any
		if err := c.get(ctx, k.item(plan)+"/composites", &live); err != nil {
			return err
		}
		return matchRoles(ctx, c, text(plan, "realm_id"), texts(wanted), texts(idsOf(live)),
			func(add []object) error { _, err := c.post(ctx, k.item(plan)+"/composites", add); return err },
			func(drop []object) error { return c.remove(ctx, k.item(plan)+"/composites", drop) })
	}
	return k
}

func idsOf(live []any) any {
	var ids []any
	for _, o := range objects(live) {
		ids = append(ids, o["id"])
	}
	return ids
}

// matchRoles adds and drops so that the live ids become the wanted ones.
func matchRoles(ctx context.Context, c *client, realm string, wanted, live []string, add, drop func([]object) error) error {
	find := func(ids, others []string) (all []object, err error) {
		for _, id := range ids {
			if slices.Contains(others, id) {
				continue
			}
			var rep object
			err := c.get(ctx, inRealm(realm, "roles-by-id", id), &rep)
			if notFound(err) && len(wanted) == 0 {
				continue
			}
			if err != nil {
				return nil, err
			}
			all = append(all, rep)
		}
		return all, nil
	}
	missing, err := find(wanted, live)
	if err == nil && len(missing) > 0 {
		err = add(missing)
	}
	if err != nil {
		return err
	}
	extra, err := find(live, wanted)
	if err == nil && len(extra) > 0 {
		err = drop(extra)
	}
	return err
}

func group() *kind {
	return &kind{
		name: "group",
		fields: parseFields("group", `
id              string OC .
realm_id        string RF .
parent_id       string OF parentId
name            string R  name
description     string O  description
path            string C  path
attributes      map    O  lists:attributes
organization_id string O  -
`),
		parent: func(s object) string {
			if parent := text(s, "parent_id"); parent != "" {
				return inRealm(text(s, "realm_id"), "groups", parent, "children")
			}
			return inRealm(text(s, "realm_id"), "groups")
		},
		item:  func(s object) string { return inRealm(text(s, "realm_id"), "groups", text(s, "id")) },
		adopt: realmAndID,
	}
}

// user: the initial password is set once, when the user is made.
func user() *kind {
	k := &kind{
		name: "user",
		fields: parseFields("user", `
id               string OC .
realm_id         string RF .
username         string RF username
email            string O  email
email_verified   bool   O  emailVerified false
enabled          bool   O  enabled true
first_name       string O  firstName
last_name        string O  lastName
attributes       map    O  lists:attributes
required_actions set    O  requiredActions
import           bool   OF -
`),
		blocks: []block{
			{name: "federated_identity", set: true, fields: parseFields("federated_identity", "identity_provider string R -\nuser_id string R -\nuser_name string R -")},
			{name: "initial_password", max: 1, fields: parseFields("initial_password", "temporary bool O .\nvalue string RS .")},
		},
		parent: func(s object) string { return inRealm(text(s, "realm_id"), "users") },
		item:   func(s object) string { return inRealm(text(s, "realm_id"), "users", text(s, "id")) },
		adopt:  realmAndID,
	}
	k.after = func(ctx context.Context, c *client, plan, prior object) error {
		first := only(plan["initial_password"])
		if prior != nil || first == nil {
			return nil
		}
		return c.put(ctx, k.item(plan)+"/reset-password", object{"type": "password", "value": first["value"], "temporary": first["temporary"] == true})
	}
	return k
}

// roleMembership is which roles a group or a user has. Exhaustive means that it has no others.
func roleMembership(name, of, where string) *kind {
	k := &kind{name: name, fields: parseFields(name, `
id         string OC .
realm_id   string RF .
exhaustive bool   O  .
role_ids   set    R  @roles
`+of+" string RF .")}
	at := func(s object) string { return inRealm(text(s, "realm_id"), where, text(s, of), "role-mappings") }
	live := func(ctx context.Context, c *client, s object) ([]string, error) {
		var mappings struct {
			Realm   []any `json:"realmMappings"`
			Clients map[string]struct {
				Mappings []any `json:"mappings"`
			} `json:"clientMappings"`
		}
		err := c.get(ctx, at(s), &mappings)
		ids := texts(idsOf(mappings.Realm))
		for _, m := range mappings.Clients {
			ids = append(ids, texts(idsOf(m.Mappings))...)
		}
		return ids, err
	}
	apply := func(ctx context.Context, c *client, s object, wanted []string, mayDrop func(string) bool) error {
		have, err := live(ctx, c, s)
		if err != nil {
			return err
		}
		have = slices.DeleteFunc(have, func(id string) bool { return !slices.Contains(wanted, id) && !mayDrop(id) })
		each := func(roles []object, send func(at string, some []object) error) error {
			for to, some := range byContainer(roles) {
				if err := send(at(s)+to, some); err != nil {
					return err
				}
			}
			return nil
		}
		return matchRoles(ctx, c, text(s, "realm_id"), wanted, have,
			func(add []object) error {
				return each(add, func(at string, some []object) error { _, err := c.post(ctx, at, some); return err })
			},
			func(drop []object) error {
				return each(drop, func(at string, some []object) error { return c.remove(ctx, at, some) })
			})
	}
	k.create = func(ctx context.Context, c *client, plan object) (string, error) {
		return text(plan, "realm_id") + "/" + text(plan, of),
			apply(ctx, c, plan, texts(plan["role_ids"]), func(string) bool { return plan["exhaustive"] != false })
	}
	k.update = func(ctx context.Context, c *client, plan, prior object) error {
		were := texts(prior["role_ids"])
		return apply(ctx, c, plan, texts(plan["role_ids"]), func(id string) bool { return plan["exhaustive"] != false || slices.Contains(were, id) })
	}
	k.remove = func(ctx context.Context, c *client, s object) error {
		were := texts(s["role_ids"])
		return apply(ctx, c, s, nil, func(id string) bool { return slices.Contains(were, id) })
	}
	k.read = func(ctx context.Context, c *client, s object) (object, error) {
		ids, err := live(ctx, c, s)
		if s["exhaustive"] == false {
			mine := texts(s["role_ids"])
			ids = slices.DeleteFunc(ids, func(id string) bool { return !slices.Contains(mine, id) })
		}
		return object{"@roles": anys(ids)}, err
	}
	k.adopt = func(id string) (object, error) {
		parts, err := split(id, 2, "{realm}/{"+of+"}")
		if err != nil {
			return nil, err
		}
		return object{"id": id, "realm_id": parts[0], of: parts[1]}, nil
	}
	return k
}

// byContainer sorts roles by the path below role-mappings where they are given.
func byContainer(roles []object) map[string][]object {
	all := map[string][]object{}
	for _, role := range roles {
		to := "/realm"
		if role["clientRole"] == true {
			to = "/clients/" + text(role, "containerId")
		}
		all[to] = append(all[to], role)
	}
	return all
}

// userGroups is in which groups a user is. Exhaustive means that it is in no others.
func userGroups() *kind {
	k := &kind{name: "user_groups", fields: parseFields("user_groups", `
id         string OC .
realm_id   string RF .
user_id    string RF .
exhaustive bool   O  .
group_ids  set    R  @groups
`)}
	at := func(s object) string { return inRealm(text(s, "realm_id"), "users", text(s, "user_id"), "groups") }
	apply := func(ctx context.Context, c *client, s object, wanted, were []string) error {
		var live []any
		if err := c.get(ctx, at(s), &live); err != nil {
			return err
		}
		have := texts(idsOf(live))
		for _, id := range wanted {
			if !slices.Contains(have, id) {
				if err := c.put(ctx, at(s)+"/"+escape(id), object{}); err != nil {
					return err
				}
			}
		}
		for _, id := range have {
			if !slices.Contains(wanted, id) && (s["exhaustive"] != false || slices.Contains(were, id)) {
				if err := c.remove(ctx, at(s)+"/"+escape(id), nil); err != nil {
					return err
				}
			}
		}
		return nil
	}
	k.create = func(ctx context.Context, c *client, plan object) (string, error) {
		return text(plan, "realm_id") + "/" + text(plan, "user_id"), apply(ctx, c, plan, texts(plan["group_ids"]), nil)
	}
	k.update = func(ctx context.Context, c *client, plan, prior object) error {
		return apply(ctx, c, plan, texts(plan["group_ids"]), texts(prior["group_ids"]))
	}
	k.remove = func(ctx context.Context, c *client, s object) error {
		return apply(ctx, c, s, nil, texts(s["group_ids"]))
	}
	k.read = func(ctx context.Context, c *client, s object) (object, error) {
		var live []any
		err := c.get(ctx, at(s), &live)
		ids := texts(idsOf(live))
		if s["exhaustive"] == false {
			mine := texts(s["group_ids"])
			ids = slices.DeleteFunc(ids, func(id string) bool { return !slices.Contains(mine, id) })
		}
		return object{"@groups": anys(ids)}, err
	}
	return k
}

func escape(s string) string { return strings.TrimPrefix(inRealm("", s), "/realms//") }
