package mongo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// Role is a role of the manifest's own.
type Role struct {
	Name       string      `yaml:"name" required:"true" doc:"Name of the role."`
	Database   string      `yaml:"database" default:"admin" doc:"Database the role belongs to. Only a role of admin reaches beyond its own database."`
	Privileges []Privilege `yaml:"privileges" doc:"What it allows beyond what it inherits."`
	Roles      []string    `yaml:"roles" doc:"Roles it inherits from: a name (in the role's database) or name@database."`

	Position desired.Position
}

// Privilege allows actions on a resource.
type Privilege struct {
	Resource Resource `yaml:"resource" required:"true" doc:"On what."`
	Actions  []string `yaml:"actions" required:"true" doc:"Actions as the server names them, such as find and insert."`

	Position desired.Position
}

// Resource is what a privilege is about.
type Resource struct {
	Database   *string `yaml:"database" doc:"Database; an empty text means every database."`
	Collection string  `yaml:"collection" doc:"Collection; empty means every collection but those of the system."`
	Cluster    bool    `yaml:"cluster" doc:"The server as a whole, in place of a database."`
}

// Roles that every server has, from 4.4 on: those of admin alone, and those of each database.
var (
	adminRoles = []string{
		"__queryableBackup", "__system", "backup", "clusterAdmin", "clusterManager", "clusterMonitor", "dbAdminAnyDatabase",
		"directShardOperations", "hostManager", "readAnyDatabase", "readWriteAnyDatabase", "restore", "root",
		"searchCoordinator", "userAdminAnyDatabase",
	}
	databaseRoles = []string{"dbAdmin", "dbOwner", "enableSharding", "read", "readWrite", "userAdmin"}
)

func (r Role) database() string {
	if r.Database == "" {
		return adminDatabase
	}
	return r.Database
}

func (r Role) id() string { return roleText(r.Name, r.database()) }

func roleText(name, database string) string { return name + "@" + database }

// addressed names a role or user in a plan; those of admin need no database.
func addressed(name, database string) string {
	if database == adminDatabase {
		return name
	}
	return roleText(name, database)
}

// parseRole reads a name, of the given database, or name@database.
func parseRole(text, database string) (role, bool) {
	name, other, has := strings.Cut(text, "@")
	if has {
		database = other
	}
	return role{name, database}, name != "" && database != ""
}

// knownRoles are the names that a role may have in a database.
func (s *Spec) knownRoles(database string) []string {
	names := slices.Clone(databaseRoles)
	if database == adminDatabase {
		names = append(names, adminRoles...)
	}
	for _, r := range s.Roles {
		if r.database() == database {
			names = append(names, r.Name)
		}
	}
	return names
}

// validateGranted checks the roles that a user or a role is given; who is "user app" or "role reader".
func (s *Spec) validateGranted(c *desired.Check, at desired.Position, who, database string, granted []string) {
	for _, text := range granted {
		r, ok := parseRole(text, database)
		known := s.knownRoles(r.Database)
		switch {
		case !ok:
			c.Errorf(at, "role %q of %s is neither a name nor name@database", text, who)
		case slices.Contains(known, r.Name):
		case slices.Contains(s.knownRoles(adminDatabase), r.Name):
			c.Errorf(at, "role %q of %s belongs to database admin: write %s", text, who, roleText(r.Name, adminDatabase))
		default:
			hint := desired.Suggest(r.Name, known)
			if hint == "" {
				hint = ". Declare it in roles, or name a built-in one"
			}
			c.Errorf(at, "%s has role %q, which database %s does not know%s", who, r.Name, r.Database, hint)
		}
	}
}

func (s *Spec) validateRoles(c *desired.Check) {
	seen := map[string]bool{}
	for _, r := range s.Roles {
		who := "role " + r.Name
		if slices.Contains(databaseRoles, r.Name) || r.database() == adminDatabase && slices.Contains(adminRoles, r.Name) {
			c.Errorf(r.Position, "%s is built into the server; give yours another name", who)
		}
		if seen[r.id()] {
			c.Errorf(r.Position, "%s in database %s stands twice", who, r.database())
		}
		seen[r.id()] = true
		s.validateGranted(c, r.Position, who, r.database(), r.Roles)
		for _, p := range r.Privileges {
			p.validate(c, r)
		}
		if r.database() == adminDatabase {
			continue
		}
		for _, text := range r.Roles {
			if inherited, _ := parseRole(text, r.database()); inherited.Database != r.database() {
				c.Errorf(r.Position, "%s of database %s cannot inherit from %s: only a role of admin may", who, r.database(), text)
			}
		}
	}
	if _, circle := orderRoles(s.Roles); circle != "" {
		c.Errorf(c.At("roles"), "role %s inherits from itself", circle)
	}
}

func (p Privilege) validate(c *desired.Check, r Role) {
	database := p.Resource.Database
	switch {
	case len(p.Actions) == 0:
		c.Errorf(p.Position, "a privilege of role %s has no actions", r.Name)
	case p.Resource.Cluster == (database != nil):
		c.Errorf(p.Position, "a privilege of role %s needs either a database or cluster: true", r.Name)
	case p.Resource.Cluster && p.Resource.Collection != "":
		c.Errorf(p.Position, "a privilege of role %s on the cluster has no collection", r.Name)
	case r.database() != adminDatabase && (p.Resource.Cluster || *database != r.database()):
		c.Errorf(p.Position, "role %s of database %s reaches beyond it: only a role of admin may", r.Name, r.database())
	}
}

// orderRoles puts each role after those it inherits from. circle names a role that inherits from itself.
func orderRoles(roles []Role) (ordered []Role, circle string) {
	index := map[string]int{}
	for i, r := range roles {
		index[r.id()] = i
	}
	state := make([]int, len(roles)) // 1: being visited, 2: done
	var visit func(i int)
	visit = func(i int) {
		state[i] = 1
		for _, text := range roles[i].Roles {
			r, _ := parseRole(text, roles[i].database())
			next, declared := index[roleText(r.Name, r.Database)]
			switch {
			case declared && state[next] == 1:
				circle = roles[i].Name
			case declared && state[next] == 0:
				visit(next)
			}
		}
		state[i] = 2
		ordered = append(ordered, roles[i])
	}
	for i := range roles {
		if state[i] == 0 {
			visit(i)
		}
	}
	return ordered, circle
}

// wantRole is a declared role; its actions by resource.
type wantRole struct {
	role
	privileges []privilege
	inherits   []role
}

type privilege struct {
	Resource bson.D   `bson:"resource"`
	Actions  []string `bson:"actions"`
}

func wantRoles(spec *Spec) []wantRole {
	var list []wantRole
	ordered, _ := orderRoles(spec.Roles)
	for _, r := range ordered {
		w := wantRole{role: role{r.Name, r.database()}}
		for _, p := range r.Privileges {
			resource := bson.D{{Key: "cluster", Value: true}}
			if !p.Resource.Cluster {
				resource = bson.D{{Key: "db", Value: *p.Resource.Database}, {Key: "collection", Value: p.Resource.Collection}}
			}
			w.privileges = append(w.privileges, privilege{resource, p.Actions})
		}
		for _, text := range r.Roles {
			inherited, _ := parseRole(text, r.database())
			w.inherits = append(w.inherits, inherited)
		}
		list = append(list, w)
	}
	return list
}

// roleGap is what a declared role lacks.
type roleGap struct {
	index   int
	missing bool
	differs []string // what it allows, when that is not what is wanted
}

// observeRoles compares the declared roles with the server's as sets. others are the roles that nobody declared.
func (s *session) observeRoles(ctx context.Context, client *driver.Client) (gaps []roleGap, others []string, err error) {
	const enough = 1000 // more roles than anybody makes by hand
	var answer struct {
		Cursor struct {
			Batch []struct {
				Name       string      `bson:"role"`
				Database   string      `bson:"db"`
				Privileges []privilege `bson:"privileges"`
				Roles      []role      `bson:"roles"`
			} `bson:"firstBatch"`
		} `bson:"cursor"`
	}
	// rolesInfo tells of one database at a time.
	find := bson.D{{Key: "find", Value: "system.roles"}, {Key: "batchSize", Value: enough}, {Key: "singleBatch", Value: true}}
	if err := run(ctx, client, adminDatabase, find, &answer); err != nil {
		return nil, nil, fmt.Errorf("read the roles: %w", err)
	}
	have := map[role]int{}
	for i, r := range answer.Cursor.Batch {
		have[role{r.Name, r.Database}] = i
	}
	for i, w := range s.want.roles {
		at, exists := have[w.role]
		if !exists {
			gaps = append(gaps, roleGap{index: i, missing: true})
			continue
		}
		delete(have, w.role)
		r := answer.Cursor.Batch[at]
		differs := privilegesDiffer(r.Privileges, w.privileges)
		if !sameRoles(r.Roles, w.inherits) {
			differs = append(differs, "inherits "+roleNames(r.Roles)+" -> "+roleNames(w.inherits))
		}
		if len(differs) > 0 {
			gaps = append(gaps, roleGap{index: i, differs: differs})
		}
	}
	return gaps, roleList(slices.Collect(maps.Keys(have))), nil
}

// privilegesDiffer tells, by resource, which actions are others than wanted.
func privilegesDiffer(have, want []privilege) []string {
	a, b := actionsOf(have), actionsOf(want)
	resources := maps.Clone(a)
	maps.Copy(resources, b)
	var differs []string
	for _, resource := range slices.Sorted(maps.Keys(resources)) {
		if !slices.Equal(a[resource], b[resource]) {
			differs = append(differs, fmt.Sprintf("on %s %s -> %s", resource, listed(a[resource]), listed(b[resource])))
		}
	}
	return differs
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// actionsOf gives the sorted actions by resource; a resource may stand in several privileges.
func actionsOf(privileges []privilege) map[string][]string {
	actions := map[string][]string{}
	for _, p := range privileges {
		name := resourceText(p.Resource)
		actions[name] = append(actions[name], p.Actions...)
	}
	for name, list := range actions {
		slices.Sort(list)
		actions[name] = slices.Compact(list)
	}
	return actions
}

// resourceText names a resource for people, each by its own name.
func resourceText(resource bson.D) string {
	var fields []string
	texts := map[string]string{}
	for _, f := range resource {
		text, _ := f.Value.(string)
		texts[f.Key] = text
		fields = append(fields, f.Key)
	}
	slices.Sort(fields)
	if !slices.Equal(fields, []string{"collection", "db"}) { // cluster, anyResource, or what a later server has
		raw, err := bson.MarshalExtJSON(resource, false, false)
		if len(fields) == 1 || err != nil {
			return fields[0]
		}
		return string(raw)
	}
	or := func(text, otherwise string) string {
		if text == "" {
			return otherwise
		}
		return text
	}
	return or(texts["db"], "*") + "." + or(texts["collection"], "*")
}

// putRole makes the role, or updates it in place.
func (s *session) putRole(ctx context.Context, client *driver.Client, w wantRole) error {
	content := bson.D{{Key: "privileges", Value: w.privileges}, {Key: "roles", Value: w.inherits}}
	if w.privileges == nil {
		content[0].Value = bson.A{}
	}
	if w.inherits == nil {
		content[1].Value = bson.A{}
	}
	err := run(ctx, client, w.Database, append(bson.D{{Key: "createRole", Value: w.Name}}, content...), nil)
	if hasCode(err, codeRoleAlreadyExists) {
		err = run(ctx, client, w.Database, append(bson.D{{Key: "updateRole", Value: w.Name}}, content...), nil)
	}
	if isRefusal(err) {
		return &reconcilers.BlockedError{
			Reason: "RoleRefused", Message: fmt.Sprintf("the server does not take role %s", roleText(w.Name, w.Database)), Err: err,
			Do: "Correct its privileges and roles in the manifest",
		}
	}
	if err != nil {
		return fmt.Errorf("set role %s: %w", w.Name, err)
	}
	return nil
}

func (p *planner) planRole(gap roleGap) {
	w := p.want.roles[gap.index]
	address := "role " + addressed(w.Name, w.Database)
	s := step{action: putRole, index: gap.index}
	if !gap.missing {
		p.add(s, reconcilers.Update, address, strings.Join(gap.differs, "; "))
		return
	}
	allows := privilegesDiffer(nil, w.privileges)
	for i := range allows {
		allows[i] = strings.Replace(allows[i], "none -> ", "", 1)
	}
	if len(w.inherits) > 0 {
		allows = append(allows, "inherits "+roleNames(w.inherits))
	}
	p.add(s, reconcilers.Create, address, strings.Join(allows, "; "))
}
