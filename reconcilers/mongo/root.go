package mongo

import (
	"context"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// formerLogins are the administrator's with the passwords that it had before, newest first.
func formerLogins(password desired.Expr, scope *desired.Scope, root login) []login {
	var list []login
	for _, former := range scope.Former() {
		value, err := password.Eval(former)
		l := root
		if l.password = value.Text(); err == nil && value.Known() && l != root && !slices.Contains(list, l) {
			list = append(list, l)
		}
	}
	return list
}

// logInRoot is the administrator's login: with the wanted password, or, as long as the server has not taken that, with a
// former one. rootIsStale tells which.
func (s *session) logInRoot(ctx context.Context, m wantMember) (*driver.Client, error) {
	client, err := s.logIn(ctx, m, s.want.root)
	if !isCredentials(err) || len(s.want.former) == 0 {
		return client, err
	}
	if former, formerErr := s.logInAny(ctx, m, s.want.root.id()+".former", s.want.former...); !isCredentials(formerErr) {
		return former, formerErr
	}
	return nil, err
}

// rootLogins are the administrator's with each password that it may have.
func (s *session) rootLogins() []login { return append([]login{s.want.root}, s.want.former...) }

// proveRoot logs in anew as the administrator, who was let in before: connections outlive the password they were made with.
func (s *session) proveRoot(ctx context.Context, m wantMember) error {
	key := clientKey{s.component, m.host, s.want.root.id() + ".proof"}
	defer s.r.pool.forget(key)
	_, err := s.logInAny(ctx, m, key.user, s.rootLogins()...)
	if isCredentials(err) {
		return s.refusedRoot(ctx, m)
	}
	return err
}

// rootIsStale says whether the server, to which logInRoot found a way, has a former password of the administrator.
func (s *session) rootIsStale(ctx context.Context, m wantMember) (bool, error) {
	if len(s.want.former) == 0 {
		return false, nil
	}
	_, err := s.logIn(ctx, m, s.want.root)
	if isCredentials(err) {
		return true, nil
	}
	return false, err
}

// planRootPassword is the last of all steps: those before it log in as the administrator.
func (p *planner) planRootPassword(o observation) {
	if o.stale {
		p.add(step{action: rotateRoot}, reconcilers.Update, "user "+p.want.root.name, "the administrator's own password changed: set with the former one, last of all")
	}
}

// rotateRoot gives the administrator its wanted password and proves it by logging in. One that the server took before a
// crash is only proved.
func (s *session) rotateRoot(ctx context.Context) error {
	err := s.onPrimary(ctx, func(client *driver.Client) error {
		m, err := s.primary(ctx)
		if err != nil {
			return err
		}
		if stale, err := s.rootIsStale(ctx, m); err != nil || !stale {
			return err
		}
		return run(context.WithoutCancel(ctx), client, adminDatabase, bson.D{
			{Key: "updateUser", Value: s.want.root.name},
			{Key: "pwd", Value: s.want.root.password},
			{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}},
		}, nil)
	})
	if err != nil {
		return fmt.Errorf("set the password of user %s: %w", s.want.root.name, err)
	}
	m, err := s.primary(ctx)
	if err != nil {
		return err
	}
	if _, err := s.logIn(ctx, m, s.want.root); err != nil {
		return fmt.Errorf("log in with the new password of user %s: %w", s.want.root.name, err)
	}
	return s.passwordSet(s.want.root)
}
