package keycloak

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dive-agent/reconcilers"
)

// accounting is a plan that is about the service account, or, with it, about the administrator that goes.
type accounting struct {
	inputs  *inputs
	removal bool
}

func (l *look) planAccount(seen *observation, steps []step) {
	seen.account = &accounting{inputs: l.in}
	for _, s := range steps {
		seen.changes = append(seen.changes, s.change)
	}
	if len(steps) > 1 || !slices.Equal(steps[0].change.Details, []string{"secret"}) { // a rotation is brought to its end at any time
		seen.held = l.held(seen.changes)
	}
}

// bringAccount carries out a plan about the account.
func (l *look) bringAccount(ctx context.Context, plan *accounting, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), setLimit)
	defer cancel()
	if err := l.connect(limited); err != nil {
		return reconcilers.Applied{}, err
	}
	if err := l.server.ready(limited); err != nil {
		return reconcilers.Applied{}, err
	}
	if plan.removal {
		return l.remove(ctx, limited, p.Changes[0], progress)
	}
	return l.establish(ctx, limited, p, progress)
}

// establish looks at the account again and does what is to be done, when that is what was planned. Then the account is proved. It is
// recorded before it is begun that a secret may have been set.
func (l *look) establish(ctx, limited context.Context, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	account, err := l.seeAccount(limited)
	if err != nil {
		return reconcilers.Applied{}, err
	}
	again := &reconcilers.WaitError{For: "a plan with the service account", Again: 10 * time.Millisecond}
	steps := l.accountSteps(account)
	if !slices.EqualFunc(steps, p.Changes, func(s step, c reconcilers.Change) bool {
		return s.change.Action == c.Action && s.change.Address == c.Address
	}) {
		return l.applied(), again
	}
	l.about.Setting = l.accountLogin(l.in.account.secret)
	if err := store(l.work.serverFile(), l.about); err != nil {
		return reconcilers.Applied{}, err
	}
	for _, s := range steps {
		if err := progress.Begin(ctx, s.change); err != nil {
			return reconcilers.Applied{}, err
		}
		err := s.do(limited, account)
		if err != nil {
			err = fmt.Errorf("%s %s: %w", s.change.Action, s.change.Address, err)
		}
		progress.End(s.change, err)
		if err != nil {
			return reconcilers.Applied{}, err
		}
	}
	if err := l.confirm(limited); err != nil {
		return reconcilers.Applied{}, err
	}
	return l.applied(), again
}

// confirm proves the account: it signs in with its secret, by one try, and sees that it is as it has to be. From here on the server
// is asked as the account.
func (l *look) confirm(ctx context.Context) error {
	a := &accountSeen{secret: l.in.account.secret}
	if err := l.server.loginClient(ctx, l.in.account.id, a.secret); err != nil {
		return fmt.Errorf("prove the service account: %w", err)
	}
	if err := l.describe(ctx, a); err != nil {
		return fmt.Errorf("prove the service account: look at client %s: %w", l.in.account.id, err)
	}
	if !a.right() {
		return errors.New("prove the service account: it signs in and is not as it has to be")
	}
	l.about.Account, l.about.Setting = l.accountLogin(a.secret), ""
	return store(l.work.serverFile(), l.about)
}

// accountLost says that nobody is left as whom the agent could sign in, and how people get in again.
func (l *look) accountLost(why string) error {
	do := "Give the component adminUser and adminPassword of an administrator of realm master who signs in; the agent then makes the service account again"
	switch v, known := parseRelease(l.about.Version); {
	case known && v.major < 26:
		do += fmt.Sprintf(". Keycloak %s has no command that makes one; one of 26 or later has", l.about.Version)
	default:
		do = fmt.Sprintf("%s. Where nobody is left, Keycloak 26 makes a temporary one beside the running server: `%s`, with that password in the variable KC_BOOTSTRAP_ADMIN_PASSWORD of the container (the user must not be there yet: take another --username, and adminUser, if it is). "+
			"Then remove %s, if it is there, so that the password is tried at once", do, l.recovery(), l.refusalFile())
	}
	return &reconcilers.BlockedError{Reason: "ServiceAccountLost", Message: why, Do: do}
}

// recovery is the command that makes an administrator on a server in which nobody can sign in.
func (l *look) recovery() string {
	where := "/opt/keycloak/bin/kc.sh"
	if l.in.container != "" {
		where = "docker exec " + l.in.container + " " + where
	}
	return fmt.Sprintf("%s bootstrap-admin user --username %s --password:env KC_BOOTSTRAP_ADMIN_PASSWORD --db postgres --no-prompt", where, l.in.admin.user)
}
