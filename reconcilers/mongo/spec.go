package mongo

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"dive-agent/desired"
)

// Limits of the server: a replica set has at most 50 members of which 7 vote.
const (
	maxMembers = 50
	maxVoters  = 7
	mongoPort  = 27017
)

// Kind is MongoReplicaSet as manifests know it.
var Kind = desired.Kind{
	Name: "MongoReplicaSet",
	Doc:  "A MongoDB replica set over services of the instance: initiated, grown and shrunk, with its users and seed documents.",
	New:  func() any { return new(Spec) },
}

// Spec is the component's part of a manifest.
type Spec struct {
	Name     string       `yaml:"name" default:"rs0" doc:"Name of the replica set, the same as in mongod's --replSet."`
	Members  []Member     `yaml:"members" required:"true" doc:"The members. The first one that may become primary is initiated, the others are added one at a time."`
	Root     Root         `yaml:"root" required:"true" doc:"The administrator, as the image's entrypoint makes it. It is made here when the server has no user yet and the keyfile is given."`
	Keyfile  desired.Expr `yaml:"keyfile" doc:"Content of the members' key file, as ${NAME} of a secret: that one is rotated member by member. Needed beside that only where the first user is not made by the image."`
	TLS      *TLS         `yaml:"tls" doc:"How the agent and clients speak TLS to the members. Whether a member does is said by its --tlsMode; the agent speaks TLS to those that do."`
	Roles    []Role       `yaml:"roles" doc:"Roles beside those that the server has. They are made before the users, and never dropped."`
	Users    []User       `yaml:"users" doc:"Users beside the administrator. They are updated in place; a password is set again only when it changed or no longer works. Users that are not declared are left alone."`
	User     string       `yaml:"user" doc:"Whose login the output uri carries. Default: the first of users, else root."`
	FCV      desired.Expr `yaml:"featureCompatibilityVersion" doc:"Raised to this one, such as \"6.0\", once all members run a server of it; never lowered. Merge it after the image, when you are sure not to go back. Default: stays as it is."`
	Settings *Settings    `yaml:"settings" doc:"Settings of the replica set. What is left out stays as it is."`
	Seed     []Seed       `yaml:"seed" doc:"Documents that must be there. Missing ones are inserted; what is there is changed only where update is set, and never removed."`
	Indexes  []Index      `yaml:"indexes" doc:"Indexes that must be there. Missing ones are made, before the documents of seed; none is ever dropped."`
	Force    *Force       `yaml:"force" doc:"An order to go on without the members that are lost, when most of them are. It is carried out once and can lose writes; merge it for what the status says, and take it out afterwards."`
	Backup   *Backup      `yaml:"backup" doc:"Dumps to a folder of the host by a schedule. They are brought back by dive-agent restore."`
	Database string       `yaml:"database" doc:"Default database: in the output uri, and of seeds."`
}

var (
	_ desired.Validator = (*Spec)(nil)
	_ desired.Outputter = (*Spec)(nil)
	_ desired.Needer    = (*Spec)(nil)
	_ desired.Setter    = (*Spec)(nil)
	_ desired.KeySharer = (*Spec)(nil)
)

// Member is one mongod of the set.
type Member struct {
	Service  string            `yaml:"service" doc:"The service that runs it. Needed for a member on this instance's own host."`
	On       desired.Expr      `yaml:"on" doc:"Name of the host whose agent runs it, when the members are on several. Default: this instance's host, or, without a service, one that no agent of this fleet runs it on."`
	Port     int               `yaml:"port" default:"27017" doc:"Port in the container."`
	Host     desired.Expr      `yaml:"host" doc:"Name and port under which members and clients know it, on all hosts. Default, where all members are on one host: service:port."`
	Priority *float64          `yaml:"priority" doc:"How much it should be primary, 0 (never) to 1000. Default 1, or 0 when hidden, delayed, an arbiter or without vote."`
	Votes    *int              `yaml:"votes" doc:"0 or 1. Default 1."`
	Hidden   bool              `yaml:"hidden" doc:"Clients do not see it."`
	Arbiter  bool              `yaml:"arbiter" doc:"It votes and holds no data. Needs a default write concern, see settings."`
	Delay    desired.Duration  `yaml:"delay" doc:"How long it stays behind the primary on purpose, in whole seconds. Clients should not see it: hidden, or priority 0."`
	Tags     map[string]string `yaml:"tags" doc:"Tags for read preferences and write concerns."`

	Position desired.Position
}

// Root is the administrator's login.
type Root struct {
	Username desired.Expr `yaml:"username" required:"true" doc:"Name of the administrator in database admin."`
	Password desired.Expr `yaml:"password" required:"true" doc:"Its password."`
}

// TLS is how members are trusted.
type TLS struct {
	CA                 desired.Expr `yaml:"ca" required:"true" doc:"Authorities of the members' certificates, in PEM, such as a secret of kind ca. A member's certificate must be for its host name."`
	Certificate        desired.Expr `yaml:"certificate" doc:"Key and certificate, in PEM, that the agent shows to the members. They want one unless they run with --tlsAllowConnectionsWithoutCertificates. With one of the members' own, under x.509 cluster authentication, the agent gets in where no user exists yet."`
	CAFile             string       `yaml:"caFile" doc:"Where the containers of clients have the authorities: goes into the output uri, as tlsCAFile."`
	CertificateKeyFile string       `yaml:"certificateKeyFile" doc:"Where they have key and certificate of their own: goes into the output uri, as tlsCertificateKeyFile."`
}

// User is a database user.
type User struct {
	Name     string       `yaml:"name" required:"true" doc:"User name."`
	Password desired.Expr `yaml:"password" required:"true" doc:"Password."`
	Database string       `yaml:"database" default:"admin" doc:"Database the user belongs to (its authSource)."`
	Roles    []string     `yaml:"roles" required:"true" doc:"Roles: a name (in the user's database) or name@database."`

	Mechanisms []string `yaml:"mechanisms" doc:"How it may log in: SCRAM-SHA-256, SCRAM-SHA-1. Default: SCRAM-SHA-256 for a user that is made here; one that is there keeps what it has."`

	Position desired.Position
}

// Settings are the replica set's settings that a manifest may set.
type Settings struct {
	ElectionTimeoutMillis   int    `yaml:"electionTimeoutMillis" doc:"How long members wait for a primary before they elect another. The server's default is 10000."`
	HeartbeatIntervalMillis int    `yaml:"heartbeatIntervalMillis" doc:"How often members ask each other. The server's default is 2000."`
	HeartbeatTimeoutSecs    int    `yaml:"heartbeatTimeoutSecs" doc:"How long a member may be silent before it counts as away. The server's default is 10."`
	CatchUpTimeoutMillis    int    `yaml:"catchUpTimeoutMillis" doc:"How long a new primary fetches what others have and it has not. The server's default is -1, no limit."`
	ChainingAllowed         *bool  `yaml:"chainingAllowed" doc:"Whether a secondary may copy from another secondary. Without it one that may become primary cannot fetch, when the primary is lost, what only one that may not has: there is none until the lost one is back. The server's default is true."`
	DefaultWriteConcern     string `yaml:"defaultWriteConcern" doc:"Write concern of clients that name none: majority, or a number of members. Needs server 4.4. Default: as it is; with an arbiter, majority."`
}

// Seed is a file of documents for one collection.
type Seed struct {
	Database   string `yaml:"database" doc:"Database. Default: the component's."`
	Collection string `yaml:"collection" required:"true" doc:"Collection."`
	File       string `yaml:"file" required:"true" doc:"File of documents, relative to the instance's source folder: a JSON array in which extended JSON is allowed, or, as .yaml or .yml, a list of maps. At most 16 MiB and 100000 documents."`
	Key        string `yaml:"key" default:"_id" doc:"Field that identifies a document."`
	Update     bool   `yaml:"update" doc:"Documents that are there and differ from the file are replaced; the order of fields, the types of equal numbers and, with another key, _id make no difference."`

	Position desired.Position
}

func (m Member) port() int {
	if m.Port == 0 {
		return mongoPort
	}
	return m.Port
}

func (m Member) votes() int {
	if m.Votes == nil {
		return 1
	}
	return *m.Votes
}

func (m Member) priority() float64 {
	switch {
	case m.Priority != nil:
		return *m.Priority
	case m.Hidden, m.Arbiter, m.Delay > 0, m.votes() == 0:
		return 0
	}
	return 1
}

func (u User) database() string {
	if u.Database == "" {
		return adminDatabase
	}
	return u.Database
}

func (s Seed) key() string {
	if s.Key == "" {
		return idField
	}
	return s.Key
}

func (s *Spec) setName() string {
	if s.Name == "" {
		return "rs0"
	}
	return s.Name
}

func (s *Spec) seedDatabase(seed Seed) string {
	if seed.Database != "" {
		return seed.Database
	}
	return s.Database
}

// Needs asks for each member's service to run. Healthy would be too much: a health check that asks for PRIMARY passes
// only after this component is done.
func (s *Spec) Needs(c *desired.Check) []desired.Need {
	var needs []desired.Need
	seen := map[string]bool{}
	for _, m := range s.Members {
		if _, elsewhere := m.place(c.Instance, c.Scope); elsewhere || seen[m.Service] {
			continue
		}
		seen[m.Service] = true
		needs = append(needs, desired.Need{
			Part: m.Service, Started: true, Single: true, Position: m.Position,
			Why: "runs a member of " + s.setName(),
		})
	}
	return needs
}

// Validate checks what the types cannot say.
func (s *Spec) Validate(c *desired.Check) {
	s.validateMembers(c, c.At("members"))
	s.validatePlaces(c)
	names := map[string]bool{}
	for _, u := range s.Users {
		id := u.database() + "." + u.Name
		if names[id] {
			c.Errorf(u.Position, "user %s in database %s stands twice", u.Name, u.database())
		}
		names[id] = true
		if len(u.Roles) == 0 {
			c.Errorf(u.Position, "user %s has no roles", u.Name)
		}
		s.validateGranted(c, u.Position, "user "+u.Name, u.database(), u.Roles)
		for _, m := range u.Mechanisms {
			if !slices.Contains(mechanisms, m) {
				c.Errorf(u.Position, "mechanism %q of user %s: %s are possible", m, u.Name, strings.Join(mechanisms, " and "))
			}
		}
	}
	s.validateRoles(c)
	if s.User != "" && !s.knowsUser(s.User) {
		c.Errorf(c.At("user"), "user %q, whose login the uri should carry, is neither root's name nor one of users", s.User)
	}
	s.validateSettings(c)
	s.Force.validate(c, s)
	if value, err := s.FCV.Eval(c.Scope); !s.FCV.IsZero() && err == nil && value.Known() {
		if v, ok := parseSeries(value.Text()); !ok || v.String() != value.Text() {
			c.Errorf(c.At("featureCompatibilityVersion"), "feature compatibility version %q: a release series such as \"6.0\" is possible", value.Display())
		}
	}
	for _, seed := range s.Seed {
		s.validateSeed(c, seed)
	}
	s.validateIndexes(c)
	s.validateBackup(c)
}

func (s *Spec) validateSettings(c *desired.Check) {
	st := s.Settings
	if st == nil {
		return
	}
	if st.ElectionTimeoutMillis < 0 || st.HeartbeatIntervalMillis < 0 || st.HeartbeatTimeoutSecs < 0 || st.CatchUpTimeoutMillis < -1 {
		c.Errorf(c.At("settings"), "settings must not be negative")
	}
	if w := st.DefaultWriteConcern; w != "" && w != "majority" {
		if n, err := strconv.Atoi(w); err != nil || n < 1 || n > maxMembers {
			c.Errorf(c.At("settings", "defaultWriteConcern"), "default write concern %q: majority, or a number from 1 to %d", w, maxMembers)
		}
	}
}

func (s *Spec) knowsUser(name string) bool {
	if len(s.Root.Username.References()) > 0 || s.Root.Username.Source() == name {
		return true
	}
	for _, u := range s.Users {
		if u.Name == name {
			return true
		}
	}
	return false
}

func (s *Spec) validateMembers(c *desired.Check, at desired.Position) {
	if len(s.Members) == 0 {
		c.Errorf(at, "a replica set needs at least one member")
		return
	}
	if len(s.Members) > maxMembers {
		c.Errorf(at, "%d members: a replica set has at most %d", len(s.Members), maxMembers)
	}
	voters, electable, arbiters := 0, 0, 0
	hosts := map[string]bool{}
	for _, m := range s.Members {
		if m.votes() < 0 || m.votes() > 1 {
			c.Errorf(m.Position, "member %s has %d votes: 0 or 1 is possible", m.title(), m.votes())
		}
		voters += m.votes()
		switch p := m.priority(); {
		case p < 0 || p > 1000:
			c.Errorf(m.Position, "member %s has priority %v: 0 to 1000 is possible", m.title(), p)
		case p > 0 && (m.Hidden || m.Delay > 0 || m.Arbiter || m.votes() == 0):
			c.Errorf(m.Position, "member %s is hidden, delayed, an arbiter or without a vote, so its priority must be 0", m.title())
		case p > 0:
			electable++
		}
		m.validateRole(c)
		if m.Arbiter {
			arbiters++
		}
		if m.port() < 1 || m.port() > 65535 {
			c.Errorf(m.Position, "member %s: %d is no port", m.title(), m.port())
		}
		host, err := m.host(c.Scope)
		if err != nil {
			c.Errorf(m.Position, "member %s: %v", m.title(), err)
			continue
		}
		if host != "" && hosts[host] {
			c.Errorf(m.Position, "member %s stands twice", host)
		}
		hosts[host] = true
	}
	if voters > maxVoters {
		c.Errorf(at, "%d voting members: at most %d may vote. Give the others votes: 0", voters, maxVoters)
	}
	if arbiters > 1 {
		c.Errorf(at, "%d arbiters: a replica set takes one", arbiters)
	}
	if electable == 0 {
		c.Errorf(at, "no member may become primary: one needs a vote and a priority above 0")
	}
}

// validateRole checks what an arbiter and a delayed member cannot be.
func (m Member) validateRole(c *desired.Check) {
	switch delay := m.Delay.Std(); {
	case m.Arbiter && (m.Hidden || delay > 0 || m.votes() == 0 || len(m.Tags) > 0):
		c.Errorf(m.Position, "member %s is an arbiter: it has a vote, and cannot be hidden, delayed or tagged", m.title())
	case delay < 0 || delay%time.Second != 0:
		c.Errorf(m.Position, "member %s has delay %s: whole seconds from 0 are possible", m.title(), delay)
	}
}

func (m Member) shape() shape {
	return shape{
		votes: m.votes(), priority: m.priority(), hidden: m.Hidden, arbiter: m.Arbiter,
		delay: int(m.Delay.Std() / time.Second), tags: m.Tags,
	}
}

// host gives the member's host:port; empty while it is unknown.
func (m Member) host(scope *desired.Scope) (string, error) {
	if m.Host.IsZero() {
		if m.Service == "" {
			return "", errors.New("a member without a service needs a host")
		}
		return net.JoinHostPort(m.Service, strconv.Itoa(m.port())), nil
	}
	value, err := m.Host.Eval(scope)
	if err != nil || !value.Known() {
		return "", err
	}
	host := value.Text()
	if !strings.Contains(host, ":") {
		host = net.JoinHostPort(host, strconv.Itoa(m.port()))
	}
	if name, port, err := net.SplitHostPort(host); err != nil || name == "" || port == "" {
		return "", fmt.Errorf("%q is not host:port", value.Display())
	}
	return host, nil
}

func (s *Spec) validateSeed(c *desired.Check, seed Seed) {
	at := seed.Position
	if s.seedDatabase(seed) == "" {
		c.Errorf(at, "seed %s needs a database, here or in the component", seed.Collection)
	}
	if c.Light {
		return
	}
	name, ok := c.Path(at, seed.File, false)
	if !ok || c.Files == nil {
		return
	}
	file, err := c.Files.Open(name)
	if err != nil {
		c.Errorf(at, "seed %s: cannot read %s: %v", seed.Collection, seed.File, cause(err))
		return
	}
	defer func() { _ = file.Close() }()
	err = desired.Once(c, "seed "+name+" by "+seed.key(), func() error {
		_, err := readSeed(file, name, seed.key())
		return err
	})
	if err != nil {
		c.Errorf(at, "seed %s: %v", seed.Collection, err)
	}
}
