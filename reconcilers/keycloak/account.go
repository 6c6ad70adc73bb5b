package keycloak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"dive-agent/reconcilers"
)

// The service account as the server has it, and how it is proved. It is looked at before each run of Terraform, and otherwise when
// it is not known to be right. A refused secret locks no client; the administrator's password, with which the account is made and
// mended, is tried as one tries a password.

// accountRole is the role in realm master that the account needs: see ServiceAccount.
const accountRole = "admin"

// accountMark is the attribute of a client that the agent made, with the instance's name.
const accountMark = "dive-agent.instance"

// accountSettings are what the client has to be: it signs in by its secret, for itself, and nobody signs in through it.
var accountSettings = map[string]any{
	"enabled": true, "serviceAccountsEnabled": true, "clientAuthenticatorType": "client-secret", "fullScopeAllowed": true, "publicClient": false,
	"bearerOnly": false, "standardFlowEnabled": false, "implicitFlowEnabled": false, "directAccessGrantsEnabled": false,
}

// accountSeen is the service account as it is on the server.
type accountSeen struct {
	secret  string // that the server took; empty: none
	refused string // why the account itself could not be asked about itself; empty: it could
	uuid    string // of the client; empty: it is not there
	mark    string // instance whose agent made it
	others  bool   // its secret is not the wanted one
	wrong   []string
	user    person // of the service account
	role    bool
}

// right says whether nothing is to be done.
func (a *accountSeen) right() bool {
	return a.uuid != "" && a.refused == "" && !a.others && len(a.wrong) == 0 && a.role
}

// accountLogin is the keyed digest of the account with a secret.
func (l *look) accountLogin(secret string) string {
	sum, _ := digest(l.work.key, []string{"client", l.in.account.id, secret}) // of plain texts: no error
	return sum
}

// accountSettled says whether the account was seen to be right.
func (l *look) accountSettled() bool {
	return l.in.account.id != "" && l.about.Setting == "" && l.about.Account == l.accountLogin(l.in.account.secret)
}

// proveAccount looks at the account and at what it can see of the administrator, and plans what is wrong with either.
func (l *look) proveAccount(ctx context.Context, seen *observation) error {
	account, err := l.seeAccount(ctx)
	var blocked *reconcilers.BlockedError
	if errors.As(err, &blocked) {
		l.about.Account = ""
		return errors.Join(err, store(l.work.serverFile(), l.about))
	}
	if err != nil {
		return err
	}
	if l.removalDue() {
		l.notes = append(l.notes, fmt.Sprintf("administrator %s is removed (removeBootstrapAdmin) once client %s was proved and the realm is in sync by it", l.in.admin.user, l.in.account.id))
	}
	if steps := l.accountSteps(account); len(steps) > 0 {
		l.about.Account = "" // it is not, or no longer, as it has to be
		if account.secret != "" && account.secret != l.in.account.secret {
			l.about.Account, l.about.Setting = l.accountLogin(account.secret), "" // what was begun did not reach the server
		}
		l.planAccount(seen, steps)
		return store(l.work.serverFile(), l.about)
	}
	if !account.right() {
		return l.accountLost(account.refused + "; to administrator " + l.in.admin.user + " it looks as it has to be: is user service-account-" + l.in.account.id + " of realm master disabled?")
	}
	l.about.Account, l.about.Setting = l.accountLogin(l.in.account.secret), ""
	if err := l.proveAdmin(ctx, seen); err != nil {
		return err
	}
	return l.askVersion(ctx)
}

// seeAccount looks at the account: as the account itself where the server takes it and it may, else as the administrator.
func (l *look) seeAccount(ctx context.Context) (*accountSeen, error) {
	a := &accountSeen{}
	err := l.loginAccount(ctx, a)
	switch {
	case errors.Is(err, errRefused):
		a.refused = l.deps.Redact(err.Error())
	case err != nil:
		return nil, err
	default:
		err := l.describe(ctx, a)
		if err == nil && a.role {
			return a, nil
		}
		if err != nil && !isStatus(err, http.StatusForbidden) {
			return nil, fmt.Errorf("look at client %s: %w", l.in.account.id, err)
		}
		a.refused = fmt.Sprintf("client %s signs in to Keycloak at %s and does not have role %s of realm master", l.in.account.id, l.server.base, accountRole)
	}
	if err := l.asAdmin(ctx, a.refused); err != nil {
		return nil, err
	}
	if err := l.describe(ctx, a); err != nil {
		return nil, fmt.Errorf("look at client %s as administrator %s: %w", l.in.account.id, l.in.admin.user, err)
	}
	if a.uuid != "" && a.secret == "" && a.others && a.mark != l.target.Instance.Name {
		return nil, &reconcilers.BlockedError{
			Reason:  "ServiceAccountTaken",
			Message: fmt.Sprintf("client %s of realm master at %s is there, has another secret and was not made for %s: it is left alone", l.in.account.id, l.server.base, l.target.Instance.Name),
			Do:      "Give serviceAccount another clientId, or remove that client, or give its secret with `dive-agent secrets set --replace`",
		}
	}
	return a, nil
}

// loginAccount signs in with one of the secrets that the server may have.
func (l *look) loginAccount(ctx context.Context, a *accountSeen) (err error) {
	for _, secret := range inOrder(append([]string{l.in.account.secret}, l.in.account.former...), l.about.Account, l.about.Setting, l.accountLogin) {
		if err = l.server.loginClient(ctx, l.in.account.id, secret); err == nil {
			a.secret = secret
			return nil
		}
		if !errors.Is(err, errRefused) {
			return err
		}
	}
	return err
}

// asAdmin signs in as the administrator, for what the account cannot do. When that is not possible the account is lost.
func (l *look) asAdmin(ctx context.Context, why string) error {
	if l.in.admin.password == "" {
		return l.accountLost(why + ", and the manifest has no adminPassword of who could mend that")
	}
	err := l.refused()
	if err == nil {
		_, err = l.signIn(ctx)
	}
	var blocked *reconcilers.BlockedError
	if errors.As(err, &blocked) && blocked.Reason == "WrongPassword" {
		return l.accountLost(why + ", and administrator " + l.in.admin.user + " is not accepted either")
	}
	return err
}

// describe reads the client, its settings, and whether its account has the role.
func (l *look) describe(ctx context.Context, a *accountSeen) error {
	a.uuid, a.wrong, a.role = "", nil, false
	client, err := l.server.client(ctx, l.in.account.id)
	if errors.Is(err, errAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	a.uuid, _ = client["id"].(string)
	attributes, _ := client["attributes"].(map[string]any)
	a.mark, _ = attributes[accountMark].(string)
	a.others = client["secret"] != l.in.account.secret
	if a.secret != "" { // the server's own word; who may not see secrets reads stars
		a.others = a.secret != l.in.account.secret
	}
	for _, name := range sortedKeys(accountSettings) {
		if client[name] != accountSettings[name] {
			a.wrong = append(a.wrong, name)
		}
	}
	if client["serviceAccountsEnabled"] != true {
		return nil // its user went with that
	}
	if err := l.server.call(ctx, http.MethodGet, &a.user, nil, nil, "realms", master, "clients", a.uuid, "service-account-user"); err != nil {
		return err
	}
	roles, err := l.server.list(ctx, master, nil, "users", a.user.ID, "role-mappings", "realm")
	a.role = slices.ContainsFunc(roles, func(role map[string]any) bool { return role["name"] == accountRole })
	return err
}

// client finds a client of realm master; errAbsent when there is none.
func (s *server) client(ctx context.Context, id string) (map[string]any, error) {
	clients, err := s.list(ctx, master, url.Values{"clientId": {id}}, "clients")
	if err != nil {
		return nil, err
	}
	if len(clients) != 1 {
		return nil, errAbsent
	}
	return clients[0], nil
}

func isStatus(err error, status int) bool {
	var no *refusedBody
	return errors.As(err, &no) && no.status == status
}

// step is one thing that is done to the account.
type step struct {
	change reconcilers.Change
	do     func(ctx context.Context, a *accountSeen) error
}

// accountSteps is what brings the account from what was seen to what it has to be.
func (l *look) accountSteps(a *accountSeen) []step {
	var steps []step
	add := func(action reconcilers.Action, address, reason string, do func(context.Context, *accountSeen) error, details ...string) {
		steps = append(steps, step{reconcilers.Change{Action: action, Address: address, Reason: reason, Details: details}, do})
	}
	client := "client " + l.in.account.id
	switch {
	case a.uuid == "":
		add(reconcilers.Create, client, "the agent's service account in realm master is not there: made by administrator "+l.in.admin.user, l.makeClient)
	case a.others || len(a.wrong) > 0:
		var reasons []string
		if a.others && a.secret != "" {
			reasons = append(reasons, "its secret changed: set by the account itself, which signs in with the former one")
		} else if a.others {
			reasons = append(reasons, "its secret is not the manifest's: set by administrator "+l.in.admin.user)
		}
		details := slices.Clone(a.wrong)
		if len(a.wrong) > 0 {
			reasons = append(reasons, "changed outside: "+strings.Join(a.wrong, ", "))
		}
		if a.others {
			details = append([]string{"secret"}, details...)
		}
		add(reconcilers.Update, client, strings.Join(reasons, "; "), l.setClient, details...)
	}
	if !a.role {
		add(reconcilers.Create, "role "+accountRole+" of "+client, "it administers by that; given by administrator "+l.in.admin.user, l.giveRole)
	}
	return steps
}

// makeClient makes the client.
func (l *look) makeClient(ctx context.Context, a *accountSeen) error {
	body := maps.Clone(accountSettings)
	body["clientId"], body["protocol"], body["secret"] = l.in.account.id, "openid-connect", l.in.account.secret
	body["description"], body["attributes"] = "Service account of dive-agent", map[string]string{accountMark: l.target.Instance.Name}
	if err := l.server.call(ctx, http.MethodPost, nil, body, nil, "realms", master, "clients"); err != nil {
		return err
	}
	return l.describe(ctx, a)
}

// setClient sets secret and settings. What the body leaves out stays as it is.
func (l *look) setClient(ctx context.Context, a *accountSeen) error {
	body := maps.Clone(accountSettings)
	body["clientId"], body["secret"] = l.in.account.id, l.in.account.secret
	if err := l.server.call(ctx, http.MethodPut, nil, body, nil, "realms", master, "clients", a.uuid); err != nil {
		return err
	}
	if a.refused != "" {
		return l.describe(ctx, a)
	}
	return nil
}

// giveRole gives the account its role.
func (l *look) giveRole(ctx context.Context, a *accountSeen) error {
	if a.user.ID == "" {
		return errors.New("the client has no service account")
	}
	var role map[string]any
	if err := l.server.read(ctx, &role, master, nil, "roles", accountRole); err != nil {
		return fmt.Errorf("look for role %s of realm master: %w", accountRole, err)
	}
	return l.server.call(ctx, http.MethodPost, nil, []any{role}, nil, "realms", master, "users", a.user.ID, "role-mappings", "realm")
}
