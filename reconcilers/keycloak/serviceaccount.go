package keycloak

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// ServiceAccount is a client of realm master as which the agent and the module's provider sign in, in place of an administrator.
// Its role is `admin`, and none that is less: the agent sets the account's own secret (manage-clients of master), tells and guards
// the server's version (which Keycloak tells only to administrators of the whole server), exports and changes realms that others
// have made (which create-realm does not give), and removes a user of master.
type ServiceAccount struct {
	ClientID             string       `yaml:"clientId" default:"dive-agent" doc:"Client of realm master. Where it is not, administrator adminUser makes it. One of this name that the agent did not make is left alone, unless it has this secret."`
	Secret               desired.Expr `yaml:"secret" required:"true" doc:"Its secret. A changed one is set by the account itself, which signs in with the former one."`
	RemoveBootstrapAdmin bool         `yaml:"removeBootstrapAdmin" doc:"Remove adminUser, the temporary administrator that the server was first started with, once the account was proved and the realm is in sync by it. Nothing else may be given that administrator's password then, but the server's own service."`
}

// same says whether two components declare one account, as far as their texts tell.
func (a *ServiceAccount) same(b *ServiceAccount) bool {
	return a != nil && b != nil && a.ClientID == b.ClientID && a.Secret.Source() == b.Secret.Source()
}

var clientIDPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// ownClients are those that Keycloak makes in realm master; the ones of its other realms end in -realm.
var ownClients = []string{"account", "account-console", "admin-cli", "broker", "security-admin-console"}

// validateAccount checks that there is one way to sign in, and that the module can take it.
func (s *Spec) validateAccount(c *desired.Check, module moduleFiles) {
	a := s.ServiceAccount
	if a == nil {
		if !s.AdminPassword.IsZero() {
			c.Errorf(s.AdminPassword.Position(), "adminPassword belongs to a serviceAccount, which the administrator makes; without one give the variable %s", passwordVariable)
		}
		return
	}
	if at := c.At("serviceAccount", "clientId"); !clientIDPattern.MatchString(a.ClientID) {
		c.Errorf(at, "clientId %q: letters, digits, dots, dashes and underscores are possible", a.ClientID)
	} else if slices.Contains(ownClients, a.ClientID) || strings.HasSuffix(a.ClientID, "-realm") {
		c.Errorf(at, "clientId %q is one of Keycloak's own clients", a.ClientID)
	}
	for _, name := range []string{passwordVariable, clientVariable, clientSecretVariable} {
		value, given := s.Variables[name]
		switch {
		case !given:
		case name == passwordVariable:
			c.Errorf(value.Position(), "variable %s: with a serviceAccount the module does not sign in as an administrator; give the password as adminPassword of the component, beside serviceAccount", name)
		default:
			c.Errorf(value.Position(), "variable %s is set by the serviceAccount", name)
		}
	}
	for _, name := range []string{clientVariable, clientSecretVariable} {
		if _, has := module.variables[name]; !has {
			c.Errorf(c.At("serviceAccount"), "module %s has no variable %q, by which its provider would sign in as the serviceAccount", s.Module, name)
		}
	}
	if module.variables[passwordVariable] {
		c.Errorf(c.At("serviceAccount"), "variable %q of module %s has no default: it is not given to a module that signs in as a serviceAccount", passwordVariable, s.Module)
	}
}

// setsVariable says whether the component gives the module a variable by itself.
func (s *Spec) setsVariable(name string) bool {
	return name == urlVariable || s.ServiceAccount != nil && slices.Contains([]string{clientVariable, clientSecretVariable, passwordVariable}, name)
}

// account is the service account as the manifest has it.
type account struct {
	id     string // of the client; empty: none is declared
	secret string
	former []string // secrets that it had before, newest first
}

// takeAccount evaluates what belongs to the account, and gives the module's variables for it.
func (in *inputs) takeAccount(s *Spec, scope *desired.Scope) error {
	if s.ServiceAccount == nil {
		return nil
	}
	text := func(e desired.Expr) (string, error) {
		v, err := e.Eval(scope)
		if err == nil && !v.Known() {
			in.unknown = append(in.unknown, e.Missing(scope)...)
			return "", nil
		}
		return v.Text(), err
	}
	secret, err := text(s.ServiceAccount.Secret)
	if err != nil {
		return err
	}
	if _, err := text(s.AdminPassword); err != nil {
		return err
	}
	if secret == "" {
		if len(in.unknown) == 0 {
			return fmt.Errorf("the secret of serviceAccount %s is empty", s.ServiceAccount.ClientID)
		}
		return nil
	}
	in.account = account{s.ServiceAccount.ClientID, secret, formerOf(scope, secret, s.ServiceAccount.Secret.Eval)}
	in.variables[clientVariable], in.variables[clientSecretVariable] = in.account.id, secret
	return nil
}

// formerOf gives the values that a text had before, newest first, without the present one.
func formerOf(scope *desired.Scope, present string, eval func(*desired.Scope) (desired.Value, error)) (former []string) {
	for _, before := range scope.Former() {
		v, err := eval(before)
		if err != nil || !v.Known() {
			continue
		}
		if text, _ := v.Go().(string); text != "" && text != present && !slices.Contains(former, text) {
			former = append(former, text)
		}
	}
	return former
}

// namesIn are the names, values and secrets, that texts are made of.
func namesIn(exprs ...desired.Expr) (names []string) {
	for _, expr := range exprs {
		for _, ref := range expr.References() {
			if len(ref.Path) == 1 {
				names = append(names, ref.Path[0])
			}
		}
	}
	return names
}

// accountNames are the names that the account's secret is made of.
func (s *Spec) accountNames() []string {
	if s.ServiceAccount == nil {
		return nil
	}
	return namesIn(s.ServiceAccount.Secret)
}

// accountItems is the account in an outline.
func (s *Spec) accountItems() []reconcilers.Item {
	if s.ServiceAccount == nil {
		return nil
	}
	attributes := map[string]string{"role": accountRole + " of realm master", "bootstrap administrator": "kept"}
	if s.removesAdmin() {
		attributes["bootstrap administrator"] = "removed"
	}
	return []reconcilers.Item{{Address: "client " + s.ServiceAccount.ClientID, Attributes: attributes, Lasting: true}}
}

// removesAdmin says whether the administrator is to go.
func (s *Spec) removesAdmin() bool {
	return s.ServiceAccount != nil && s.ServiceAccount.RemoveBootstrapAdmin
}
