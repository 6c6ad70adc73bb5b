package mongo

import (
	"fmt"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const (
	adminDatabase    = "admin"
	externalDatabase = "$external" // of users that a certificate names
	x509Mechanism    = "MONGODB-X509"
	idField          = "_id"
)

// want is the spec with every expression evaluated.
type want struct {
	set      string
	members  []wantMember
	root     login
	former   []login // the administrator with passwords that it had, newest first
	keys     keyring
	roles    []wantRole // each after those it inherits from
	users    []wantUser
	settings Settings
	seeds    []wantSeed
	indexes  []wantIndex
	backup   *wantBackup // nil: none is declared
	database string
	force    *Force // nil: none
	fcv      string // empty: stays as it is
	uriUser  login
	tls      *wantTLS // nil: the members are spoken to without
	unknown  string   // name of a value that does not exist yet; empty when all are known
}

type wantMember struct {
	service string // empty: it runs on another host, and is dialled by its host name
	host    string // host:port in the set's configuration
	port    int    // in the container
	on      string // the other host; empty where no agent runs it there
	shape
}

type wantUser struct {
	login
	roles      []role
	mechanisms []string // none: as they are
}

type role struct {
	Name     string `bson:"role"`
	Database string `bson:"db"`
}

type wantSeed struct {
	database, collection, key string
	file                      string
	update                    bool
	documents                 []seedDocument
}

// login is a user and the database that knows it.
type login struct {
	name, password, database string
	mechanism                string // empty: as the server prefers
}

// keyLogin is the login that the members use among themselves: it works before there is any user.
func keyLogin(key string) login {
	return login{name: "__system", password: key, database: "local", mechanism: "SCRAM-SHA-256"}
}

func keyLogins(keys []string) []login {
	var list []login
	for _, key := range keys {
		list = append(list, keyLogin(key))
	}
	return list
}

// x509Login is whom the certificate is for that the connection shows. A member's is __system.
func x509Login() login { return login{database: externalDatabase, mechanism: x509Mechanism} }

func (l login) id() string { return l.database + "." + l.name }

func (s wantSeed) name() string { return s.database + "." + s.collection }

// resolve evaluates the target's spec. A secret or output that does not exist yet is no error: unknown names it.
func resolve(t reconcilers.Target) (want, error) {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok {
		return want{}, fmt.Errorf("component %s carries a %T, not a replica set", t.Component.Name, t.Component.Spec)
	}
	w := want{set: spec.setName(), database: spec.Database, force: spec.Force, roles: wantRoles(spec)}
	if spec.Settings != nil {
		w.settings = *spec.Settings
	}
	eval := evaluator{scope: t.Scope, unknown: &w.unknown}
	w.root = login{name: eval.text(spec.Root.Username), password: eval.text(spec.Root.Password), database: adminDatabase}
	if !spec.FCV.IsZero() {
		w.fcv = eval.text(spec.FCV)
	}
	w.former = formerLogins(spec.Root.Password, t.Scope, w.root)
	w.keys = keyringOf(spec.Keyfile, eval.text(spec.Keyfile), t.Scope)
	var err error
	if w.tls, err = spec.TLS.resolve(&eval); err != nil {
		return want{}, err
	}
	for _, m := range spec.Members {
		host := eval.host(m)
		w.members = append(w.members, eval.member(m, host, t.Instance))
	}
	for _, u := range spec.Users {
		user := wantUser{login: login{name: u.Name, password: eval.text(u.Password), database: u.database()}, mechanisms: u.Mechanisms}
		for _, text := range u.Roles {
			r, _ := parseRole(text, u.database())
			user.roles = append(user.roles, r)
		}
		w.users = append(w.users, user)
	}
	for _, x := range spec.Indexes {
		w.indexes = append(w.indexes, x.resolve(spec.Database, &eval))
	}
	w.backup = spec.Backup.resolve(spec.Database, &eval)
	if eval.err != nil {
		return want{}, eval.err
	}
	w.uriUser = w.pickURIUser(spec.User)
	for _, s := range spec.Seed {
		documents, err := openSeed(t.SourceDir, s.File, s.key())
		if err != nil {
			return want{}, &reconcilers.BlockedError{Reason: "BadSeed", Message: err.Error(), Do: "Correct the file in the fleet repository"}
		}
		w.seeds = append(w.seeds, wantSeed{spec.seedDatabase(s), s.Collection, s.key(), s.File, s.Update, documents})
	}
	return w, nil
}

// evaluator collects the first error and the first unknown name.
type evaluator struct {
	scope   *desired.Scope
	unknown *string
	err     error
}

func (e *evaluator) text(x desired.Expr) string {
	value, err := x.Eval(e.scope)
	if err != nil {
		if e.err == nil {
			e.err = err
		}
		return ""
	}
	if !value.Known() {
		e.note(x)
	}
	return value.Text()
}

func (e *evaluator) host(m Member) string {
	host, err := m.host(e.scope)
	if err != nil && e.err == nil {
		e.err = fmt.Errorf("member %s: %w", m.Service, err)
	}
	if host == "" {
		e.note(m.Host)
	}
	return host
}

func (e *evaluator) note(x desired.Expr) {
	if *e.unknown == "" {
		*e.unknown = x.Missing(e.scope)[0]
	}
}

func (w want) pickURIUser(name string) login {
	for _, u := range w.users {
		if name == "" || u.name == name {
			return u.login
		}
	}
	return w.root
}

// initial is the member that is initiated: the first that may become primary.
func (w want) initial() wantMember {
	for _, m := range w.members {
		if m.electable() {
			return m
		}
	}
	return w.members[0]
}

// declared is the member of a step. Only a plan that another manifest made names one that is not there.
func (s *session) declared(host string) (wantMember, error) {
	m, ok := s.want.member(host)
	if !ok {
		return m, fmt.Errorf("member %s is not in the manifest", host)
	}
	return m, nil
}

func (w want) member(host string) (wantMember, bool) {
	for _, m := range w.members {
		if m.host == host {
			return m, true
		}
	}
	return wantMember{}, false
}
