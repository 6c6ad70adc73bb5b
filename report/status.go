package report

import (
	"time"
)

// The format's name and version, as manifests have them.
const (
	APIVersion = "dive/v1alpha1"
	Kind       = "InstanceStatus"
)

// Phase is how an instance is, in a word.
type Phase string

// The phases of an instance.
const (
	Pending     Phase = "Pending"     // nothing was done yet
	Progressing Phase = "Progressing" // on its way to a revision
	Ready       Phase = "Ready"       // as the revision declares, and usable
	Degraded    Phase = "Degraded"    // something failed; the agent goes on trying, or a revision was rejected
	Blocked     Phase = "Blocked"     // a person has to do something
	Suspended   Phase = "Suspended"   // paused by a person
	Removing    Phase = "Removing"    // its manifest is gone from this host, and what is to become of what runs is not done yet
	Removed     Phase = "Removed"     // its manifest is gone, and what it said for that case is done: the last word of its status branch
)

// Failing says whether people have to know that something is wrong.
func (p Phase) Failing() bool { return p == Degraded || p == Blocked }

// Status is all that is told of one instance. It holds no secret. Times are in
// UTC; durations are nanoseconds in JSON and text such as "1.4s" in YAML.
type Status struct {
	APIVersion string `json:"apiVersion" yaml:"apiVersion"`
	Kind       string `json:"kind" yaml:"kind"`
	Instance   string `json:"instance" yaml:"instance"`
	Host       string `json:"host" yaml:"host"`
	Role       string `json:"role,omitempty" yaml:"role,omitempty"`

	// Branch and Subject are of the attempted revision in the fleet repository.
	Branch  string `json:"branch,omitempty" yaml:"branch,omitempty"`
	Subject string `json:"subject,omitempty" yaml:"subject,omitempty"`
	// Attempted and Applied are full commit ids.
	Attempted string `json:"attempted,omitempty" yaml:"attempted,omitempty"`
	Applied   string `json:"applied,omitempty" yaml:"applied,omitempty"`

	Phase Phase     `json:"phase" yaml:"phase"`
	Since time.Time `json:"since,omitzero" yaml:"since,omitempty"`
	// News is what a subject line tells beside the phase, the most important
	// first, separated by ", ".
	News string `json:"news,omitempty" yaml:"news,omitempty"`
	// Why are the causes, Next what happens or what to do.
	Why  []string `json:"why,omitempty" yaml:"why,omitempty"`
	Next []string `json:"next,omitempty" yaml:"next,omitempty"`
	// Logs are the last lines of what failed.
	Logs []string `json:"logs,omitempty" yaml:"logs,omitempty"`

	Conditions []Condition `json:"conditions,omitempty" yaml:"conditions,omitempty"`
	// Seen is when what follows was so, of an instance that is not looked at now; zero: it is so now.
	Seen       time.Time   `json:"seen,omitzero" yaml:"seen,omitempty"`
	Components []Component `json:"components,omitempty" yaml:"components,omitempty"`
	Services   []Service   `json:"services,omitempty" yaml:"services,omitempty"`
	Sets       []Set       `json:"replicaSets,omitempty" yaml:"replicaSets,omitempty"`
	Members    []Member    `json:"members,omitempty" yaml:"members,omitempty"`
	Spokes     []Spoke     `json:"spokes,omitempty" yaml:"spokes,omitempty"`
	Checks     []Check     `json:"checks,omitempty" yaml:"checks,omitempty"`
	Nodes      []Node      `json:"nodes,omitempty" yaml:"nodes,omitempty"`
	// Plans are those that wait for approval, then the last ones that did.
	Plans []PlanLink `json:"plans,omitempty" yaml:"plans,omitempty"`
	// Runs are the last ones, newest first.
	Runs []Run `json:"runs,omitempty" yaml:"runs,omitempty"`

	// Generation grows by one with each change of the content.
	Generation int64     `json:"generation" yaml:"generation"`
	Updated    time.Time `json:"updated,omitzero" yaml:"updated,omitempty"`
}

// Condition is one thing that should hold.
type Condition struct {
	Type string `json:"type" yaml:"type"`
	// Status says whether it holds.
	Status  bool      `json:"status" yaml:"status"`
	Reason  string    `json:"reason,omitempty" yaml:"reason,omitempty"`
	Message string    `json:"message,omitempty" yaml:"message,omitempty"`
	Since   time.Time `json:"since,omitzero" yaml:"since,omitempty"`
	// DependsOn names conditions that hide this one while they do not hold.
	DependsOn []string `json:"dependsOn,omitempty" yaml:"dependsOn,omitempty"`
}

// Component is one named part of the instance.
type Component struct {
	Name    string `json:"name" yaml:"name"`
	Kind    string `json:"kind" yaml:"kind"`
	State   string `json:"state" yaml:"state"`
	Message string `json:"message,omitempty" yaml:"message,omitempty"`
	// Summary is a few words on what was seen: "9/9 services".
	Summary string `json:"summary,omitempty" yaml:"summary,omitempty"`
	// Plan is a line for each change that is still to be made.
	Plan   []string       `json:"plan,omitempty" yaml:"plan,omitempty"`
	Values map[string]any `json:"values,omitempty" yaml:"values,omitempty"`
	Notes  []string       `json:"notes,omitempty" yaml:"notes,omitempty"`
}

// Service is one service of the instance and the container behind it.
type Service struct {
	Name string `json:"name" yaml:"name"`
	// State is running, exited, restarting or missing.
	State string `json:"state" yaml:"state"`
	// Health is healthy, starting, unhealthy, or empty without a health check.
	Health   string    `json:"health,omitempty" yaml:"health,omitempty"`
	Image    string    `json:"image" yaml:"image"`
	Digest   string    `json:"digest,omitempty" yaml:"digest,omitempty"`
	Since    time.Time `json:"since,omitzero" yaml:"since,omitempty"`
	Restarts int       `json:"restarts,omitempty" yaml:"restarts,omitempty"`
	ExitCode int       `json:"exitCode,omitempty" yaml:"exitCode,omitempty"`
}

// Check is the last result of a declared check. It tells counts and dates, never
// a value that was seen.
type Check struct {
	Component string `json:"component,omitempty" yaml:"component,omitempty"`
	Name      string `json:"name" yaml:"name"`
	// Severity is fail, or warn: a failure is told, and fails nothing.
	Severity string               `json:"severity,omitempty" yaml:"severity,omitempty"`
	Passed   bool                 `json:"passed" yaml:"passed"`
	Saw      string               `json:"saw,omitempty" yaml:"saw,omitempty"`
	Counts   map[string]int64     `json:"counts,omitempty" yaml:"counts,omitempty"`
	Dates    map[string]time.Time `json:"dates,omitempty" yaml:"dates,omitempty"`
	// At is when it was made, and Took how long that took.
	At   time.Time     `json:"at,omitzero" yaml:"at,omitempty"`
	Took time.Duration `json:"tookNs,omitempty" yaml:"took,omitempty"`
	// Next is when it is made again, unless something changes; zero: with each look.
	Next time.Time `json:"next,omitzero" yaml:"next,omitempty"`
	// Since is since when it passes, or fails.
	Since time.Time `json:"since,omitzero" yaml:"since,omitempty"`
}

// Warns says whether a failure of the check fails nothing.
func (c Check) Warns() bool { return c.Severity == "warn" }

// Node is one piece of work of the instance's graph.
type Node struct {
	ID       string        `json:"id" yaml:"id"`
	Title    string        `json:"title,omitempty" yaml:"title,omitempty"`
	State    string        `json:"state" yaml:"state"`
	Message  string        `json:"message,omitempty" yaml:"message,omitempty"`
	Duration time.Duration `json:"durationNs,omitempty" yaml:"duration,omitempty"`
	Needs    []string      `json:"needs,omitempty" yaml:"needs,omitempty"`
	Reads    []Read        `json:"reads,omitempty" yaml:"reads,omitempty"` // of other instances
}

// AllSpokes stands in Read.From for all spokes that publish the output.
const AllSpokes = "spokes"

// Read is an output of another instance that a node uses.
type Read struct {
	From      string `json:"from" yaml:"from"` // the instance, or AllSpokes
	Component string `json:"component" yaml:"component"`
	Output    string `json:"output" yaml:"output"`
}

// Run is one recorded pass over the instance.
type Run struct {
	ID       string        `json:"id" yaml:"id"`
	Revision string        `json:"revision" yaml:"revision"`
	Trigger  string        `json:"trigger,omitempty" yaml:"trigger,omitempty"`
	Started  time.Time     `json:"started" yaml:"started"`
	Duration time.Duration `json:"durationNs" yaml:"duration"`
	// Outcome is done, waiting, blocked, failed, cancelled or crashed; empty
	// while the run lasts.
	Outcome string `json:"outcome,omitempty" yaml:"outcome,omitempty"`
	Message string `json:"message,omitempty" yaml:"message,omitempty"`
	Steps   []Step `json:"steps,omitempty" yaml:"steps,omitempty"`
}

// Step is one change that a run made.
type Step struct {
	Node     string        `json:"node" yaml:"node"`
	Change   string        `json:"change" yaml:"change"`
	Started  time.Time     `json:"started" yaml:"started"`
	Duration time.Duration `json:"durationNs" yaml:"duration"`
	Outcome  string        `json:"outcome,omitempty" yaml:"outcome,omitempty"`
}

// Visible gives the conditions that do not hold, without those that follow from
// another one of them. "Ready" is left out: the phase tells it.
func (s *Status) Visible() []Condition {
	broken := map[string]bool{}
	for _, c := range s.Conditions {
		broken[c.Type] = !c.Status
	}
	var out []Condition
	for _, c := range s.Conditions {
		hidden := c.Status || c.Type == "Ready"
		for _, cause := range c.DependsOn {
			hidden = hidden || broken[cause]
		}
		if !hidden {
			out = append(out, c)
		}
	}
	return out
}
