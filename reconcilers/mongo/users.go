package mongo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
)

// verifyEvery is how often a user's login is tried, though nothing changed.
const verifyEvery = time.Hour

// userGap is what a user lacks. A user without a gap has none of the three.
type userGap struct {
	index    int
	user     wantUser
	missing  bool
	password bool
	roles    string // the roles it has, when they are not the wanted ones
}

// observeUsers compares the users with the server's, all in one question. Whether a password is right shows only by
// logging in: at the start, when the wanted one changed, and each hour.
func (s *session) observeUsers(ctx context.Context, client *driver.Client, primary wantMember) ([]userGap, error) {
	if len(s.want.users) == 0 {
		return nil, nil
	}
	var ids bson.A
	for _, u := range s.want.users {
		ids = append(ids, bson.D{{Key: "user", Value: u.name}, {Key: "db", Value: u.database}})
	}
	var answer struct {
		Users []struct {
			ID    string `bson:"_id"`
			Roles []role `bson:"roles"`
		} `bson:"users"`
	}
	if err := run(ctx, client, adminDatabase, bson.D{{Key: "usersInfo", Value: ids}}, &answer); err != nil {
		return nil, fmt.Errorf("read the users: %w", err)
	}
	there := map[string][]role{}
	for _, u := range answer.Users {
		there[u.ID] = u.Roles
	}
	var gaps []userGap
	for i, u := range s.want.users {
		gap := userGap{index: i, user: u}
		have, exists := there[u.id()]
		if !exists {
			gap.missing = true
		} else {
			if !sameRoles(have, u.roles) {
				gap.roles = roleNames(have)
			}
			works, err := s.passwordWorks(ctx, primary, u.login)
			if err != nil {
				return nil, err
			}
			gap.password = !works
		}
		if gap.missing || gap.password || gap.roles != "" {
			gaps = append(gaps, gap)
		}
	}
	return gaps, nil
}

func (s *session) passwordWorks(ctx context.Context, primary wantMember, l login) (bool, error) {
	name := s.component + "/" + l.id()
	if s.memory.passwordIs(l.id(), l.password) && s.r.recentlyVerified(name) {
		return true, nil
	}
	client, err := openClient(primary.host, l, s.dialer(primary))
	if err != nil {
		return false, err
	}
	defer disconnect(client)
	err = run(ctx, client, l.database, bson.D{{Key: "ping", Value: 1}}, nil)
	switch {
	case isCredentials(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("try the login of user %s: %w", l.name, err)
	}
	return true, s.passwordSet(l)
}

// passwordSet remembers that the server has this password.
func (s *session) passwordSet(l login) error {
	s.r.markVerified(s.component + "/" + l.id())
	return s.memory.setPassword(l.id(), l.password, s.r.deps.Rand)
}

func (r *Reconciler) recentlyVerified(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, known := r.verified[name]
	return known && r.deps.Clock.Now().Sub(at) < verifyEvery
}

func (r *Reconciler) markVerified(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verified[name] = r.deps.Clock.Now()
}

// putUser makes the user, or updates it in place. It is never dropped: sessions and cursors of its clients go on.
func (s *session) putUser(ctx context.Context, client *driver.Client, l login, roles []role) error {
	var list bson.A
	for _, r := range roles {
		list = append(list, bson.D{{Key: "role", Value: r.Name}, {Key: "db", Value: r.Database}})
	}
	create := bson.D{{Key: "createUser", Value: l.name}, {Key: "pwd", Value: l.password}, {Key: "roles", Value: list}}
	err := run(ctx, client, l.database, create, nil)
	if hasCode(err, codeUserAlreadyExists) {
		update := bson.D{{Key: "updateUser", Value: l.name}, {Key: "roles", Value: list}}
		if !s.memory.passwordIs(l.id(), l.password) {
			update = append(update, bson.E{Key: "pwd", Value: l.password})
		}
		err = run(ctx, client, l.database, update, nil)
	}
	if err != nil {
		return fmt.Errorf("set user %s: %w", l.name, err)
	}
	return s.passwordSet(l)
}

func sameRoles(a, b []role) bool {
	return slices.Equal(roleList(a), roleList(b))
}

func roleList(roles []role) []string {
	var names []string
	for _, r := range roles {
		names = append(names, r.Name+"@"+r.Database)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func roleNames(roles []role) string {
	if len(roles) == 0 {
		return "none"
	}
	return strings.Join(roleList(roles), ", ")
}
