package keycloak

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// What a lost or cut off state held is still in the realm, and Terraform would only meet it with a 409. It is taken
// over by `import` blocks. Their ids come from the plan's own values and from what the module's text refers to, so that one
// plan mostly makes all of them known, and a second one takes them over. What stays unknown (a parent that is the result of
// an expression) is known once the imports of the plan before are.

// adoptFile has the import blocks of a plan that takes over.
const adoptFile = "dive_agent_import.tf"

// adoptRounds bounds the rounds of planning.
const adoptRounds = 8

// adopter looks up what is in a realm.
type adopter struct {
	server *server
	mine   func(address string) bool // what may be taken over
	done   map[string]string         // address -> import id
	ids    map[string]string         // address -> id, of what is in the state or was found
	lists  map[string][]map[string]any
}

// newAdopter makes one that begins with import ids that are given.
func newAdopter(s *server, state *tfState, given map[string]string, mine func(string) bool) *adopter {
	a := &adopter{server: s, mine: mine, done: map[string]string{}, ids: state.ids(), lists: map[string][]map[string]any{}}
	for address, id := range given {
		a.found(address, id)
	}
	return a
}

// found remembers an import id. Its last part is what others refer to by `.id`.
func (a *adopter) found(address, id string) {
	a.done[address] = id
	a.ids[address] = id[strings.LastIndex(id, "/")+1:]
}

// adopt plans until nothing more is found to take over. The import blocks stand in the working directory until
// the next plan.
func (a *adopter) adopt(ctx context.Context, w *workspace, in *inputs, s *Spec) (*planned, error) {
	if err := a.server.signIn(ctx, in); err != nil {
		return nil, err
	}
	for range adoptRounds {
		if err := w.writeImports(a.done); err != nil {
			return nil, err
		}
		p, err := w.plan(ctx, in, s.Parallelism)
		if err != nil || !p.changes {
			return p, err
		}
		found, err := a.search(ctx, p.plan)
		if err != nil {
			return nil, err
		}
		if found == 0 {
			return p, nil
		}
	}
	return nil, fmt.Errorf("the realm still has things to take over after %d rounds", adoptRounds)
}

// search looks for all that a plan would create, parents first, and says how many it found.
func (a *adopter) search(ctx context.Context, plan *tfjson.Plan) (int, error) {
	before := len(a.done)
	for {
		known := len(a.done)
		for _, rc := range plan.ResourceChanges {
			if !rc.Change.Actions.Create() || a.done[rc.Address] != "" || !a.mine(rc.Address) {
				continue
			}
			id, err := a.find(ctx, plan, rc)
			if err != nil {
				return 0, fmt.Errorf("look for %s in the realm: %w", rc.Address, err)
			}
			if id != "" {
				a.found(rc.Address, id)
			}
		}
		if len(a.done) == known {
			return known - before, nil
		}
	}
}

// writeImports puts import blocks in the working directory, in place of those that were there.
func (w *workspace) writeImports(ids map[string]string) error {
	name := filepath.Join(w.module, adoptFile)
	if len(ids) == 0 {
		return removeIfThere(name)
	}
	return write(name, []byte(importBlocks(ids)))
}

// importBlocks is the text of import blocks, by address.
func importBlocks(ids map[string]string) string {
	var blocks []string
	for _, address := range sortedKeys(ids) {
		id := strings.NewReplacer("${", "$${", "%{", "%%{").Replace(strconv.Quote(ids[address]))
		blocks = append(blocks, fmt.Sprintf("import {\n  to = %s\n  id = %s\n}\n", address, id))
	}
	return strings.Join(blocks, "\n")
}

// wish is what a resource that is to be created looks like, as far as it is known.
type wish map[string]any

func (x wish) text(name string) string {
	s, _ := x[name].(string)
	return s
}

// find gives the import id of what a planned resource would collide with; "" when there is nothing, or when its
// parents are not known yet, or when its type is simply created over what is there.
func (a *adopter) find(ctx context.Context, plan *tfjson.Plan, rc *tfjson.ResourceChange) (string, error) {
	id, err := a.lookup(ctx, strings.TrimPrefix(rc.Type, "keycloak_"), a.wishOf(plan, rc))
	if errors.Is(err, errAbsent) {
		return "", nil
	}
	return id, err
}

// lookup gives the import id in the form that the provider wants for the type; "" for types that are not looked for.
func (a *adopter) lookup(ctx context.Context, kind string, x wish) (string, error) {
	realm := x.text("realm_id")
	if realm == "" {
		realm = x.text("realm")
	}
	if realm == "" {
		return "", nil
	}
	if strings.HasSuffix(kind, "_protocol_mapper") {
		return a.mapper(ctx, realm, x)
	}
	switch kind {
	case "realm":
		there, err := a.server.realm(ctx, realm)
		if !there {
			return "", err
		}
		return realm, nil
	case "openid_client":
		return a.byName(ctx, realm, "clientId", x.text("client_id"), url.Values{"clientId": {x.text("client_id")}}, "clients")
	case "openid_client_scope":
		return a.byName(ctx, realm, "name", x.text("name"), nil, "client-scopes")
	case "user":
		return a.byName(ctx, realm, "username", x.text("username"), url.Values{"username": {x.text("username")}, "exact": {"true"}}, "users")
	case "authentication_flow":
		return a.byName(ctx, realm, "alias", x.text("alias"), nil, "authentication", "flows")
	case "role":
		if _, of := x["client_id"]; !of {
			return "", nil // the client is not known yet
		}
		if client := x.text("client_id"); client != "" {
			return a.byName(ctx, realm, "name", x.text("name"), nil, "clients", client, "roles")
		}
		return a.byName(ctx, realm, "name", x.text("name"), nil, "roles")
	case "group":
		if _, of := x["parent_id"]; !of {
			return "", nil
		}
		if parent := x.text("parent_id"); parent != "" {
			return a.byName(ctx, realm, "name", x.text("name"), nil, "groups", parent, "children")
		}
		return a.byName(ctx, realm, "name", x.text("name"), nil, "groups")
	case "oidc_identity_provider":
		var provider map[string]any
		if err := a.server.read(ctx, &provider, realm, nil, "identity-provider", "instances", x.text("alias")); err != nil {
			return "", err
		}
		return realm + "/" + x.text("alias"), nil
	case "custom_identity_provider_mapper", "attribute_importer_identity_provider_mapper":
		alias := x.text("identity_provider_alias")
		if alias == "" {
			return "", nil
		}
		id, err := a.byName(ctx, realm, "name", x.text("name"), nil, "identity-provider", "instances", alias, "mappers")
		return strings.Replace(id, "/", "/"+alias+"/", 1), err
	case "authentication_subflow", "authentication_execution", "authentication_execution_config":
		return a.step(ctx, realm, kind, x)
	case "required_action":
		return a.byName(ctx, realm, "alias", x.text("alias"), nil, "authentication", "required-actions")
	case "group_roles":
		return ofParent(realm, x, "group_id")
	case "user_roles":
		return ofParent(realm, x, "user_id")
	}
	return "", nil
}

// ofParent gives the import id of a list of roles: its group's or user's. One that is not the whole list is made beside what
// is there.
func ofParent(realm string, x wish, parent string) (string, error) {
	if x["exhaustive"] == false || x.text(parent) == "" {
		return "", nil
	}
	return realm + "/" + x.text(parent), nil
}

// list reads a list once: what collides with many resources stands in few of them.
func (a *adopter) list(ctx context.Context, realm string, query url.Values, parts ...string) ([]map[string]any, error) {
	key := strings.Join(append([]string{realm, query.Encode()}, parts...), "\n")
	if list, known := a.lists[key]; known {
		return list, nil
	}
	list, err := a.server.list(ctx, realm, query, parts...)
	if err == nil {
		a.lists[key] = list
	}
	return list, err
}

// byName gives realm/id of the one in a list that has the name.
func (a *adopter) byName(ctx context.Context, realm, key, name string, query url.Values, parts ...string) (string, error) {
	if name == "" {
		return "", nil
	}
	if query == nil {
		query = url.Values{"max": {"10000"}}
	}
	list, err := a.list(ctx, realm, query, parts...)
	if err != nil {
		return "", err
	}
	for _, one := range list {
		if one[key] == name {
			if key == "alias" && one["id"] == nil { // a required action is known by its alias
				return realm + "/" + name, nil
			}
			return fmt.Sprintf("%s/%v", realm, one["id"]), nil
		}
	}
	return "", nil
}

func (a *adopter) mapper(ctx context.Context, realm string, x wish) (string, error) {
	kind, folder, parent := "client", "clients", x.text("client_id")
	if scope := x.text("client_scope_id"); scope != "" {
		kind, folder, parent = "client-scope", "client-scopes", scope
	}
	if parent == "" {
		return "", nil
	}
	id, err := a.byName(ctx, realm, "name", x.text("name"), nil, folder, parent, "protocol-mappers", "models")
	return strings.Replace(id, "/", "/"+kind+"/"+parent+"/", 1), err
}

// step finds a subflow by its alias, an execution by its provider, and a configuration by its execution.
func (a *adopter) step(ctx context.Context, realm, kind string, x wish) (string, error) {
	if kind == "authentication_execution_config" {
		execution := x.text("execution_id")
		if execution == "" {
			return "", nil
		}
		var one map[string]any
		if err := a.server.read(ctx, &one, realm, nil, "authentication", "executions", execution); err != nil {
			return "", err
		}
		if config, _ := one["authenticatorConfig"].(string); config != "" {
			return realm + "/" + execution + "/" + config, nil
		}
		return "", nil
	}
	parent := x.text("parent_flow_alias")
	if parent == "" {
		return "", nil
	}
	steps, err := a.list(ctx, realm, nil, "authentication", "flows", parent, "executions")
	if err != nil {
		return "", err
	}
	for _, one := range steps {
		if one["level"] != float64(0) {
			continue
		}
		if kind == "authentication_subflow" && one["displayName"] == x.text("alias") && one["flowId"] != nil {
			return fmt.Sprintf("%s/%s/%v", realm, parent, one["flowId"]), nil
		}
		if kind == "authentication_execution" && one["providerId"] == x.text("authenticator") {
			return fmt.Sprintf("%s/%s/%v", realm, parent, one["id"]), nil
		}
	}
	return "", nil
}
