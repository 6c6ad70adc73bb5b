package verify

import "dive-agent/desired"

// replicaSetKind is the kind whose output uri a mongo check uses by default.
const replicaSetKind = "MongoReplicaSet"

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

	Certificate desired.Expr `yaml:"certificate" doc:"Key and certificate, in PEM, to show to a server that asks for one."`
	Mutual      bool         `yaml:"mutual" doc:"The server must ask for a certificate: a second connection, which shows none, must be refused."`
	Trust       `yaml:",inline"`
}

// Policy compares the policies that OPA has with those that an OPAL server hands out.
type Policy struct {
	Service string       `yaml:"service" required:"true" doc:"Service that runs OPA."`
	Port    int          `yaml:"port" default:"8181" doc:"Its port in the container."`
	Server  desired.Expr `yaml:"server" required:"true" doc:"Base URL of the OPAL server as this agent reaches it."`
	Token   desired.Expr `yaml:"token" late:"true" doc:"Token of an OPAL client, which the server asks for unless it runs without keys. The suite does not wait for it."`
	Trust   `yaml:",inline"`
}

// TCP connects to a port.
type TCP struct {
	Service string       `yaml:"service" doc:"Service, by its container's address."`
	Port    int          `yaml:"port" doc:"Port in the container."`
	Address desired.Expr `yaml:"address" doc:"host:port. Alternative to service and port."`
}

// MongoPlace says where MongoDB is.
type MongoPlace struct {
	URI       desired.Expr `yaml:"uri" doc:"Connection string. Host names in it are services of the instance. Default: the output uri of component."`
	Component string       `yaml:"component" doc:"Component whose output uri is used. Default: the instance's only replica set."`
	Database  string       `yaml:"database" doc:"Database. Default: that of the connection string, admin for command."`
}

// Mongo asks MongoDB one of: command, count, every, changeStream, member.
type Mongo struct {
	MongoPlace   `yaml:",inline"`
	Service      string       `yaml:"service" doc:"Ask just this service's mongod, primary or not."`
	Command      desired.Tree `yaml:"command" doc:"Command, such as {hello: 1}."`
	Count        string       `yaml:"count" doc:"Collection whose documents are counted."`
	Filter       desired.Tree `yaml:"filter" doc:"Of count: which documents are counted. Default: all."`
	Expect       desired.Tree `yaml:"expect" doc:"Fields that the answer must have, or the number of documents. Default for a command: that it succeeds."`
	Every        *Every       `yaml:"every" doc:"What every document of a collection must have."`
	ChangeStream bool         `yaml:"changeStream" doc:"A change stream on the database must open."`
	Member       string       `yaml:"member" enum:"PRIMARY,SECONDARY" doc:"State of the member that is asked: of service, else of the one that the connection string leads to."`
	Set          string       `yaml:"set" doc:"With member: name of its replica set."`

	Certificate desired.Expr `yaml:"certificate" doc:"Key and certificate, in PEM, to show to servers that ask for one."`
	Trust       `yaml:",inline"`
}

// Every says what all documents of a collection have.
type Every struct {
	Collection string       `yaml:"collection" required:"true" doc:"Collection, such as resources."`
	Filter     desired.Tree `yaml:"filter" doc:"Which documents are meant. Default: all."`
	Is         desired.Tree `yaml:"is" doc:"Fields with the value that they must have, such as {encrypted: true}."`
	NonEmpty   []string     `yaml:"nonEmpty" doc:"Fields that must be there and not be null, an empty list, text or document, such as [ztdf.payload.keyAccessObjects]."`
	AtLeast    int          `yaml:"atLeast" default:"0" doc:"Documents that there must be: all of none is nothing."`
}

// Postgres says where PostgreSQL is.
type Postgres struct {
	URI      desired.Expr `yaml:"uri" doc:"PostgreSQL connection string. Alternative: service, user, password and database."`
	Service  string       `yaml:"service" doc:"Service, by its container's address."`
	Port     int          `yaml:"port" default:"5432" doc:"Port in the container."`
	User     desired.Expr `yaml:"user" doc:"User."`
	Password desired.Expr `yaml:"password" doc:"Password."`
	Database desired.Expr `yaml:"database" doc:"Database. Default: the user's name."`
}

// SQL runs one query in a transaction that cannot write.
type SQL struct {
	Postgres `yaml:",inline"`
	Query    desired.Expr `yaml:"query" required:"true" doc:"Query; the first column of its first row counts. Numbers, truth values and dates of it are told, texts never."`
	Expect   desired.Tree `yaml:"expect" doc:"Value that is expected. Default: any row."`
}

// What an audit check looks for unless its manifest says otherwise: what the backends of DIVE V3 write to.
var (
	auditTables    = []string{"audit_log", "authorization_log", "federation_log"}
	auditViews     = []string{"recent_authorization_denials", "federation_activity_summary"}
	auditFunctions = []string{"cleanup_old_audit_records"}
)

// Audit looks for what the audit log consists of.
type Audit struct {
	Postgres  `yaml:",inline"`
	Schema    string   `yaml:"schema" default:"public" doc:"Schema of the tables, views and functions."`
	Tables    []string `yaml:"tables" doc:"Tables. Default: audit_log, authorization_log, federation_log; []: none."`
	Views     []string `yaml:"views" doc:"Views. Default: recent_authorization_denials, federation_activity_summary; []: none."`
	Functions []string `yaml:"functions" doc:"Functions. Default: cleanup_old_audit_records; []: none."`
	Databases []string `yaml:"databases" doc:"Databases that the server must have."`
}

// Logs looks at what a service wrote.
type Logs struct {
	Service string `yaml:"service" required:"true" doc:"Service."`
	Absent  string `yaml:"absent" literal:"true" doc:"Plain text that must not be in the log."`
	Present string `yaml:"present" literal:"true" doc:"Plain text that must be in it."`
	Since   string `yaml:"since" default:"start" enum:"start,change" doc:"From when on. start: since the service's container started. change: since the last change of the instance, which is when the newest container of its services started."`
}

// Certificate looks at what a TLS server shows.
type Certificate struct {
	Address    desired.Expr `yaml:"address" doc:"host:port. Alternative: service and port."`
	Service    string       `yaml:"service" doc:"Service, by its container's address."`
	Port       int          `yaml:"port" default:"443" doc:"Port in the container."`
	ServerName string       `yaml:"serverName" doc:"Name that the certificate must carry. Default: the address's host, or the service."`
	MinDays    int          `yaml:"minDays" default:"30" doc:"Days that every certificate of the chain must still be valid."`
	Trust      `yaml:",inline"`
}

// OIDC reads the discovery document of an OpenID provider: the issuer in it must be the expected one, and its keys
// must be reachable.
type OIDC struct {
	Issuer desired.Expr `yaml:"issuer" doc:"Issuer that tokens must carry; its discovery document is read unless url says another place."`
	URL    desired.Expr `yaml:"url" doc:"Discovery document, or the issuer's URL as this host reaches it."`
	Trust  `yaml:",inline"`
}

// allSpokes is the partner of a hub that stands for all its spokes.
const allSpokes = "spokes"

// Federation looks at the federation of this instance with a partner.
type Federation struct {
	Both       string           `yaml:"both" required:"true" doc:"Partner with which links must exist in both directions: an instance of the fleet, such as usa; or spokes: of a hub, every spoke of the fleet that it has approved."`
	Heartbeat  desired.Duration `yaml:"heartbeat" default:"60s" doc:"How long ago the last heartbeat of the spoke may be. To who has no adminKey the hub tells only of those that it counts as unhealthy: older than 90 s."`
	AdminKey   desired.Expr     `yaml:"adminKey" doc:"Of a hub: its FEDERATION_ADMIN_KEY, a secret of the instance; the hub tells the time of each heartbeat for it."`
	Collection string           `yaml:"collection" default:"federation_matrix" doc:"Collection of the links in the instance's own database: documents with sourceCountry and trustedCountries."`
	URL        desired.Expr     `yaml:"url" doc:"Base URL of the hub. Default: hub.url of fleet.yaml."`
	MongoPlace `yaml:",inline"`
	Trust      `yaml:",inline"`
}
