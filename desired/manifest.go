package desired

import (
	"strings"
)

// APIVersion is what every manifest says in its first line.
const APIVersion = "dive/v1alpha1"

// The kinds of manifests.
const (
	FleetKind     = "Fleet"
	HostKind      = "Host"
	BlueprintKind = "Blueprint"
	InstanceKind  = "Instance"
)

// The roles of instances.
const (
	RoleHub   = "hub"
	RoleSpoke = "spoke"
)

// What becomes of an instance whose manifest is removed.
const (
	OnRemoveKeep    = "keep"
	OnRemoveStop    = "stop"
	OnRemoveDestroy = "destroy"
)

// manifest is what all manifests share.
type manifest struct {
	APIVersion string   `yaml:"apiVersion" required:"true" enum:"dive/v1alpha1" doc:"Version of the format."`
	Kind       string   `yaml:"kind" required:"true" enum:"Fleet,Host,Blueprint,Instance" doc:"What the file declares."`
	Metadata   metadata `yaml:"metadata" required:"true" doc:"The name."`
	Spec       Tree     `yaml:"spec" doc:"The declaration."`
}

type metadata struct {
	Name string `yaml:"name" required:"true" doc:"Lower-case letters, digits and hyphens; the same as the file's or folder's name (any for the fleet)."`
}

type fleetSpec struct {
	Hub    HubSpec         `yaml:"hub" doc:"Where the hub is."`
	Values map[string]Tree `yaml:"values" doc:"Values for all instances whose blueprint declares them. An instance's own value wins."`

	Removed []string `yaml:"removed" doc:"Names of instances that are meant to be gone. Asked for when manifests of more than one that are to be stopped or destroyed go at once."`
}

type hostSpec struct {
	MachineID string `yaml:"machineID" doc:"The host's /etc/machine-id. With it, instances of this host run on that machine only."`

	Recipients  []string `yaml:"recipients" doc:"The host's age public keys (age1...): values for this host are sealed to each of them. Old and new stand side by side while a key is rotated."`
	SigningKeys []string `yaml:"signingKeys" doc:"The host's SSH public keys (ssh-ed25519 ...): a status commit of this host is signed by one of them."`
}

type blueprintSpec struct {
	Role       string `yaml:"role" required:"true" enum:"hub,spoke" doc:"What instances of this blueprint are."`
	Values     Tree   `yaml:"values" shape:"map of name to [value](#declaration-of-a-value)" doc:"Values that instances may set, by name: a default (text, number, true, false or list), or a declaration."`
	Secrets    Tree   `yaml:"secrets" shape:"map of name to [secret](#secret)" doc:"Secrets of each instance, by name."`
	Components Tree   `yaml:"components" shape:"map of name to [component](#components)" required:"true" doc:"Parts of each instance, by name."`
}

type instanceSpec struct {
	Blueprint  string            `yaml:"blueprint" doc:"Name of the blueprint, a folder in blueprints/. Without it the instance declares everything itself."`
	Host       string            `yaml:"host" required:"true" doc:"Name of the host it runs on, a file in hosts/."`
	Role       string            `yaml:"role" enum:"hub,spoke" doc:"What it is; comes from the blueprint where there is one."`
	Values     Tree              `yaml:"values" shape:"map of name to anything" doc:"Values, by name. With a blueprint, only those that it declares."`
	Secrets    Tree              `yaml:"secrets" shape:"map of name to [secret](#secret)" doc:"Secrets beyond the blueprint's, or fields of them that differ, by name."`
	Components Tree              `yaml:"components" shape:"map of name to [component](#components)" doc:"Components beyond the blueprint's, or fields of them that differ, by name. Maps are merged field by field, lists are replaced."`
	Approve    map[string]string `yaml:"approve" doc:"Component (or component/part) to the digest of the plan that may go through although it destroys or replaces."`

	OnRemove       string `yaml:"onRemove" default:"keep" enum:"keep,stop,destroy" doc:"What becomes of what runs when this manifest is removed: nothing; its containers are stopped; its containers and networks are removed. It must have been merged, and taken by the host, before the removal. Moving the instance to another host removes nothing."`
	DestroyVolumes bool   `yaml:"destroyVolumes" doc:"With onRemove: destroy, its volumes are removed too, each after it was written to an archive in the host's backup folder."`
}

// valueSpec is a value's declaration in a blueprint.
type valueSpec struct {
	Type     string   `yaml:"type" enum:"string,number,bool,list,map" doc:"Type of the value. Default: that of default, else string."`
	Required bool     `yaml:"required" doc:"Fleet or instance must set it."`
	Default  Tree     `yaml:"default" doc:"The value where nobody sets it; may use other values, as ${lower(code)}."`
	Enum     []string `yaml:"enum" doc:"What is allowed."`
	Pattern  string   `yaml:"pattern" literal:"true" doc:"Regular expression (RE2) that the whole text must match."`
	Doc      string   `yaml:"doc" literal:"true" doc:"For people."`
}

type secretSpec struct {
	Generate *Generate     `yaml:"generate" doc:"The agent makes it, once."`
	Rotate   *rotateSpec   `yaml:"rotate" doc:"Of a generated secret: it is made anew in time, and all that uses it follows. Only where everything that knows the value gets it from this instance: services that are made anew with it, or a component that sets it where it is checked (users of a MongoReplicaSet, its key file, Keycloak's administrator)."`
	Provide  bool          `yaml:"provide" doc:"An operator puts it on the host."`
	Sops     *sopsSpec     `yaml:"sops" doc:"It stands encrypted in a file of the repository."`
	Vault    *vaultSpec    `yaml:"vault" doc:"It stands in a Vault or an OpenBao, in a KV engine of version 2. The host's configuration says which one, and how the agent signs in."`
	GCP      *gcpSpec      `yaml:"gcp" doc:"It stands in Google's Secret Manager. The host's configuration says how the agent signs in."`
	HostFile *hostFileSpec `yaml:"hostFile" doc:"It stands in a file of the host."`
	HostEnv  *hostEnvSpec  `yaml:"hostEnv" doc:"It stands in the agent's environment."`
	Interval Duration      `yaml:"interval" doc:"Of a secret that comes from elsewhere: how often it is looked at again, 10s or more. A new value is a new generation, which all that uses it follows; when it cannot be had, the last one stays in use. Default: 5m. A file is read at each look at the instance anyway."`
	File     *SecretFile   `yaml:"file" doc:"Containers find it as a file too."`
}

// validName says whether a name may be used for fleet parts: lower-case letters, digits and hyphens, at most 40.
func validName(name string) bool {
	if name == "" || len(name) > 40 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}) < 0
}

// validIdentifier says whether a name can stand in an expression.
func validIdentifier(name string) bool {
	if name == "" || len(name) > 100 || name[0] >= '0' && name[0] <= '9' || name[0] == '-' {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) < 0
}

// open decodes what all manifests share and checks kind and name. It gives the spec; a zero Tree when there is none, or
// when the file is of another kind.
func (l *loader) open(path string, root *node, kind, name string) (spec Tree, problems Problems) {
	d := &Decoder{}
	var m manifest
	d.Decode(Tree{root}, &m)
	if m.Kind != "" && m.Kind != kind && len(d.problems) == 0 {
		d.Errorf(root.get("kind").at, "%s must be of kind %s, not %s", path, kind, m.Kind)
		return Tree{}, d.problems
	}
	if at := root.get("metadata").get("name"); at != nil && m.Metadata.Name != "" {
		switch {
		case !validName(m.Metadata.Name):
			d.Errorf(at.at, "name %q: use lower-case letters, digits and hyphens, at most 40", m.Metadata.Name)
		case name != "" && m.Metadata.Name != name:
			d.Errorf(at.at, "name %q differs from the name %q in the path %s", m.Metadata.Name, name, path)
		}
	}
	if root.kind == mappingNode && root.get("spec") == nil && kind != FleetKind {
		d.Errorf(root.at, "%s needs the field %q", path, "spec")
	}
	return m.Spec, d.problems
}
