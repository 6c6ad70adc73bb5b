package keycloak

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// The administrator beside a service account. A server is started with a temporary one (KC_BOOTSTRAP_ADMIN_*), which makes the account.
// It is kept, and given its password when that changes, until the manifest says that it goes. Keycloak makes it only together with
// realm master, so it does not come back when the server is started again with the same environment.

// notTaken stands in the record for a password that the server is known not to have: it is not tried again.
const notTaken = "not taken"

// proveAdmin looks at the administrator as the account: is it there, and does it have its password. That is tried once; whether it
// fails is remembered, and then the account sets it.
func (l *look) proveAdmin(ctx context.Context, seen *observation) error {
	if l.in.admin.password == "" && !l.spec.removesAdmin() {
		return nil
	}
	user, err := l.server.user(ctx, l.in.admin.user)
	if errors.Is(err, errAbsent) {
		l.about.Gone, l.about.Rotating = l.in.admin.user, ""
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for administrator %s: %w", l.in.admin.user, err)
	}
	l.about.Gone, l.admin = "", &user
	if l.in.admin.password == "" || l.adminSettled() {
		return nil
	}
	switch {
	case !user.Enabled: // no password opens it
		l.about.Admin, l.about.Rotating = l.login(l.in.admin.password), ""
		return nil
	case l.about.Admin == "" && l.about.Rotating == "":
		err := l.apart(ctx, l.in.admin.user, l.in.admin.password)
		if err == nil {
			l.about.Admin = l.login(l.in.admin.password)
			return nil
		}
		if !errors.Is(err, errRefused) {
			return err
		}
		l.about.Admin = notTaken
	}
	l.planRotation(seen, "set by client "+l.in.account.id)
	return nil
}

// apart signs in as a user without a change of who asks the server.
func (l *look) apart(ctx context.Context, user, password string) error {
	other := *l.server
	return other.login(ctx, user, password)
}

// passwordAsAccount signs in as the account, and says whether the administrator has its new password already, after a crash.
func (l *look) passwordAsAccount(ctx context.Context) (password string, err error) {
	if err := l.server.signIn(ctx, l.in); err != nil {
		return "", err
	}
	wanted := l.in.admin.password
	if l.about.Rotating != l.login(wanted) {
		return "", nil
	}
	switch err := l.apart(ctx, l.in.admin.user, wanted); {
	case err == nil:
		return wanted, nil
	case errors.Is(err, errRefused):
		return "", nil
	default:
		return "", err
	}
}

// removalDue says whether the administrator is to go and was not seen to be gone.
func (l *look) removalDue() bool { return l.spec.removesAdmin() && l.about.Gone != l.in.admin.user }

// planRemoval plans that the administrator goes, once nothing else is to be done: the account was proved in this very look, and the
// realm is in sync by it.
func (l *look) planRemoval(seen *observation) error {
	r := l.record
	if !l.spec.removesAdmin() || l.admin == nil || !l.accountSettled() || r.Inputs != l.in.digest || !r.Verified || r.Begun != "" {
		return nil
	}
	if err := l.kept(*l.admin); err != nil {
		return err
	}
	seen.account = &accounting{inputs: l.in, removal: true}
	seen.changes = []reconcilers.Change{{
		Action: reconcilers.Delete, Address: "administrator " + l.in.admin.user,
		Reason: fmt.Sprintf("removeBootstrapAdmin: client %s administers the server, and the realm is in sync by it", l.in.account.id),
	}}
	seen.held = l.held(seen.changes)
	return nil
}

// kept says why the administrator is not removed though the manifest says so.
func (l *look) kept(user person) error {
	stay := fmt.Sprintf("administrator %s is not removed: ", l.in.admin.user)
	leave := ", or take removeBootstrapAdmin away"
	if !user.temporary() {
		return &reconcilers.BlockedError{
			Reason: "AdministratorKept", Message: stay + "it is no temporary one (attribute is_temporary_admin), so somebody may count on it",
			Do: "Remove it by hand, if another person can administer the server" + leave,
		}
	}
	if others := l.givenPassword(); len(others) > 0 {
		return &reconcilers.BlockedError{
			Reason: "AdministratorKept", Message: stay + "its password is given to " + strings.Join(others, ", "),
			Do: "Give these another way to sign in" + leave,
		}
	}
	return nil
}

// givenPassword names what else, beside the server's own service, uses a secret that the administrator's password is made of. A
// component with the very same service account does not count: it has one that works.
func (l *look) givenPassword() []string {
	graph, names := l.target.Instance.Graph, l.spec.passwordNames()
	if graph == nil {
		return nil
	}
	var others []string
	for _, node := range graph.Nodes {
		spec, _ := node.Component.Spec.(*Spec)
		if node.ID == l.target.ID() || spec != nil && spec.ServiceAccount.same(l.spec.ServiceAccount) {
			continue
		}
		uses := func(e desired.Edge) bool { return e.On == l.target.ID() && slices.Contains(names, e.Secret) }
		sets := func(name string) bool { return slices.Contains(graph.Holders[name], node.ID) }
		if slices.ContainsFunc(node.Needs, uses) || slices.ContainsFunc(names, sets) {
			others = append(others, node.ID)
		}
	}
	return others
}

// remove removes the administrator, as the account: who cannot administer removes nobody. Both are looked at right before.
func (l *look) remove(ctx, limited context.Context, change reconcilers.Change, progress reconcilers.Progress) (reconcilers.Applied, error) {
	if err := l.confirm(limited); err != nil {
		return reconcilers.Applied{}, fmt.Errorf("administrator %s stays: %w", l.in.admin.user, err)
	}
	user, err := l.server.user(limited, l.in.admin.user)
	if err != nil && !errors.Is(err, errAbsent) {
		return reconcilers.Applied{}, err
	}
	if err == nil {
		if err := l.kept(user); err != nil {
			return reconcilers.Applied{}, err
		}
		if err := progress.Begin(ctx, change); err != nil {
			return reconcilers.Applied{}, err
		}
		err := l.server.call(limited, http.MethodDelete, nil, nil, nil, "realms", master, "users", user.ID)
		if errors.Is(err, errAbsent) {
			err = nil
		}
		progress.End(change, err)
		if err != nil {
			return reconcilers.Applied{}, fmt.Errorf("remove administrator %s: %w", l.in.admin.user, err)
		}
	}
	l.about.Gone, l.about.Admin, l.about.Rotating = l.in.admin.user, "", ""
	if err := store(l.work.serverFile(), l.about); err != nil {
		return reconcilers.Applied{}, err
	}
	return l.applied(), nil
}
