// Package reconcilers holds the contract between the agent and the engines it drives. A reconciler knows its
// component's spec, its inputs and its engine; it knows no Git, no state store, no report and no other reconciler.
package reconcilers

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"dive-agent/desired"
)

// Reconciler brings one kind of component to its desired state.
//
// Observe reads the live state and changes nothing in the engine; it may write scratch files below Target.Dir. Plan is a pure
// function of target and observation, so that plan and apply cannot differ. Apply carries out exactly one plan.
//
// One value serves all components of its kind. In every round the agent calls Observe and Plan, also while what the target
// needs is not there: then outputs are unknown and services do not run. It calls Apply once the needs are met, with a plan that
// has changes, no Unknown, nothing Held, and an approval when it Destroys or Asks; the plan may be some seconds old. Nothing is called for a
// component that left the manifest: what it made stays. A plan may come to Apply without its changes that are Last.
//
// All three may be called at any time, again and again, also after a crash between any two changes: applying twice
// changes nothing the second time. Calls for one (component, part) never overlap; calls for different parts of one
// component do. A context cancelled before a change means no change: waits end at once, a change that has begun is
// finished (with a limit of its own). Every wait has a limit.
//
// Errors carry policy by their type (WaitError, BlockedError, RejectedError), found with errors.As; any other error
// is a failure that is retried with backoff. Errors, changes and facts never hold a secret.
type Reconciler interface {
	Observe(ctx context.Context, t Target) (Observed, error)
	Plan(t Target, o Observed) (Plan, error)
	Apply(ctx context.Context, t Target, p Plan, progress Progress) (Applied, error)
}

// Target is what one call is about: a component of an instance, or a part of one.
type Target struct {
	Instance  *desired.Instance
	Component *desired.Component // Component.Spec is what Kind.New made, filled: a pointer to the kind's spec type
	Part      string             // empty for kinds without parts
	Fleet     *desired.Fleet
	Scope     *desired.Scope // values, secrets, and outputs as far as they are known

	SourceDir  string // the instance's source folder in the sealed snapshot: read only, its path changes with the revision
	ProjectDir string // the instance's stable folder on the host, for what containers bind; exists, 0700
	SecretsDir string // secret files of the instance, for binds
	Dir        string // the component's private folder on the host, shared by its parts; exists, 0700; survives restarts
	Retry      bool   // a person asked to try again what was given up
	Fresh      bool   // a person asked to look at everything now, also at what is looked at on a schedule of its own
	Changed    bool   // in this pass a change was begun in something that the target needs
	CopyOf     string // of a plan beside a running agent: Dir is a copy of this folder, in which another process may be at work; nothing is applied

	Services Services // the instance's running services
	Log      *slog.Logger
}

// ID is the target's node in the graph: "component" or "component/part".
func (t Target) ID() string { return desired.NodeID(t.Component.Name, t.Part) }

// Observed is what Observe saw.
type Observed struct {
	Outputs map[string]desired.Value // as they are now, drifted or not, secret ones marked; those that do not exist yet are left out
	Facts   Facts                    // for the status
	Started bool                     // running, though perhaps not ready; releases needs for which started is enough
	Holds   []string                 // secrets, of those that the kind sets (desired.Setter), whose present value what runs was seen to take
	Err     error                    // what keeps the component from being ready although the plan is empty: a WaitError, a BlockedError, or a failure
	State   any                      // the reconciler's own, for Plan
}

// Action is what a change does.
type Action string

// The actions of a change.
const (
	Create  Action = "create"
	Update  Action = "update"
	Replace Action = "replace"
	Delete  Action = "delete"
	Run     Action = "run"
)

// Change is one step of a plan. Action and address together occur once in it.
type Change struct {
	Action   Action   `json:"action" yaml:"action"`
	Address  string   `json:"address" yaml:"address"` // of the thing changed, such as "backend", "member mongodb-2:27017", "keycloak_role.viewer"
	Reason   string   `json:"reason" yaml:"reason"`   // for people, never a secret: "image 2.0.4 -> 2.1.0", "environment KAS_AUDIT added"
	Details  []string `json:"details,omitempty" yaml:"details,omitempty"`
	Destroys bool     `json:"destroys,omitempty" yaml:"destroys,omitempty"` // data or identity is lost: waits for approval
	Asks     string   `json:"asks,omitempty" yaml:"asks,omitempty"`         // why it waits for approval though nothing is lost, such as "keycloak_realm is protected"; empty: it does not

	Image      string   `json:"-" yaml:"-"` // the container image that the part is to run, where it runs one
	Command    []string `json:"-" yaml:"-"` // what it is to run in it; empty: what the image says
	Interrupts bool     `json:"-" yaml:"-"` // what runs now stops serving for a moment: a Roller gives it its turn
	Last       bool     `json:"-" yaml:"-"` // what goes may still be used by what a Roller drives: made once all Rollers of the instance are in sync
}

// ImageTag gives the tag of an image's name: "26.4.7" of quay.io/keycloak/keycloak:26.4.7. It is empty where the name has none.
func ImageTag(image string) string {
	image, _, _ = strings.Cut(image, "@")
	_, tag, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return tag
}

// Plan is the list of changes that would bring a target to its desired state; empty when in sync.
type Plan struct {
	Changes []Change
	Unknown []string // inputs that are not known yet, such as "registration.token": waited for; until then the plan is shown only
	Asks    []string // why the plan as a whole waits for approval, whatever its changes are, such as "31 changes, and maxChanges is 20"
	Held    error    // a WaitError or BlockedError: what keeps it from being applied now, approved or not, such as a window that is closed
	Content string   // what an approval binds to beyond the changes, such as a hash of the Terraform plan's content; no secret
	State   any      // the reconciler's own, for Apply

	// Differences are what changes set, by their address, for people who review the plan. No part of what is approved,
	// recorded or told in a status.
	Differences map[string][]Difference
}

// Difference is one attribute that a change sets. Both values are as people may see them: cut to a line, "(secret)",
// "(known after apply)"; empty: not there.
type Difference struct {
	Path   string `json:"path"` // such as "display_name", "attributes.clearance"
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Applied is what Apply leaves, as the next Observe would see it. Outputs that come with an error are published too.
type Applied struct {
	Outputs map[string]desired.Value
	Holds   []string // as Observed.Holds
	Facts   Facts
}

// Progress is how Apply tells what it does. It is safe for concurrent use.
type Progress interface {
	// Begin is called right before each change of the plan, or before those that one act makes. When it returns an error none
	// of them is begun, nothing may be changed and Apply returns that error: the context was cancelled, or a newer revision
	// wants the safe point.
	Begin(ctx context.Context, changes ...Change) error
	// End is called right after each change that Begin let through, with its error.
	End(c Change, err error)
	// Say tells people what is going on, such as "starting (first start makes the schema)". Never a secret.
	Say(format string, args ...any)
	// Started says that the target runs, though it is not ready yet.
	Started()
}

// Facts is what people and programs read of a component in the status. No secrets.
type Facts struct {
	Summary string        `json:"summary,omitempty" yaml:"summary,omitempty"` // a few words, clear beside those of other components: "rs0 PRIMARY", "123 resources"
	Service *ServiceFacts `json:"service,omitempty" yaml:"service,omitempty"`
	Set     *SetFacts     `json:"set,omitempty" yaml:"set,omitempty"`
	Members []MemberFacts `json:"members,omitempty" yaml:"members,omitempty"`
	Checks  []CheckFacts  `json:"checks,omitempty" yaml:"checks,omitempty"`
	Spokes  []SpokeFacts  `json:"spokes,omitempty" yaml:"spokes,omitempty"`
	// Certificates is until when what an authority signed for other instances is good, by instance.
	Certificates map[string]time.Time `json:"certificates,omitempty" yaml:"certificates,omitempty"`
	Values       map[string]any       `json:"values,omitempty" yaml:"values,omitempty"` // plain values by name: resources, spokeId, tokenExpires, version
	Notes        []string             `json:"notes,omitempty" yaml:"notes,omitempty"`   // things an operator should know: record differences, alarms, last log lines
}

// ServiceFacts is the state of one service's container.
type ServiceFacts struct {
	Name     string    `json:"name" yaml:"name"`
	State    string    `json:"state" yaml:"state"`                       // running, exited, restarting, missing
	Health   string    `json:"health,omitempty" yaml:"health,omitempty"` // healthy, starting, unhealthy, or empty without a health check
	Image    string    `json:"image" yaml:"image"`
	Digest   string    `json:"digest,omitempty" yaml:"digest,omitempty"` // image ID
	Since    time.Time `json:"since,omitzero" yaml:"since,omitempty"`
	Restarts int       `json:"restarts,omitempty" yaml:"restarts,omitempty"`
	ExitCode int       `json:"exitCode,omitempty" yaml:"exitCode,omitempty"`
}

// MemberFacts is one member of a replica set.
type MemberFacts struct {
	Host     string        `json:"host" yaml:"host"`
	On       string        `json:"on,omitempty" yaml:"on,omitempty"` // the host whose agent runs it, where it is another one
	State    string        `json:"state" yaml:"state"`               // the server's word: PRIMARY, SECONDARY, RECOVERING, ...
	Health   bool          `json:"health" yaml:"health"`             // whether the member that was asked reaches it
	Lag      time.Duration `json:"lag" yaml:"lag"`                   // behind the primary, beyond Delay
	Priority float64       `json:"priority" yaml:"priority"`
	Votes    int           `json:"votes" yaml:"votes"`
	Hidden   bool          `json:"hidden,omitempty" yaml:"hidden,omitempty"`
	Arbiter  bool          `json:"arbiter,omitempty" yaml:"arbiter,omitempty"`
	Delay    time.Duration `json:"delay,omitempty" yaml:"delay,omitempty"`     // that it is to be behind
	Version  string        `json:"version,omitempty" yaml:"version,omitempty"` // of its server; empty: not known
	Started  time.Time     `json:"started,omitzero" yaml:"started,omitempty"`  // its server
	Trouble  time.Time     `json:"trouble,omitzero" yaml:"trouble,omitempty"`  // since when it does not serve; zero: it does

	Certificate time.Time `json:"certificate,omitzero" yaml:"certificate,omitempty"` // until when its certificate is valid; zero: it was not heard to speak TLS
}

// SetFacts is what holds for a replica set as a whole.
type SetFacts struct {
	Name    string        `json:"name" yaml:"name"`
	FCV     string        `json:"featureCompatibilityVersion,omitempty" yaml:"featureCompatibilityVersion,omitempty"`
	Term    int64         `json:"term,omitempty" yaml:"term,omitempty"`      // counts the elections
	Elected time.Time     `json:"elected,omitzero" yaml:"elected,omitempty"` // the primary
	Reason  string        `json:"reason,omitempty" yaml:"reason,omitempty"`  // of that election, the server's word: electionTimeout, priorityTakeover, ...
	Oplog   time.Duration `json:"oplog,omitempty" yaml:"oplog,omitempty"`    // its window: how long a member may be away and still catch up

	TLS string `json:"tls,omitempty" yaml:"tls,omitempty"` // modes of TLS and of authentication among members, as the primary runs: "requireTLS, x509"
}

// CheckFacts is the last result of one declared check. What was seen is told by words, counts and dates alone, never by a
// value out of a database, an answer or a log.
type CheckFacts struct {
	Component string               `json:"component,omitempty" yaml:"component,omitempty"` // that declares it; the agent fills it
	Name      string               `json:"name" yaml:"name"`
	Severity  string               `json:"severity,omitempty" yaml:"severity,omitempty"` // what a failure is: fail or warn
	Passed    bool                 `json:"passed" yaml:"passed"`
	Saw       string               `json:"saw,omitempty" yaml:"saw,omitempty"`
	Counts    map[string]int64     `json:"counts,omitempty" yaml:"counts,omitempty"`
	Dates     map[string]time.Time `json:"dates,omitempty" yaml:"dates,omitempty"`
	At        time.Time            `json:"at,omitzero" yaml:"at,omitempty"` // when it was made
	Took      time.Duration        `json:"tookNs,omitempty" yaml:"took,omitempty"`
	Next      time.Time            `json:"next,omitzero" yaml:"next,omitempty"`   // when it is made again, unless something changes; zero: with each look
	Since     time.Time            `json:"since,omitzero" yaml:"since,omitempty"` // since when it passes, or fails; the agent fills it
}

// SpokeFacts is one record of the hub's federation service.
type SpokeFacts struct {
	Code        string    `json:"code" yaml:"code"`
	Instance    string    `json:"instance,omitempty" yaml:"instance,omitempty"` // whose manifest declares it; empty: none does
	ID          string    `json:"spokeId" yaml:"spokeId"`
	State       string    `json:"state" yaml:"state"`                                // pending, approved, suspended, revoked
	Since       time.Time `json:"since,omitzero" yaml:"since,omitempty"`             // its approval, or its registration
	Alive       string    `json:"alive,omitempty" yaml:"alive,omitempty"`            // of an approved one, by its heartbeats: online, late, silent
	Heartbeat   time.Time `json:"heartbeat,omitzero" yaml:"heartbeat,omitempty"`     // the last one
	Token       time.Time `json:"token,omitzero" yaml:"token,omitempty"`             // until when the token is good that was handed over
	Certificate time.Time `json:"certificate,omitzero" yaml:"certificate,omitempty"` // until when its certificate is valid
}
