package mongo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const (
	verifyEvery = time.Hour      // how often a user's login is tried, though nothing changed
	tellFor     = 24 * time.Hour // how long the status tells of a password that was mended
	maxTold     = 5              // names in one note
)

// mechanisms are the ways in that a declared user may have. A user that is made here gets the first.
var mechanisms = []string{"SCRAM-SHA-256", "SCRAM-SHA-1"}

// userGap is what a user lacks. A user without a gap has none of them.
type userGap struct {
	index      int
	user       wantUser
	missing    bool
	password   bool
	refused    bool   // the password is one that the server took before
	roles      string // the roles it has, when they are not the wanted ones
	mechanisms string // the same
}

type serverUser struct {
	ID         string   `bson:"_id"`
	Name       string   `bson:"user"`
	Database   string   `bson:"db"`
	Roles      []role   `bson:"roles"`
	Mechanisms []string `bson:"mechanisms"`
}

// observeAccess compares roles and users with the server's. The notes tell what is there and not declared, and what
// became of passwords that stopped working.
func (s *session) observeAccess(ctx context.Context, client *driver.Client, primary wantMember, o *observation) (notes []string, err error) {
	gaps, otherRoles, err := s.observeRoles(ctx, client)
	if err != nil {
		return nil, err
	}
	o.roles = gaps
	users, err := s.observeUsers(ctx, client)
	if err != nil {
		return nil, err
	}
	var otherUsers []string
	for _, u := range users {
		if !s.declares(u) {
			otherUsers = append(otherUsers, roleText(u.Name, u.Database))
		}
	}
	if o.users, err = s.userGaps(ctx, primary, users); err != nil {
		return nil, err
	}
	return append(s.passwordNotes(), leftAlone(otherRoles, otherUsers)...), nil
}

func leftAlone(roles, users []string) []string {
	var notes []string
	for _, one := range []struct {
		what  string
		names []string
	}{{"roles", roles}, {"users", users}} {
		slices.Sort(one.names)
		if total := len(one.names); total > maxTold {
			one.names = append(one.names[:maxTold:maxTold], fmt.Sprintf("%d more", total-maxTold))
		}
		if len(one.names) > 0 {
			notes = append(notes, one.what+" that are not in the manifest, left alone: "+strings.Join(one.names, ", "))
		}
	}
	return notes
}

func (s *session) declares(u serverUser) bool {
	return u.ID == s.want.root.id() || slices.ContainsFunc(s.want.users, func(w wantUser) bool { return w.id() == u.ID })
}

// observeUsers asks for all users in one question.
func (s *session) observeUsers(ctx context.Context, client *driver.Client) ([]serverUser, error) {
	var answer struct {
		Users []serverUser `bson:"users"`
	}
	command := bson.D{{Key: "usersInfo", Value: bson.D{{Key: "forAllDBs", Value: true}}}}
	if err := run(ctx, client, adminDatabase, command, &answer); err != nil {
		return nil, fmt.Errorf("read the users: %w", err)
	}
	return answer.Users, nil
}

// userGaps finds what the declared users lack. Whether a password is right shows only by logging in: at the start, when
// the wanted one changed, and each hour.
func (s *session) userGaps(ctx context.Context, primary wantMember, users []serverUser) ([]userGap, error) {
	var gaps []userGap
	for i, u := range s.want.users {
		gap := userGap{index: i, user: u}
		at := slices.IndexFunc(users, func(have serverUser) bool { return have.ID == u.id() })
		if at < 0 {
			gap.missing = true
			gaps = append(gaps, gap)
			continue
		}
		have := users[at]
		if !sameRoles(have.Roles, u.roles) {
			gap.roles = roleNames(have.Roles)
		}
		if len(u.mechanisms) > 0 && !sameNames(have.Mechanisms, u.mechanisms) {
			gap.mechanisms = listed(have.Mechanisms)
		}
		works, err := s.passwordWorks(ctx, primary, u.login)
		if err != nil {
			return nil, err
		}
		gap.password, gap.refused = !works, s.memory.refuses(u.id())
		if gap.password || gap.roles != "" || gap.mechanisms != "" {
			gaps = append(gaps, gap)
		}
	}
	return gaps, nil
}

// passwordWorks tries the login where it was not tried of late. A password that worked before and is refused now was
// changed in the server: that is remembered, until it is mended.
func (s *session) passwordWorks(ctx context.Context, primary wantMember, l login) (bool, error) {
	name := s.component + "/" + l.id()
	known := s.memory.passwordIs(l.id(), l.password)
	worked, recently := s.r.verifiedAt(name)
	if known && recently {
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
		s.r.unverify(name)
		if !known || s.memory.refuses(l.id()) {
			return false, nil
		}
		return false, s.memory.setRefused(l.id(), refusal{Worked: worked, Found: s.r.deps.Clock.Now().UTC()})
	case err != nil:
		return false, fmt.Errorf("try the login of user %s: %w", l.name, err)
	}
	return true, s.passwordSet(l)
}

// passwordSet remembers that the server has this password.
func (s *session) passwordSet(l login) error {
	s.r.markVerified(s.component + "/" + l.id())
	if s.memory.refuses(l.id()) {
		r := s.memory.Refused[l.id()]
		r.Mended = s.r.deps.Clock.Now().UTC()
		if err := s.memory.setRefused(l.id(), r); err != nil {
			return err
		}
	}
	return s.memory.setPassword(l.id(), l.password, s.r.deps.Rand)
}

// passwordNotes tells of declared users whose password stopped working: since when, and what was done.
func (s *session) passwordNotes() []string {
	var notes []string
	for _, u := range s.want.users {
		r, known := s.memory.Refused[u.id()]
		if !known || !r.Mended.IsZero() && s.r.deps.Clock.Now().Sub(r.Mended) > tellFor {
			continue
		}
		note := fmt.Sprintf("user %s: the server refused its password, found at %s", roleText(u.name, u.database), timeText(r.Found))
		if !r.Worked.IsZero() {
			note += " (it worked at " + timeText(r.Worked) + ")"
		}
		if r.Mended.IsZero() {
			note += "; it is to be set anew"
		} else {
			note += "; it was set anew at " + timeText(r.Mended)
		}
		notes = append(notes, note)
	}
	return notes
}

// verifiedAt gives when a login last worked, and whether that is recent enough not to try again.
func (r *Reconciler) verifiedAt(name string) (at time.Time, recently bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, known := r.verified[name]
	return at, known && r.deps.Clock.Now().Sub(at) < verifyEvery
}

func (r *Reconciler) markVerified(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verified[name] = r.deps.Clock.Now()
}

// unverify lets the next look try the login again.
func (r *Reconciler) unverify(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.verified, name)
}

// putUser makes the user, or updates it in place. It is never dropped: sessions and cursors of its clients go on.
func (s *session) putUser(ctx context.Context, client *driver.Client, u wantUser) error {
	var list bson.A
	for _, r := range u.roles {
		list = append(list, bson.D{{Key: "role", Value: r.Name}, {Key: "db", Value: r.Database}})
	}
	wanted := u.mechanisms
	if len(wanted) == 0 {
		wanted = mechanisms[:1]
	}
	err := run(ctx, client, u.database, bson.D{
		{Key: "createUser", Value: u.name}, {Key: "pwd", Value: u.password}, {Key: "roles", Value: list}, {Key: "mechanisms", Value: wanted},
	}, nil)
	if hasCode(err, codeUserAlreadyExists) {
		err = s.updateUser(ctx, client, u, list)
	}
	if hasCode(err, codeRoleNotFound) {
		return &reconcilers.BlockedError{
			Reason: "UnknownRole", Message: "the server does not know a role of user " + u.name, Err: err,
			Do: "Declare the role in roles, or name one that this version of the server has",
		}
	}
	if err != nil {
		return fmt.Errorf("set user %s: %w", u.name, err)
	}
	return s.passwordSet(u.login)
}

// updateUser sends the password only when the server has another one, or needs it to make credentials for a mechanism
// that the user did not have.
func (s *session) updateUser(ctx context.Context, client *driver.Client, u wantUser, roles bson.A) error {
	update := bson.D{{Key: "updateUser", Value: u.name}, {Key: "roles", Value: roles}}
	send := !s.memory.passwordIs(u.id(), u.password) || s.memory.refuses(u.id())
	if len(u.mechanisms) > 0 {
		users, err := s.observeUsers(ctx, client)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(users, func(have serverUser) bool { return have.ID == u.id() })
		for _, m := range u.mechanisms {
			send = send || at >= 0 && !slices.Contains(users[at].Mechanisms, m)
		}
		update = append(update, bson.E{Key: "mechanisms", Value: u.mechanisms})
	}
	if send {
		update = append(update, bson.E{Key: "pwd", Value: u.password})
	}
	return run(ctx, client, u.database, update, nil)
}

func (p *planner) planUser(gap userGap) {
	address := "user " + addressed(gap.user.name, gap.user.database)
	s := step{action: putUser, index: gap.index}
	if gap.missing {
		p.add(s, reconcilers.Create, address, "with roles "+roleNames(gap.user.roles))
		return
	}
	var reasons []string
	if gap.password && gap.refused {
		reasons = append(reasons, "the server no longer takes its password")
	} else if gap.password {
		reasons = append(reasons, "password changed")
	}
	if gap.roles != "" {
		reasons = append(reasons, "roles "+gap.roles+" -> "+roleNames(gap.user.roles))
	}
	if gap.mechanisms != "" {
		reasons = append(reasons, "mechanisms "+gap.mechanisms+" -> "+listed(gap.user.mechanisms))
	}
	p.add(s, reconcilers.Update, address, strings.Join(reasons, ", "))
}

func sameRoles(a, b []role) bool { return slices.Equal(roleList(a), roleList(b)) }

func sameNames(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Compact(slices.Sorted(slices.Values(b))))
}

func roleList(roles []role) []string {
	var names []string
	for _, r := range roles {
		names = append(names, roleText(r.Name, r.Database))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func roleNames(roles []role) string { return listed(roleList(roles)) }

// Sets is desired.Setter: the passwords of root and users.
func (s *Spec) Sets(*desired.Check) []string {
	names := namesIn(s.Root.Password)
	for _, u := range s.Users {
		names = append(names, namesIn(u.Password)...)
	}
	return names
}

// namesIn are the plain names, values and secrets, that an expression uses.
func namesIn(x desired.Expr) []string {
	var names []string
	for _, ref := range x.References() {
		if len(ref.Path) == 1 {
			names = append(names, ref.Path[0])
		}
	}
	return names
}

// holds are the secrets that the server takes for all users that they belong to.
func (s *session) holds(o observation, isRoot bool) []string {
	spec := s.spec()
	pending := map[string]bool{}
	for _, gap := range o.users {
		if gap.missing || gap.password {
			for _, name := range namesIn(spec.Users[gap.index].Password) {
				pending[name] = true
			}
		}
	}
	if !isRoot {
		for _, name := range namesIn(spec.Root.Password) {
			pending[name] = true
		}
	}
	return slices.DeleteFunc(spec.Sets(nil), func(name string) bool { return pending[name] })
}
