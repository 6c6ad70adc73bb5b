package keycloak

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// What a lost or cut off state held is still in the realm, and Terraform would only meet it with a 409. It is taken
// over by `import` blocks. Their ids come from the plan's own values: each round of planning makes known what the
// imports of the round before are, and so the parents of the next ones. Four rounds reach the depth of a realm.

// adoptFile has the import blocks of a plan that takes over.
const adoptFile = "dive_agent_import.tf"

// adoptRounds bounds the rounds of planning.
const adoptRounds = 8

// adopter looks up what is in a realm.
type adopter struct {
	server *server
	mine   func(address string) bool // what may be taken over
	done   map[string]string         // address -> import id
}

// adopt plans until nothing more is found to take over. The import blocks stand in the working directory until
// the next plan.
func (a *adopter) adopt(ctx context.Context, w *workspace, in *inputs, s *Spec) (*planned, error) {
	if err := a.server.signIn(ctx, in); err != nil {
		return nil, err
	}
	a.done = map[string]string{}
	for range adoptRounds {
		if err := a.write(w); err != nil {
			return nil, err
		}
		p, err := w.plan(ctx, in, s.Parallelism)
		if err != nil || !p.changes {
			return p, err
		}
		found := 0
		for _, rc := range p.plan.ResourceChanges {
			if !rc.Change.Actions.Create() || a.done[rc.Address] != "" || !a.mine(rc.Address) {
				continue
			}
			id, err := a.find(ctx, rc)
			if err != nil {
				return nil, fmt.Errorf("look for %s in the realm: %w", rc.Address, err)
			}
			if id != "" {
				a.done[rc.Address] = id
				found++
			}
		}
		if found == 0 {
			return p, nil
		}
	}
	return nil, fmt.Errorf("the realm still has things to take over after %d rounds", adoptRounds)
}

func (a *adopter) write(w *workspace) error {
	name := filepath.Join(w.module, adoptFile)
	if len(a.done) == 0 {
		return removeIfThere(name)
	}
	var text strings.Builder
	for _, address := range sortedKeys(a.done) {
		fmt.Fprintf(&text, "import {\n  to = %s\n  id = %q\n}\n", address, a.done[address])
	}
	return write(name, []byte(text.String()))
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// wish is what a resource that is to be created looks like, as far as it is known.
type wish map[string]any

func (x wish) text(name string) string {
	s, _ := x[name].(string)
	return s
}

// find gives the import id of what a planned resource would collide with; "" when there is nothing, or when its
// parents are not known yet, or when its type is simply created over what is there.
func (a *adopter) find(ctx context.Context, rc *tfjson.ResourceChange) (string, error) {
	after, _ := rc.Change.After.(map[string]any)
	x := wish(after)
	id, err := a.lookup(ctx, strings.TrimPrefix(rc.Type, "keycloak_"), x)
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
	}
	return "", nil
}

// byName gives realm/id of the one in a list that has the name.
func (a *adopter) byName(ctx context.Context, realm, key, name string, query url.Values, parts ...string) (string, error) {
	if name == "" {
		return "", nil
	}
	if query == nil {
		query = url.Values{"max": {"10000"}}
	}
	list, err := a.server.list(ctx, realm, query, parts...)
	if err != nil {
		return "", err
	}
	for _, one := range list {
		if one[key] == name {
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
	steps, err := a.server.list(ctx, realm, nil, "authentication", "flows", parent, "executions")
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
