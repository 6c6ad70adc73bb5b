package desired

import (
	"fmt"
	"time"
)

// Fleet is the whole repository, validated.
type Fleet struct {
	Name      string
	Hub       HubSpec
	Hosts     map[string]*Host
	Instances map[string]*Instance
	Removed   []string // instances that are meant to be gone
	Digest    string   // of everything that was read

	object  Value // the built-in object "fleet"
	readers map[string]map[OutputName][]Reader
}

// HubSpec is the part of fleet.yaml that tells spokes where the hub is.
type HubSpec struct {
	Instance string `yaml:"instance" doc:"Name of the hub's instance."`
	URL      string `yaml:"url" doc:"Base URL of the hub's backend as agents reach it, such as https://hub.example:4000."`
	CA       string `yaml:"ca" doc:"PEM of the certificate authority of the hub's server certificate."`
	CAFile   string `yaml:"caFile" doc:"The same as a file of the repository."`

	at Position // of the field instance
}

// Host is hosts/<name>.yaml.
type Host struct {
	Name        string
	MachineID   string
	Recipients  []string // age X25519 public keys: what is sealed to the host is sealed to all of them
	SigningKeys []string // SSH public keys, "type base64" without a comment; each of them signs for the host
	Position    Position
}

// Instance is one hub or spoke, its blueprint merged in.
type Instance struct {
	Name       string
	Host       string
	Blueprint  string
	Role       string // hub or spoke
	Values     map[string]Value
	Secrets    []SecretSpec
	Components []*Component      // in the order of the manifest
	Approve    map[string]string // component -> digest of the plan that may go through
	OnRemove   string            // keep, stop or destroy
	Graph      *Graph
	Source     string // folder in the repository that relative paths are read from, such as blueprints/spoke
	Digest     string // of all that shapes this instance: manifest, blueprint and its files, fleet defaults, what it takes of other manifests
	Position   Position

	DestroyVolumes bool // with destroy

	hub   map[string]Value // fields of the built-in object "hub"
	fleet Value            // the built-in object "fleet"

	imports   []Import
	instances Value // the built-in object "instances": what is imported, unknown
	outputs   Value // of it, what a for over fleet.spokes asks for
}

// Component is one named part of an instance.
type Component struct {
	Name     string
	Kind     string
	Spec     any      // what Kind.New made, filled
	Publish  []string // outputs that other instances may read
	Position Position

	node  *node
	exprs []Expr // all expressions that use a name
	after []dependency

	publish []publication
}

// Tree is the component as its manifests have it, blueprint and instance merged.
func (c *Component) Tree() Tree { return Tree{c.node} }

// dependency is one entry of the generic field `after`.
type dependency struct {
	on string // component or component/part
	at Position
}

// SecretSpec is one declared secret; exactly one of Generate, Provide and Source is set.
type SecretSpec struct {
	Name     string
	Generate *Generate
	Provide  bool          // an operator puts it on the host
	Source   *SecretSource // it comes from elsewhere, and is looked at again
	File     *SecretFile
	Keyfile  bool // it is the content of a key file that servers share (see KeySharer)
	Position Position

	Rotate      *Rotation    // when it is made anew; nil: when somebody says so
	Certificate *Certificate // what is generated, when that is a certificate or an authority
}

// PublicName is the name of the value that holds the public half of a key, in PEM; ok: the secret is a key.
func (s SecretSpec) PublicName() (name string, ok bool) {
	ok = s.Generate != nil && (s.Generate.Kind == "rsa" || s.Generate.Kind == "ed25519")
	return s.Name + "_PUBLIC", ok
}

// Generate says how a secret is made, once.
type Generate struct {
	Kind   string `yaml:"kind" default:"password" enum:"password,token,mongodb-keyfile,rsa,ed25519,ca,certificate" doc:"What is made. ca is a certificate authority of the instance's own: its value, also as a file, is its certificate alone, and its key never leaves the store. The value of a certificate is its key and itself, one after the other in PEM."`
	Length int    `yaml:"length" default:"24" doc:"Characters of a password or token, 12 to 1024."`
	Bits   int    `yaml:"bits" default:"3072" doc:"Bits of an RSA key, 2048 to 8192."`

	CA       string   `yaml:"ca" doc:"Of a certificate: the secret of kind ca that signs it."`
	Subject  Subject  `yaml:"subject" doc:"Of a ca or certificate: whom it is for."`
	Names    []Expr   `yaml:"names" doc:"Of a certificate: DNS names and IP addresses of the servers that show it."`
	Usages   []string `yaml:"usages" doc:"Of a certificate: server, client. Default: both."`
	Lifetime Duration `yaml:"lifetime" doc:"Of a ca or certificate: how long it is valid. It is made anew when two thirds are over, a certificate also when something of it is to change. Default: 2160h (90 days), of a ca 87600h (10 years)."`
}

// SecretFile says where containers find a secret as a file, under the instance's secrets folder.
type SecretFile struct {
	Path  string `yaml:"path" required:"true" doc:"Relative to the instance's secrets folder."`
	Mode  string `yaml:"mode" default:"0400" doc:"File mode, octal."`
	Owner int    `yaml:"owner" doc:"Numeric user id."`
	Group int    `yaml:"group" doc:"Numeric group id."`
}

// Std gives the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

func (c *Check) report(at Position, format string, args ...any) {
	if at.Line == 0 && c.Component != nil {
		at = c.Component.Position
	}
	if c.problems == nil {
		c.problems = new(Problems)
	}
	*c.problems = append(*c.problems, Problem{at, fmt.Sprintf(format, args...)})
}

// Graph is the order of an instance: nodes are components, or parts of components; edges are needs.
type Graph struct {
	Nodes   []*Node             // in an order in which every node stands after what it needs
	Holders map[string][]string // secret to the IDs of the nodes whose Holds tell that its present value is in use: those that set it, and those whose servers share it
}

// Node is one piece of work. Its ID is "component" or "component/part".
type Node struct {
	ID        string
	Component *Component
	Part      string
	Title     string
	Minor     bool // as Part.Minor
	Needs     []Edge

	replicas int // as Part.Replicas
}

// NodeID is the ID of the node of a component, or of a part of one.
func NodeID(component, part string) string {
	if part == "" {
		return component
	}
	return component + "/" + part
}

// Edge says that a node waits for another one.
type Edge struct {
	On      string // ID of the node that is needed
	Started bool   // started is enough
	Output  string // name of the output that is used, or empty
	Secret  string // secret that the other node sets and this one uses, or empty
	Why     string

	at Position
}
