package desired

import "io/fs"

// Kind is one kind of component. The package that reconciles it declares it; this package knows none by name.
//
// Spec types are plain structs with `yaml:"name"` tags; a `doc:"..."` tag is the field's text in the JSON Schema and
// the manifest reference; `required:"true"` makes the field obligatory; `default:"..."` documents and sets a default;
// `enum:"a,b"` lists what is allowed; `literal:"true"` lets a plain text hold ${, refused elsewhere. Field types: string, bool, int, float64, Duration ("30s"), Expr, any (kept as a
// Tree), Tree, pointers, structs, slices and string maps of these. A type with UnmarshalManifest decodes itself (see
// Unmarshaler). An exported field of type Position needs no tag: it gets the place of its struct in the manifest.
type Kind struct {
	Name string     // as in `kind:`, such as MongoReplicaSet
	Doc  string     // one sentence for the reference
	New  func() any // a pointer to a zero spec
}

// Output is a named value that a component publishes when it is ready.
type Output struct {
	Name   string
	Secret bool // while it is unknown; the value itself says it afterwards
	Doc    string
	// PerInstance outputs are objects, instance -> value. Each instance that imports it reads the value of its own name, and
	// a secret one is sealed to that instance's host alone.
	PerInstance bool
}

// Need is one thing that must be there before a node may start.
type Need struct {
	Component string   // component that is needed; empty means a service of any stack of the instance
	Part      string   // its part (a service), or empty for the whole component
	Output    string   // output that is used, or empty
	Secret    string   // secret that is used, or empty; needs what sets it (see Setter), if anything does; nothing else is named then
	Started   bool     // started is enough; else it must be ready (healthy)
	Single    bool     // the service is meant as one container: one with replicas is refused
	Why       string   // for people, such as "MONGODB_URL uses ${database.uri}"
	Position  Position // where the manifest asks for it

	imports *Expr // an expression whose imports the node uses; nothing else is named then (see Expr.Needs)
}

// Part is a piece of a component that is planned and applied on its own, such as one service of a Compose stack.
type Part struct {
	Name  string // unique in its component; what begins with @ is applied before all else of the instance
	Title string // for people; empty means Name
	Minor bool   // a failure of it degrades the instance, and keeps nothing else from being applied
	Needs []Need

	Replicas int // how many containers it has; 0 is one
}

// Claim is something of which there is one per host: a published port ("tcp/4011", or "tcp/127.0.0.1:4011" for one
// address of the host), a container or project name ("container/backend-deu", "project/dive-spoke-deu"). With Everywhere there is
// one in the whole fleet, such as the place of a Terraform state.
type Claim struct {
	Name       string // "class/name"
	By         string // the part that claims it, such as "backend"
	Everywhere bool
	Position   Position
}

// Abilities of a spec, each optional, found by type assertion on the pointer that Kind.New gave. Load calls them for every
// component, in this order: Outputs, then, with c, Validate, Parts, Needs (once per part), Sets and Claims; SharedKeys at any time. All must cope with
// a spec in which fields are missing or wrong, change nothing, and not reach beyond c: they also run in CI, without a host.
// Outputs is called in rounds too.
type (
	// Validator checks what the types cannot say, and reports it through c. References in expressions are checked already.
	Validator interface{ Validate(c *Check) }
	// Outputter names what the component publishes.
	Outputter interface{ Outputs() []Output }
	// Parter splits the component into parts. Without it the component is one node. References in Expr fields count as
	// needs of a node by themselves only for kinds without Parter; a Parter says which part uses which expression.
	Parter interface{ Parts(c *Check) []Part }
	// Needer names needs beyond the expressions' references and `after`, such as the services it talks to.
	Needer interface{ Needs(c *Check) []Need }
	// Setter names the secrets that the component puts into what it runs, such as passwords of database users: whatever
	// uses one of them comes after the component, so that a changed one is used only where it works. What the component
	// itself needs is left out: there the order is the other way round.
	Setter interface{ Sets(c *Check) []string }
	// KeySharer names the secrets that are the content of a key file which several servers share. A changed one reaches them
	// in two steps, so that any two of them have a key in common at any time: first the former key beside the new one, then,
	// once Holds names the secret, the new one alone.
	KeySharer interface{ SharedKeys() []string }
	// Claimer lists what the component takes on its host.
	Claimer interface{ Claims(c *Check) []Claim }
)

// Check is what a spec sees of its surroundings while a repository is validated.
type Check struct {
	Fleet     *Fleet
	Instance  *Instance
	Component *Component
	Files     fs.FS    // the instance's source folder (its blueprint's folder, or its own)
	SourceDir string   // the same as a folder on disk; empty when the repository is not on disk
	Scope     *Scope   // values known; secrets and outputs unknown
	Light     bool     // leave out what must read Compose files and other big content
	Allow     []string // what the instance's host allows: see Options.Allow
	problems  *Problems
	memo      *memo
}

// Errorf reports a problem at a place. Zero Line means the component's own place.
func (c *Check) Errorf(at Position, format string, args ...any) { c.report(at, format, args...) }

// Known gives an expression's text when the manifest has it and it does not depend on what is known only later.
func (c *Check) Known(e Expr) (string, bool) {
	if e.IsZero() || c.Scope == nil {
		return "", false
	}
	v, err := e.Eval(c.Scope)
	if err != nil || !v.Known() || v.Secret() {
		return "", false
	}
	return v.Text(), true
}

// Merged reports an expression that uses more than what is merged: an output, a secret, or what another instance publishes.
// For fields that the agent of another host evaluates, which never knows those; who says which agent, and what for.
func (c *Check) Merged(e Expr, who string) {
	if e.IsZero() || c.Scope == nil {
		return
	}
	v, err := e.Eval(c.Scope)
	if err != nil || v.Known() && !v.Secret() {
		return // what is wrong with it is reported elsewhere
	}
	names, at := e.Missing(c.Scope), e.Position()
	for _, r := range e.References() {
		if r.String() == names[0] {
			at = r.Position
			break
		}
	}
	c.Errorf(at, "${%s} is known to the agent of this instance's host alone, and %s: write the text itself, or take it from values of the instance, its blueprint or fleet.yaml", names[0], who)
}

// Duration is a time.Duration that manifests write as "750ms", "30s", "15m".
type Duration int64
