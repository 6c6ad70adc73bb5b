package verify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dive-agent/desired"
)

// replicaSetKind is the kind whose output uri a mongo check uses by default.
const replicaSetKind = "MongoReplicaSet"

// Kind is Verification as manifests know it.
var Kind = desired.Kind{
	Name: "Verification",
	Doc:  "Declared checks of what an instance does; a failed core check is a failed instance.",
	New:  func() any { return new(Spec) },
}

// Spec is the component's part of a manifest.
type Spec struct {
	Checks []Check          `yaml:"checks" required:"true" doc:"The checks. They run at the same time."`
	Within desired.Duration `yaml:"within" default:"30s" doc:"How long failing checks are waited for before they count as failed: what was just changed needs its time."`
	Last   bool             `yaml:"last" default:"true" doc:"Run after all other components. false: only after what the checks name."`

	Position desired.Position
}

var (
	_ desired.Validator = (*Spec)(nil)
	_ desired.Needer    = (*Spec)(nil)
)

// Check is one check: a name and exactly one of the kinds.
type Check struct {
	Name        string           `yaml:"name" required:"true" doc:"Name in the status."`
	Class       string           `yaml:"class" default:"core" enum:"core,optional" doc:"A failed core check fails the instance; a failed optional one is a note."`
	Timeout     desired.Duration `yaml:"timeout" default:"10s" doc:"Limit of one try."`
	HTTP        *HTTP            `yaml:"http" doc:"Ask a URL."`
	TCP         *TCP             `yaml:"tcp" doc:"Connect to a port."`
	Mongo       *Mongo           `yaml:"mongo" doc:"Run a MongoDB command, or count documents."`
	SQL         *SQL             `yaml:"sql" doc:"Run a query on PostgreSQL, read only."`
	Logs        *Logs            `yaml:"logs" doc:"Look for a text in a service's log."`
	Certificate *Certificate     `yaml:"certificate" doc:"Look at a server's certificate."`
	OIDC        *OIDC            `yaml:"oidc" doc:"Read an OpenID provider's metadata."`

	Position desired.Position
}

// Trust says which certificate authorities count. Without either it is those of the host.
type Trust struct {
	CA     desired.Expr `yaml:"ca" doc:"Certificate authority that must have signed the server's certificate, PEM. Default: those of the host."`
	CAFile string       `yaml:"caFile" doc:"The same as a file, relative to the instance's source folder."`
}

// HTTP asks a URL, or a path of a service by its container's address. Redirects are not followed.
type HTTP struct {
	URL        desired.Expr `yaml:"url" doc:"URL. Alternative: service, port and path."`
	Service    string       `yaml:"service" doc:"Service that is asked by its container's address."`
	Port       int          `yaml:"port" doc:"Port in the container."`
	Path       desired.Expr `yaml:"path" doc:"Path and query. Default: /."`
	Scheme     string       `yaml:"scheme" default:"http" enum:"http,https" doc:"For a service: http or https."`
	ServerName string       `yaml:"serverName" doc:"Name that the server's certificate must carry. Default: the URL's host, or the service."`
	Status     int          `yaml:"status" default:"200" doc:"Status that is expected."`
	Contains   desired.Expr `yaml:"contains" doc:"Text that the answer's first MiB must contain."`
	Trust      `yaml:",inline"`
}

// TCP connects to a port.
type TCP struct {
	Service string       `yaml:"service" doc:"Service, by its container's address."`
	Port    int          `yaml:"port" doc:"Port in the container."`
	Address desired.Expr `yaml:"address" doc:"host:port. Alternative to service and port."`
}

// Mongo runs a command on the primary, or counts documents.
type Mongo struct {
	URI        desired.Expr `yaml:"uri" doc:"Connection string. Host names in it are services of the instance. Default: the output uri of component."`
	Component  string       `yaml:"component" doc:"Component whose output uri is used. Default: the instance's only replica set."`
	Service    string       `yaml:"service" doc:"Ask just this service's mongod, primary or not."`
	Command    desired.Tree `yaml:"command" doc:"Command, such as {hello: 1}."`
	Count      string       `yaml:"count" doc:"Collection whose documents are counted. Alternative to command."`
	Filter     desired.Tree `yaml:"filter" doc:"Which documents are counted. Default: all."`
	Expect     desired.Tree `yaml:"expect" doc:"Fields that the answer must have, or the number of documents. Default for a command: that it succeeds."`
	Database   string       `yaml:"database" doc:"Database. Default: that of the connection string for count, admin for command."`
	Collection string       `yaml:"collection" doc:"The same as count."`

	Certificate desired.Expr `yaml:"certificate" doc:"Key and certificate, in PEM, to show to servers that ask for one."`
	Trust       `yaml:",inline"`
}

// SQL runs one query in a transaction that cannot write.
type SQL struct {
	URI      desired.Expr `yaml:"uri" doc:"PostgreSQL connection string. Alternative: service, user, password and database."`
	Service  string       `yaml:"service" doc:"Service, by its container's address."`
	Port     int          `yaml:"port" default:"5432" doc:"Port in the container."`
	User     desired.Expr `yaml:"user" doc:"User."`
	Password desired.Expr `yaml:"password" doc:"Password."`
	Database desired.Expr `yaml:"database" doc:"Database. Default: the user's name."`
	Query    desired.Expr `yaml:"query" required:"true" doc:"Query; the first column of its first row counts."`
	Expect   desired.Tree `yaml:"expect" doc:"Value that is expected. Default: any row."`
}

// Logs looks at what a service wrote since its container started.
type Logs struct {
	Service string `yaml:"service" required:"true" doc:"Service."`
	Absent  string `yaml:"absent" literal:"true" doc:"Plain text that must not be in the log since the container started."`
	Present string `yaml:"present" literal:"true" doc:"Plain text that must be in it."`
}

// Certificate looks at what a TLS server shows.
type Certificate struct {
	Address    desired.Expr `yaml:"address" doc:"host:port. Alternative: service and port."`
	Service    string       `yaml:"service" doc:"Service, by its container's address."`
	Port       int          `yaml:"port" default:"443" doc:"Port in the container."`
	ServerName string       `yaml:"serverName" doc:"Name that the certificate must carry. Default: the address's host, or the service."`
	MinDays    int          `yaml:"minDays" default:"14" doc:"Days that every certificate of the chain must still be valid."`
	Trust      `yaml:",inline"`
}

// OIDC reads the discovery document of an OpenID provider: the issuer in it must be the expected one, and its keys
// must be reachable.
type OIDC struct {
	Issuer desired.Expr `yaml:"issuer" doc:"Issuer that tokens must carry; its discovery document is read unless url says another place."`
	URL    desired.Expr `yaml:"url" doc:"Discovery document, or the issuer's URL as this host reaches it."`
	Trust  `yaml:",inline"`
}

func (c Check) timeout() time.Duration {
	if c.Timeout <= 0 {
		return 10 * time.Second
	}
	return c.Timeout.Std()
}

func (m *Mongo) count() string {
	if m.Count != "" {
		return m.Count
	}
	return m.Collection
}

// kinds lists the kinds that the check has; a right one has exactly one.
func (c Check) kinds() []string {
	var list []string
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"http", c.HTTP != nil},
		{"tcp", c.TCP != nil},
		{"mongo", c.Mongo != nil},
		{"sql", c.SQL != nil},
		{"logs", c.Logs != nil},
		{"certificate", c.Certificate != nil},
		{"oidc", c.OIDC != nil},
	} {
		if k.set {
			list = append(list, k.name)
		}
	}
	return list
}

// service is the service that the check talks to, or "".
func (c Check) service() string {
	switch {
	case c.HTTP != nil:
		return c.HTTP.Service
	case c.TCP != nil:
		return c.TCP.Service
	case c.Mongo != nil:
		return c.Mongo.Service
	case c.SQL != nil:
		return c.SQL.Service
	case c.Logs != nil:
		return c.Logs.Service
	case c.Certificate != nil:
		return c.Certificate.Service
	}
	return ""
}

// Needs asks for the services and outputs that the checks use, and, unless told otherwise, for everything else of the
// instance: checks come last.
func (s *Spec) Needs(c *desired.Check) []desired.Need {
	var needs []desired.Need
	for _, check := range s.Checks {
		if service := check.service(); service != "" {
			needs = append(needs, desired.Need{Part: service, Why: "check " + check.Name, Position: check.Position})
		}
		if check.Mongo == nil || !check.Mongo.URI.IsZero() {
			continue
		}
		if component := check.Mongo.component(c.Instance); component != "" {
			needs = append(needs, desired.Need{Component: component, Output: "uri", Why: "check " + check.Name, Position: check.Position})
		}
	}
	if s.Last && c.Instance != nil {
		for _, other := range c.Instance.Components {
			if _, checks := other.Spec.(*Spec); !checks {
				needs = append(needs, desired.Need{Component: other.Name, Why: "checks come last", Position: s.Position})
			}
		}
	}
	return needs
}

// component is the component whose output uri the check uses; empty when the manifest leaves it open and there is not
// exactly one replica set.
func (m *Mongo) component(in *desired.Instance) string {
	if m.Component != "" || in == nil {
		return m.Component
	}
	found := ""
	for _, c := range in.Components {
		if c.Kind != replicaSetKind {
			continue
		}
		if found != "" {
			return ""
		}
		found = c.Name
	}
	return found
}

// Validate checks what the types cannot say.
func (s *Spec) Validate(c *desired.Check) {
	if len(s.Checks) == 0 {
		c.Errorf(s.Position, "there is no check in the list of checks")
	}
	names := map[string]bool{}
	for _, check := range s.Checks {
		if names[check.Name] {
			c.Errorf(check.Position, "check %q stands twice", check.Name)
		}
		names[check.Name] = true
		kinds := check.kinds()
		if len(kinds) != 1 {
			have := "none"
			if len(kinds) > 0 {
				have = strings.Join(kinds, ", ")
			}
			c.Errorf(check.Position, "check %q needs exactly one of http, tcp, mongo, sql, logs, certificate, oidc; it has %s", check.Name, have)
			continue
		}
		for _, problem := range check.problems(c) {
			c.Errorf(check.Position, "check %q: %s", check.Name, problem)
		}
	}
}

// problems says what is wrong with the check's only kind.
func (c Check) problems(at *desired.Check) []string {
	switch {
	case c.HTTP != nil:
		return append(place(c.HTTP.URL.IsZero(), c.HTTP.Service, c.HTTP.Port, "url"), c.HTTP.authority(at, c.Position)...)
	case c.TCP != nil:
		return place(c.TCP.Address.IsZero(), c.TCP.Service, c.TCP.Port, "address")
	case c.Mongo != nil:
		return append(c.Mongo.problems(at), c.Mongo.authority(at, c.Position)...)
	case c.SQL != nil:
		return place(c.SQL.URI.IsZero(), c.SQL.Service, c.SQL.Port, "uri")
	case c.Logs != nil && c.Logs.Absent == "" && c.Logs.Present == "":
		return []string{"logs needs absent or present"}
	case c.Certificate != nil:
		return append(place(c.Certificate.Address.IsZero(), c.Certificate.Service, c.Certificate.Port, "address"), c.Certificate.authority(at, c.Position)...)
	case c.OIDC != nil:
		list := c.OIDC.authority(at, c.Position)
		if c.OIDC.Issuer.IsZero() && c.OIDC.URL.IsZero() {
			list = append(list, "oidc needs issuer or url")
		}
		return list
	}
	return nil
}

func (m *Mongo) problems(at *desired.Check) []string {
	var list []string
	switch {
	case (m.count() != "") == !m.Command.IsZero():
		list = append(list, "mongo needs either command or count")
	case m.count() != "" && m.Expect.IsZero():
		list = append(list, "count needs expect, the number of documents")
	case !m.Command.IsZero() && !m.Command.IsMap():
		list = append(list, "command must be a map such as {hello: 1}")
	}
	if m.URI.IsZero() && m.component(at.Instance) == "" {
		list = append(list, "mongo needs uri or component: the instance has not exactly one "+replicaSetKind)
	}
	if m.Component != "" && !publishesURI(at.Instance, m.Component) {
		list = append(list, fmt.Sprintf("component %q is none of this instance that publishes uri", m.Component))
	}
	return list
}

func publishesURI(in *desired.Instance, name string) bool {
	if in == nil {
		return true
	}
	for _, c := range in.Components {
		outputter, ok := c.Spec.(desired.Outputter)
		if c.Name == name && ok {
			return slices.ContainsFunc(outputter.Outputs(), func(o desired.Output) bool { return o.Name == "uri" })
		}
	}
	return false
}

// place says whether exactly one way to the server is given.
func place(noAddress bool, service string, port int, address string) []string {
	switch {
	case noAddress && service == "":
		return []string{fmt.Sprintf("it needs %s or service", address)}
	case !noAddress && service != "":
		return []string{fmt.Sprintf("it has both %s and service; one is enough", address)}
	case service != "" && (port < 1 || port > 65535):
		return []string{"service " + service + " needs a port from 1 to 65535"}
	}
	return nil
}

// authority says what is wrong with the certificate authority that is named.
func (t Trust) authority(at *desired.Check, where desired.Position) []string {
	if t.CAFile == "" {
		return nil
	}
	if !t.CA.IsZero() {
		return []string{"it has both ca and caFile; one is enough"}
	}
	at.Path(where, t.CAFile, false)
	return nil
}
