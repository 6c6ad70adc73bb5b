package report

import "time"

// APIVersion and Kind of the status document.
const (
	APIVersion = "dive/v1alpha1"
	Kind       = "InstanceStatus"
)

// Phase says in one word how an instance is.
type Phase string

// The phases of an instance.
const (
	Pending     Phase = "Pending"     // known, not begun
	Progressing Phase = "Progressing" // on the way to a declared state for the first time, or to a new one
	Ready       Phase = "Ready"       // in sync and all checks passed
	Degraded    Phase = "Degraded"    // something does not work
	Blocked     Phase = "Blocked"     // a person must do something
	Suspended   Phase = "Suspended"   // paused by a person
	Removing    Phase = "Removing"    // its manifest is gone
)

// Status is the state of one instance as people and programs read it. Only the agent's status.go makes one. No value in
// it is secret: all text was redacted.
type Status struct {
	APIVersion string `json:"apiVersion" yaml:"apiVersion"`
	Kind       string `json:"kind" yaml:"kind"`
	Instance   string `json:"instance" yaml:"instance"`
	Host       string `json:"host" yaml:"host"`
	Role       string `json:"role,omitempty" yaml:"role,omitempty"`

	Phase Phase     `json:"phase" yaml:"phase"`
	Since time.Time `json:"since" yaml:"since"` // of the phase

	Branch    string `json:"branch,omitempty" yaml:"branch,omitempty"`
	Attempted string `json:"attempted,omitempty" yaml:"attempted,omitempty"` // commit
	Applied   string `json:"applied,omitempty" yaml:"applied,omitempty"`     // commit
	Subject   string `json:"subject,omitempty" yaml:"subject,omitempty"`     // first line of the attempted commit's message

	News string   `json:"news,omitempty" yaml:"news,omitempty"` // the phase in a few words, for the subject line: "kas exits with 1; put back to 2.0.4"
	Why  []string `json:"why,omitempty" yaml:"why,omitempty"`   // causes, most important first
	Next []string `json:"next,omitempty" yaml:"next,omitempty"` // what the agent does next, and what a person can do
	Logs []string `json:"logs,omitempty" yaml:"logs,omitempty"` // last words of the service that failed

	Conditions []Condition `json:"conditions,omitempty" yaml:"conditions,omitempty"`
	Components []Component `json:"components,omitempty" yaml:"components,omitempty"`
	Services   []Service   `json:"services,omitempty" yaml:"services,omitempty"`
	Members    []Member    `json:"members,omitempty" yaml:"members,omitempty"`
	Checks     []Check     `json:"checks,omitempty" yaml:"checks,omitempty"`
	Nodes      []Node      `json:"nodes,omitempty" yaml:"nodes,omitempty"` // the graph
	Runs       []Run       `json:"runs,omitempty" yaml:"runs,omitempty"`   // the last ten, newest first

	Generation int64     `json:"generation" yaml:"generation"` // counts changes of content
	Updated    time.Time `json:"updated" yaml:"updated"`
}

// Condition is one statement about the instance.
type Condition struct {
	Type      string    `json:"type" yaml:"type"` // Ready, SourceFollowed, RevisionAccepted, RevisionWorks, ...
	Status    bool      `json:"status" yaml:"status"`
	Reason    string    `json:"reason,omitempty" yaml:"reason,omitempty"`
	Message   string    `json:"message,omitempty" yaml:"message,omitempty"`
	Since     time.Time `json:"since" yaml:"since"`
	DependsOn []string  `json:"-" yaml:"-"` // types whose failure explains this one and hides it
}

// Component is one component of the instance.
type Component struct {
	Name    string         `json:"name" yaml:"name"`
	Kind    string         `json:"kind" yaml:"kind"`
	State   string         `json:"state" yaml:"state"`                         // done, working, waiting, blocked, failed, rejected, pending
	Summary string         `json:"summary,omitempty" yaml:"summary,omitempty"` // "rs0 PRIMARY", "9/9 services healthy"
	Message string         `json:"message,omitempty" yaml:"message,omitempty"`
	Plan    []string       `json:"plan,omitempty" yaml:"plan,omitempty"` // changes not made yet
	Values  map[string]any `json:"values,omitempty" yaml:"values,omitempty"`
	Notes   []string       `json:"notes,omitempty" yaml:"notes,omitempty"`
}

// Service is one service's container.
type Service struct {
	Name     string    `json:"name" yaml:"name"`
	State    string    `json:"state" yaml:"state"`
	Health   string    `json:"health,omitempty" yaml:"health,omitempty"`
	Image    string    `json:"image,omitempty" yaml:"image,omitempty"`
	Digest   string    `json:"digest,omitempty" yaml:"digest,omitempty"`
	Since    time.Time `json:"since,omitzero" yaml:"since,omitempty"`
	Restarts int       `json:"restarts,omitempty" yaml:"restarts,omitempty"`
	ExitCode int       `json:"exitCode,omitempty" yaml:"exitCode,omitempty"`
}

// Member is one member of a replica set.
type Member struct {
	Host   string        `json:"host" yaml:"host"`
	State  string        `json:"state" yaml:"state"`
	Health bool          `json:"health" yaml:"health"`
	Lag    time.Duration `json:"lag" yaml:"lag"`
}

// Check is the last result of one declared check.
type Check struct {
	Name   string `json:"name" yaml:"name"`
	Passed bool   `json:"passed" yaml:"passed"`
	Saw    string `json:"saw,omitempty" yaml:"saw,omitempty"`
}

// Node is one node of the graph.
type Node struct {
	ID       string        `json:"id" yaml:"id"`
	Title    string        `json:"title,omitempty" yaml:"title,omitempty"`
	State    string        `json:"state" yaml:"state"`
	Message  string        `json:"message,omitempty" yaml:"message,omitempty"`
	Duration time.Duration `json:"duration,omitempty" yaml:"duration,omitempty"`
	Needs    []string      `json:"needs,omitempty" yaml:"needs,omitempty"` // node ids
}

// Run is one pass that changed something, or tried to.
type Run struct {
	ID       string        `json:"id" yaml:"id"`
	Revision string        `json:"revision" yaml:"revision"`
	Trigger  string        `json:"trigger,omitempty" yaml:"trigger,omitempty"`
	Started  time.Time     `json:"started" yaml:"started"`
	Duration time.Duration `json:"duration" yaml:"duration"`
	Outcome  string        `json:"outcome" yaml:"outcome"`
	Message  string        `json:"message,omitempty" yaml:"message,omitempty"`
	Steps    []Step        `json:"steps,omitempty" yaml:"steps,omitempty"`
}

// Step is one change of a run.
type Step struct {
	Node     string        `json:"node" yaml:"node"`
	Change   string        `json:"change" yaml:"change"` // "create backend"
	Started  time.Time     `json:"started" yaml:"started"`
	Duration time.Duration `json:"duration" yaml:"duration"`
	Outcome  string        `json:"outcome" yaml:"outcome"`
}
