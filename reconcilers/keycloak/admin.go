package keycloak

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// The administrator is who the module's provider signs in as. Its password is proved before Terraform runs with it, each of those
// that it may have once and none twice: an account with brute force detection is locked by a few wrong tries, and by two within a
// second (Keycloak's quickLoginCheckMilliSeconds).

// Variables of a module by which it signs in to the server.
const (
	userVariable         = "keycloak_admin_user"
	passwordVariable     = "keycloak_admin_password"
	clientVariable       = "keycloak_client_id"
	clientSecretVariable = "keycloak_client_secret"
)

// defaultAdmin is the name that Keycloak's own documentation gives the first administrator.
const defaultAdmin = "admin"

// betweenTries is longer than two wrong tries may be apart to lock the account at once.
const betweenTries = 1100 * time.Millisecond

// admin is the server's administrator as the manifest has it.
type admin struct {
	user     string
	password string   // empty: not given, and nobody signs in
	former   []string // passwords that it had before, newest first
}

func adminOf(s *Spec, variables map[string]any, scope *desired.Scope) admin {
	a := admin{user: s.AdminUser}
	if a.user == "" {
		a.user, _ = variables[userVariable].(string)
	}
	if a.user == "" {
		a.user = defaultAdmin
	}
	a.password, _ = variables[passwordVariable].(string)
	eval := s.Variables[passwordVariable].Eval
	if !s.AdminPassword.IsZero() {
		eval = s.AdminPassword.Eval
		if v, err := eval(scope); err == nil {
			a.password = v.Text()
		}
	}
	if a.password != "" {
		a.former = formerOf(scope, a.password, eval)
	}
	return a
}

// passwordNames are the names, values and secrets, that the administrator's password is made of.
func (s *Spec) passwordNames() []string {
	if !s.AdminPassword.IsZero() {
		return namesIn(s.AdminPassword)
	}
	return namesIn(s.Variables[passwordVariable].Exprs()...)
}

// Sets is desired.Setter: the administrator's password, and the service account's secret.
func (s *Spec) Sets(*desired.Check) []string { return append(s.passwordNames(), s.accountNames()...) }

// serverRecord is what is known of the server itself.
type serverRecord struct {
	Version  string    `json:"version,omitempty"`
	Started  time.Time `json:"started,omitzero"`   // its container, when the version was asked for
	Asked    time.Time `json:"asked,omitzero"`     // when
	Admin    string    `json:"admin,omitempty"`    // keyed digest of the administrator with the password that the server took last
	Rotating string    `json:"rotating,omitempty"` // the same of one that is being set: other sessions may still be signed in
	Account  string    `json:"account,omitempty"`  // keyed digest of the service account with the secret that the server took last, when all else of it was right
	Setting  string    `json:"setting,omitempty"`  // the same of a secret that is being set
	Gone     string    `json:"gone,omitempty"`     // administrator that was seen not to be there
}

// serverName is the file of that record. Without it the server is asked anew.
const serverName = "server.json"

func (w *workspace) serverFile() string { return filepath.Join(w.dir, serverName) }

// login is the keyed digest of the administrator with a password.
func (l *look) login(password string) string {
	sum, _ := digest(l.work.key, []string{l.in.admin.user, password}) // of plain texts: no error
	return sum
}

// holds are the secrets of the administrator's password and of the service account, once the server was seen to take them.
func (l *look) holds() (names []string) {
	if l.in.admin.password != "" && l.adminSettled() {
		names = l.spec.passwordNames()
	}
	if l.accountSettled() {
		names = append(names, l.spec.accountNames()...)
	}
	return names
}

// adminSettled says whether the server was seen to take the administrator's password, or to have no such user.
func (l *look) adminSettled() bool {
	return l.about.Rotating == "" && (l.about.Admin == l.login(l.in.admin.password) || l.accountSettled() && l.about.Gone == l.in.admin.user)
}

// versionAge is how old the version of a server may get whose restarts are not seen here.
const versionAge = 24 * time.Hour

// mustProve says whether the server has to be asked about itself: its version is not known since it was started, or it was not
// seen to take who signs in.
func (l *look) mustProve() bool {
	if l.in.account.id != "" {
		return !l.accountSettled() || l.in.admin.password != "" && !l.adminSettled() || l.versionDue()
	}
	return l.in.admin.password != "" && (!l.adminSettled() || l.versionDue())
}

func (l *look) versionDue() bool {
	if l.in.started.IsZero() {
		return l.deps.Clock.Now().Sub(l.about.Asked) >= versionAge
	}
	return !l.in.started.Equal(l.about.Started)
}

// prove signs in and records what the server says of itself. What has to be done before the module can be planned, about who signs in,
// is left in seen.
func (l *look) prove(ctx context.Context, seen *observation) error {
	if l.in.account.id != "" {
		return l.proveAccount(ctx, seen)
	}
	if !l.mustProve() {
		return nil
	}
	password, err := l.signIn(ctx)
	if err != nil {
		return err
	}
	if l.about.Admin = l.login(password); password != l.in.admin.password {
		l.about.Rotating = "" // it was begun and did not reach the server
	}
	if err := l.askVersion(ctx); err != nil {
		return err
	}
	if password != l.in.admin.password || l.about.Rotating != "" {
		l.planRotation(seen, "set with the former one")
	}
	return nil
}

// askVersion asks for the server's version when it is due, and keeps the record.
func (l *look) askVersion(ctx context.Context) error {
	if l.versionDue() {
		version, err := l.server.version(ctx)
		if err != nil {
			return fmt.Errorf("ask Keycloak at %s for its version: %w", l.server.base, err)
		}
		l.about.Version, l.about.Started, l.about.Asked = version, l.in.started, l.deps.Clock.Now()
	}
	return store(l.work.serverFile(), l.about)
}

// signIn signs in with the administrator's password, or with one that it had before, and says which one the server took. When it
// takes none that is a BlockedError, which is remembered.
func (l *look) signIn(ctx context.Context) (password string, err error) {
	for i, password := range l.tries() {
		if i > 0 {
			select {
			case <-l.deps.Clock.After(betweenTries):
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		if err = l.server.login(ctx, l.in.admin.user, password); err == nil || !errors.Is(err, errRefused) {
			return password, err
		}
	}
	policy := l.wrongPassword(l.deps.Redact(err.Error()))
	return "", errors.Join(policy, l.remember(policy))
}

// maxTries is how many passwords are tried in a row, far fewer than lock an account.
const maxTries = 3

// tries are the administrator's passwords that the server may have.
func (l *look) tries() []string {
	return inOrder(append([]string{l.in.admin.password}, l.in.admin.former...), l.about.Admin, l.about.Rotating, l.login)
}

// inOrder gives the few secrets, of all that the server may have, that are worth a try: the one that it was last seen to take first,
// by its digest, unless the present one was being set.
func inOrder(all []string, taken, setting string, digestOf func(string) string) []string {
	if setting != digestOf(all[0]) {
		if at := slices.IndexFunc(all, func(one string) bool { return digestOf(one) == taken }); at > 0 {
			known := all[at]
			all = slices.Insert(slices.Delete(all, at, at+1), 0, known)
		}
	}
	return all[:min(maxTries, len(all))]
}

// rotation is a plan to give the administrator its new password.
type rotation struct{ inputs *inputs }

func (l *look) planRotation(seen *observation, how string) {
	seen.rotation = &rotation{inputs: l.in}
	seen.changes = []reconcilers.Change{{
		Action: reconcilers.Update, Address: "administrator " + l.in.admin.user,
		Reason: "its password changed: " + how + ", and its other sessions are ended",
	}}
}

// setLimit is for a password to be set and proved.
const setLimit = time.Minute

// rotate sets the administrator's password. What the plan is for is planned once the server has it.
func (l *look) rotate(ctx context.Context, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	change := p.Changes[0]
	if err := progress.Begin(ctx, change); err != nil {
		return reconcilers.Applied{}, err
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), setLimit)
	defer cancel()
	err := l.setPassword(limited)
	progress.End(change, err)
	if err != nil {
		return reconcilers.Applied{}, err
	}
	return l.applied(), &reconcilers.WaitError{For: "a plan with the administrator's new password", Again: 10 * time.Millisecond}
}

// setPassword brings the administrator to its new password from wherever a crash has left it: set, proved by signing in, sessions
// of the former one ended. It is recorded before it is begun.
func (l *look) setPassword(ctx context.Context) error {
	if err := l.connect(ctx); err != nil {
		return err
	}
	if err := l.server.ready(ctx); err != nil {
		return err
	}
	prove := l.server.login
	var password string
	var err error
	if l.in.account.id != "" {
		password, err = l.passwordAsAccount(ctx)
		prove = l.apart
	} else {
		password, err = l.signIn(ctx)
	}
	if err != nil {
		return err
	}
	user, err := l.server.user(ctx, l.in.admin.user)
	if err != nil {
		return fmt.Errorf("look for administrator %s: %w", l.in.admin.user, err)
	}
	wanted := l.in.admin.password
	l.about.Rotating = l.login(wanted)
	if err := store(l.work.serverFile(), l.about); err != nil {
		return err
	}
	if password != wanted {
		if err := l.server.resetPassword(ctx, user.ID, wanted); err != nil {
			return l.notSet(err)
		}
		if err := prove(ctx, l.in.admin.user, wanted); err != nil {
			return fmt.Errorf("prove the administrator's new password: %w", err)
		}
	}
	if err := l.server.logOut(ctx, user.ID); err != nil {
		return fmt.Errorf("end the sessions of administrator %s: %w", l.in.admin.user, err)
	}
	l.about.Admin, l.about.Rotating = l.login(wanted), ""
	return store(l.work.serverFile(), l.about)
}

// notSet words a password that the server did not set. One that its policy does not accept is for a person.
func (l *look) notSet(err error) error {
	var no *refusedBody
	if !errors.As(err, &no) || no.status != 400 {
		return fmt.Errorf("set the password of administrator %s: %w", l.in.admin.user, err)
	}
	l.about.Rotating = ""
	return errors.Join(&reconcilers.BlockedError{
		Reason:  "PasswordRefused",
		Message: fmt.Sprintf("Keycloak at %s does not take the new password of administrator %s: %s. The former one stays in use", l.server.base, l.in.admin.user, l.deps.Redact(no.said)),
		Do:      "Give one that the password policy of realm master accepts, with `dive-agent secrets set --replace`, or change the secret's length in the manifest and rotate it again",
	}, store(l.work.serverFile(), l.about))
}
