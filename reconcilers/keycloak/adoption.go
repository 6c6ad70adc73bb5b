package keycloak

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	tfjson "github.com/hashicorp/terraform-json"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

var _ reconcilers.Adopter = (*Reconciler)(nil)

// Adoption plans with every import that can be found in the realm. The target's folder is a copy of the agent's.
func (r *Reconciler) Adoption(ctx context.Context, t reconcilers.Target) (reconcilers.Adoption, error) {
	l, err := r.open(t)
	if err != nil {
		return reconcilers.Adoption{}, err
	}
	if t.CopyOf == "" {
		return reconcilers.Adoption{}, errors.New("what can be taken over is only looked for on a copy of the component's folder")
	}
	if len(l.in.unknown) > 0 {
		return reconcilers.Adoption{}, &reconcilers.WaitError{For: strings.Join(l.in.unknown, ", ")}
	}
	l.asked = true
	p, err := l.asPlanned(ctx)
	if err != nil {
		return reconcilers.Adoption{}, err
	}
	told := reconcilers.Adoption{State: l.stateWords()}
	ids := map[string]string{}
	if p.changes {
		for _, rc := range p.plan.ResourceChanges {
			if rc.Mode != tfjson.ManagedResourceMode {
				continue
			}
			if rc.Change.Importing != nil {
				ids[rc.Address] = rc.Change.Importing.ID
				told.Imports = append(told.Imports, reconcilers.Import{Address: rc.Address, ID: rc.Change.Importing.ID, Changes: attributes(rc)})
			} else if rc.Change.Actions.Create() {
				told.Creates = append(told.Creates, reconcilers.Creation{Address: rc.Address, Over: !importable(rc.Type)})
			}
		}
	}
	told.Blocks = importBlocks(ids)
	told.File, told.Merge = t.Instance.Position.File, l.mergeImports(ids)
	return told, nil
}

// asPlanned is an observation up to its plan, whatever there is a reason for.
func (l *look) asPlanned(ctx context.Context) (*planned, error) {
	if err := l.underWay(); err != nil {
		return nil, err
	}
	if err := l.lawful(l.spec, l.module); err != nil {
		return nil, err
	}
	l.cut = l.work.interrupted()
	if err := l.findState(ctx); err != nil {
		return nil, err
	}
	if err := l.connect(ctx); err != nil {
		return nil, err
	}
	if err := l.refusedWho(); err != nil {
		return nil, err
	}
	if err := l.server.ready(ctx); err != nil {
		return nil, err
	}
	l.in.tell(l.module)
	if err := l.work.prepare(ctx); err != nil {
		return nil, err
	}
	return l.plan(ctx)
}

// stateWords is how the state is, for people.
func (l *look) stateWords() string {
	switch {
	case l.lost != nil:
		return "lost: " + l.lost.Error()
	case l.state == nil || l.state.managed() == 0:
		return "empty"
	}
	return fmt.Sprintf("%d resources", l.state.managed())
}

// mergeImports is what to merge to take over what was found: all of it where there is no state, else one by one.
func (l *look) mergeImports(ids map[string]string) string {
	if len(ids) == 0 {
		return ""
	}
	if l.state == nil || l.state.managed() == 0 {
		return l.mergeText("adopt: true")
	}
	return l.mergeText(importsField(ids))
}

// importsField is the manifest's field for some imports, in one line.
func importsField(ids map[string]string) string {
	var fields []string
	for _, address := range sortedKeys(ids) {
		fields = append(fields, quoted(address)+": "+quoted(ids[address]))
	}
	return "imports: {" + strings.Join(fields, ", ") + "}"
}

// quoted is a text of YAML in which nothing has a meaning.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// adoptLine is the way to a realm that is there and not in the state.
func (l *look) adoptLine() string {
	return fmt.Sprintf("`dive-agent adopt %s` shows what of it can be imported and changes nothing; to take it over, merge %s", l.target.Instance.Name, l.mergeLine("adopt: true"))
}

// madeOver are the types that no id imports: the provider makes them over what is there.
var madeOver = []string{
	"keycloak_authentication_bindings", "keycloak_group_memberships", "keycloak_openid_client_default_scopes", "keycloak_openid_client_optional_scopes",
	"keycloak_realm_events", "keycloak_realm_user_profile", "keycloak_user_groups", "keycloak_openid_client_service_account_role", "keycloak_openid_client_service_account_realm_role",
}

func importable(kind string) bool { return !slices.Contains(madeOver, kind) }

// validateImports checks addresses and ids, which become a part of Terraform's text.
func (s *Spec) validateImports(c *desired.Check, module moduleFiles) {
	for _, address := range sortedKeys(s.Imports) {
		at, id := c.At("imports", address), s.Imports[address]
		traversal, diags := hclsyntax.ParseTraversalAbs([]byte(address), "", hcl.InitialPos)
		name, named := nameOf(traversal)
		switch {
		case diags.HasErrors() || !named:
			c.Errorf(at, "imports: %q is not the address of a resource, such as keycloak_role.viewer or keycloak_role.each[\"viewer\"]", address)
		case name != "module" && !slices.Contains(module.types, name):
			c.Errorf(at, "imports: module %s has no resource of type %q%s", s.Module, name, desired.Suggest(name, module.types))
		case id == "" || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' }):
			c.Errorf(at, "imports: %s has no import id, such as REALM/ID", address)
		}
	}
}

// nameOf gives an address's first word; false when no address of a resource begins like this.
func nameOf(t hcl.Traversal) (string, bool) {
	if len(t) < 2 || t.IsRelative() {
		return "", false
	}
	_, attribute := t[1].(hcl.TraverseAttr)
	return t.RootName(), attribute
}
