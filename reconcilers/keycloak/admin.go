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
	if a.password, _ = variables[passwordVariable].(string); a.password == "" {
		return a
	}
	tree := s.Variables[passwordVariable]
	for _, before := range scope.Former() {
		v, err := tree.Eval(before)
		if err != nil || !v.Known() {
			continue
		}
		if text, _ := v.Go().(string); text != "" && text != a.password && !slices.Contains(a.former, text) {
			a.former = append(a.former, text)
		}
	}
	return a
}

// passwordNames are the names, values and secrets, that the administrator's password is made of.
func (s *Spec) passwordNames() (names []string) {
	tree, given := s.Variables[passwordVariable]
	if !given {
		return nil
	}
	for _, expr := range tree.Exprs() {
		for _, ref := range expr.References() {
			if len(ref.Path) == 1 {
				names = append(names, ref.Path[0])
			}
		}
	}
	return names
}

// Sets is desired.Setter: the administrator's password.
func (s *Spec) Sets(*desired.Check) []string { return s.passwordNames() }

// serverRecord is what is known of the server itself.
type serverRecord struct {
	Version  string    `json:"version,omitempty"`
	Started  time.Time `json:"started,omitzero"`   // its container, when the version was asked for
	Asked    time.Time `json:"asked,omitzero"`     // when
	Admin    string    `json:"admin,omitempty"`    // keyed digest of the administrator with the password that the server took last
	Rotating string    `json:"rotating,omitempty"` // the same of one that is being set: other sessions may still be signed in
}

// serverName is the file of that record. Without it the server is asked anew.
const serverName = "server.json"

func (w *workspace) serverFile() string { return filepath.Join(w.dir, serverName) }

// login is the keyed digest of the administrator with a password.
func (l *look) login(password string) string {
	sum, _ := digest(l.work.key, []string{l.in.admin.user, password}) // of plain texts: no error
	return sum
}

// holds are the secrets of the administrator's password, once the server was seen to take it.
func (l *look) holds() []string {
	if l.in.admin.password == "" || l.about.Admin != l.login(l.in.admin.password) || l.about.Rotating != "" {
		return nil
	}
	return l.spec.passwordNames()
}

// versionAge is how old the version of a server may get whose restarts are not seen here.
const versionAge = 24 * time.Hour

// mustProve says whether the server has to be asked about itself: its version is not known since it was started, or it was not
// seen to take the administrator's password.
func (l *look) mustProve() bool {
	if l.in.admin.password == "" {
		return false
	}
	return l.about.Admin != l.login(l.in.admin.password) || l.about.Rotating != "" || l.versionDue()
}

func (l *look) versionDue() bool {
	if l.in.started.IsZero() {
		return l.deps.Clock.Now().Sub(l.about.Asked) >= versionAge
	}
	return !l.in.started.Equal(l.about.Started)
}

// prove signs in as the administrator and records what the server says of itself. stale says that the server has a former password,
// or that other sessions may still be signed in by one.
func (l *look) prove(ctx context.Context) (stale bool, err error) {
	if !l.mustProve() {
		return false, nil
	}
	password, err := l.signIn(ctx)
	if err != nil {
		return false, err
	}
	if l.about.Admin = l.login(password); password != l.in.admin.password {
		l.about.Rotating = "" // it was begun and did not reach the server
	}
	if l.versionDue() {
		version, err := l.server.version(ctx)
		if err != nil {
			return false, fmt.Errorf("ask Keycloak at %s for its version: %w", l.server.base, err)
		}
		l.about.Version, l.about.Started, l.about.Asked = version, l.in.started, l.deps.Clock.Now()
	}
	if err := store(l.work.serverFile(), l.about); err != nil {
		return false, err
	}
	return password != l.in.admin.password || l.about.Rotating != "", nil
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

// tries are the passwords that the server may have: the one that it was last seen to take first, unless another one was being set.
func (l *look) tries() []string {
	all := append([]string{l.in.admin.password}, l.in.admin.former...)
	if l.about.Rotating == l.login(l.in.admin.password) {
		return all[:min(maxTries, len(all))]
	}
	if at := slices.IndexFunc(all, func(p string) bool { return l.login(p) == l.about.Admin }); at > 0 {
		known := all[at]
		all = slices.Insert(slices.Delete(all, at, at+1), 0, known)
	}
	return all[:min(maxTries, len(all))]
}

// rotation is a plan to give the administrator its new password.
type rotation struct{ inputs *inputs }

func (l *look) planRotation(seen *observation) {
	seen.rotation = &rotation{inputs: l.in}
	seen.changes = []reconcilers.Change{{
		Action: reconcilers.Update, Address: "administrator " + l.in.admin.user,
		Reason: "its password changed: set with the former one, and its other sessions are ended",
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
	password, err := l.signIn(ctx)
	if err != nil {
		return err
	}
	id, err := l.server.userID(ctx, l.in.admin.user)
	if err != nil {
		return fmt.Errorf("look for administrator %s: %w", l.in.admin.user, err)
	}
	wanted := l.in.admin.password
	l.about.Rotating = l.login(wanted)
	if err := store(l.work.serverFile(), l.about); err != nil {
		return err
	}
	if password != wanted {
		if err := l.server.resetPassword(ctx, id, wanted); err != nil {
			return l.notSet(err)
		}
		if err := l.server.login(ctx, l.in.admin.user, wanted); err != nil {
			return fmt.Errorf("prove the administrator's new password: %w", err)
		}
	}
	if err := l.server.logOut(ctx, id); err != nil {
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
