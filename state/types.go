package state

import (
	"encoding/json"
	"time"
)

// Instance is what is known of one instance on this host.
type Instance struct {
	Name string
	Host string
	// MachineID is bound at the first run and never changes afterwards.
	MachineID string

	// Attempted and Applied are commit ids; Applied moves only after a
	// verified apply.
	Attempted string
	Applied   string
	// AppliedTree is the tree id of the applied revision, AppliedDigest the
	// digest of the instance's merged manifest and files at that revision.
	AppliedTree   string
	AppliedDigest string

	Phase string

	// Rejected is the revision that turned out bad, nil when there is none.
	Rejected *Rejection
	// Suspended is nil while the instance is worked on.
	Suspended *Suspension

	// Generation counts the changes of the instance's status.
	Generation int64
	Updated    time.Time
}

// Rejection says which revision is not tried again, and why.
type Rejection struct {
	Revision string
	Reason   string
	Since    time.Time
}

// Suspension says who paused an instance, and why.
type Suspension struct {
	By     string
	Reason string
	Since  time.Time
}

// Outcome is how a run or a step ended. It is empty while it lasts.
type Outcome string

// The outcomes of runs and steps.
const (
	Done      Outcome = "done"
	Waiting   Outcome = "waiting"
	Blocked   Outcome = "blocked"
	Failed    Outcome = "failed"
	Cancelled Outcome = "cancelled"
	Crashed   Outcome = "crashed"
)

// Run is one pass over one instance at one revision.
type Run struct {
	// ID sorts by the time at which it was made; see IDs.
	ID       string
	Instance string
	Revision string
	// Trigger says what started the run: "revision", "drift", "event", ...
	Trigger  string
	Started  time.Time
	Finished time.Time
	Outcome  Outcome
	Message  string
}

// Step is one piece of work of a run.
type Step struct {
	Run string
	// Seq is set by StartStep: 1, 2, ... within the run.
	Seq      int64
	Node     string
	Action   string
	Address  string
	Started  time.Time
	Finished time.Time
	Outcome  Outcome
	Message  string
}

// Node is what a node of an instance's graph last looked like.
type Node struct {
	Instance string
	// ID is "component" or "component/part".
	ID      string
	State   string
	Message string
	// Facts is a JSON document of the node's owner; nil is kept as nil.
	Facts json.RawMessage
	// Plan is the one-line summary of what would change; empty when in sync.
	Plan    string
	Since   time.Time
	Updated time.Time
	// LastDuration is how long the node last took, for the estimate of a plan.
	LastDuration time.Duration
}

// Event is one thing that happened.
type Event struct {
	// Seq is set by AddEvent.
	Seq      int64
	Time     time.Time
	Instance string
	Node     string
	Kind     string
	Message  string
	Run      string
}

// Entry is one report that has to leave the host.
type Entry struct {
	// ID is set by Enqueue; it grows, and is never used twice.
	ID int64
	// Kind says who delivers it: "webhook" or "status".
	Kind string
	// Target names the receiver among several of a kind; it may be empty.
	Target   string
	Instance string
	// Key, when not empty, makes a newer entry replace a pending one.
	Key string
	// Payload is what to send; an empty one is read as nil.
	Payload []byte
	// Event is the sequence of the event that caused it; 0 for none.
	Event    int64
	Attempts int
	// Next is when it may be tried; the zero time means at once.
	Next    time.Time
	Created time.Time
	// Died is when it was given up; zero while it is pending.
	Died time.Time
	// Reason is why the last attempt failed.
	Reason string
}

// Kinds of outbox entries.
const (
	KindWebhook = "webhook"
	KindStatus  = "status"
)

// Pushed is what an instance's status branch last got.
type Pushed struct {
	Instance string
	// Digest is of the content without its timestamps.
	Digest string
	Commit string
	Time   time.Time
}

// Import is what was taken last of another instance's status branch, after it was found to be its agent's.
type Import struct {
	Instance string
	// Host is whose key signed it.
	Host   string
	Commit string
	// Committed is the time of the newest commit.
	Committed time.Time
	// Generation grows with the content, and never goes back.
	Generation int64
	// Content is the document in which the instance publishes outputs; nil while it has none.
	Content []byte
	// Revision is what the instance says to have applied.
	Revision string
}
