package agent

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// NodeState is how far a node of the graph is.
type NodeState string

// The states of a node.
const (
	NodePending  NodeState = "pending"  // its needs are not met yet
	NodeWorking  NodeState = "working"  // being observed or changed
	NodeDone     NodeState = "done"     // in sync and ready
	NodeWaiting  NodeState = "waiting"  // something outside must happen first
	NodeBlocked  NodeState = "blocked"  // a person must do something
	NodeFailed   NodeState = "failed"   // retried with backoff
	NodeRejected NodeState = "rejected" // the new version does not work; put back
)

// severity is the one order of states, from what matters least: of several nodes the worst one is told.
var severity = []NodeState{NodeDone, NodePending, NodeWaiting, NodeWorking, NodeBlocked, NodeFailed, NodeRejected}

func (s NodeState) worseThan(other NodeState) bool {
	return slices.Index(severity, s) > slices.Index(severity, other)
}

// Ended says whether nothing more happens to the node in this pass.
func (s NodeState) Ended() bool { return s != NodePending && s != NodeWorking }

// Node is what a pass knows of one node of the graph. It is a value: what is handed out does not change any more, and it
// holds no secret.
type Node struct {
	ID        string
	Component string
	Part      string
	Title     string
	Kind      string
	Minor     bool // a failure of it degrades the instance, and keeps nothing else from being applied
	Needs     []desired.Edge
	Imports   []desired.Import // what it uses of other instances

	State    NodeState
	Message  string    // what it does, waits for, or why it failed
	Waits    string    // what it waits for, by name, when it waits
	Until    time.Time // of a wait for a time that was chosen: nothing is wrong with it
	Do       string    // the ways out, a line each, when it waits, is blocked, or when something that everything needs is away
	Reason   string    // CamelCase, when blocked or away
	Logs     []string
	Stays    bool // it was rejected, and left running
	Again    bool // it was rejected for now, and is tried again by itself
	Facts    reconcilers.Facts
	Plan     []reconcilers.Change // what would be (or was) changed in this pass
	Digest   string               // of a plan that waits for approval
	Changed  int                  // changes made in this pass
	Started  time.Time            // of the work on it in this pass
	Duration time.Duration        // of the work on it, once it ended
}

// stateOf translates an error to a node's state: this is the only place where policy is read from errors.
func stateOf(err error) NodeState {
	var (
		wait     *reconcilers.WaitError
		blocked  *reconcilers.BlockedError
		rejected *reconcilers.RejectedError
		away     *reconcilers.AwayError
	)
	switch {
	case err == nil:
		return NodeDone
	case errors.As(err, &away): // whatever it cut off: a revision is not rejected for it
		return NodeFailed
	case errors.As(err, &rejected):
		return NodeRejected
	case errors.As(err, &blocked):
		return NodeBlocked
	case errors.As(err, &wait):
		return NodeWaiting
	}
	return NodeFailed
}

// explain fills the node's words from an error.
func (n *Node) explain(err error) {
	n.Message, n.Do, n.Reason, n.Waits, n.Until, n.Logs, n.Stays, n.Again = "", "", "", "", time.Time{}, nil, false, false
	var (
		wait     *reconcilers.WaitError
		blocked  *reconcilers.BlockedError
		rejected *reconcilers.RejectedError
		away     *reconcilers.AwayError
	)
	switch {
	case err == nil:
	case errors.As(err, &away):
		n.Message, n.Do, n.Reason = away.Error(), away.Do, reasonAway
	case errors.As(err, &rejected):
		n.Message, n.Reason, n.Logs, n.Stays, n.Again = rejected.Error(), "Rejected", rejected.Logs, rejected.Stays, rejected.Again
	case errors.As(err, &blocked):
		n.Reason, n.Do = blocked.Reason, blocked.Do
		n.Message = (&reconcilers.BlockedError{Message: blocked.Message, Err: blocked.Err}).Error()
	case errors.As(err, &wait):
		n.Message, n.Waits, n.Do, n.Until = wait.Error(), wait.For, wait.Do, wait.Until
	default:
		n.Message = err.Error()
	}
}

// waitsFor says whether a component, or an output or part of it, is what the node waits for.
func (n *Node) waitsFor(component string) bool {
	rest, ok := strings.CutPrefix(n.Waits, component)
	return ok && (rest == "" || rest[0] == '/' || rest[0] == '.')
}

// clean takes secrets out of all that reconcilers say of a node, of its plan too unless that was done. Names are the manifest's and
// stay.
func (n *Node) clean(redact func(string) string, planned bool) {
	n.Message, n.Do, n.Waits, n.Logs = redact(n.Message), redact(n.Do), redact(n.Waits), cleanTexts(n.Logs, redact)
	if !planned {
		n.Plan = slices.Clone(n.Plan)
		for i, c := range n.Plan {
			n.Plan[i] = cleanChange(c, redact)
		}
	}
	f := &n.Facts
	f.Summary, f.Notes, f.Checks, f.Values = redact(f.Summary), cleanTexts(f.Notes, redact), slices.Clone(f.Checks), maps.Clone(f.Values)
	for i := range f.Checks {
		f.Checks[i].Saw = redact(f.Checks[i].Saw)
	}
	for name, value := range f.Values {
		if text, ok := value.(string); ok {
			f.Values[name] = redact(text)
		}
	}
	if f.Service != nil {
		service := *f.Service
		service.Image = redact(service.Image)
		f.Service = &service
	}
}

func cleanChange(c reconcilers.Change, redact func(string) string) reconcilers.Change {
	c.Address, c.Reason, c.Asks, c.Details = redact(c.Address), redact(c.Reason), redact(c.Asks), cleanTexts(c.Details, redact)
	return c
}

// cleanDifferences takes secrets out of what changes set.
func cleanDifferences(all []reconcilers.Difference, redact func(string) string) []reconcilers.Difference {
	all = slices.Clone(all)
	for i, d := range all {
		all[i] = reconcilers.Difference{Path: redact(d.Path), Before: redact(d.Before), After: redact(d.After)}
	}
	return all
}

func cleanTexts(texts []string, redact func(string) string) []string {
	texts = slices.Clone(texts)
	for i := range texts {
		texts[i] = redact(texts[i])
	}
	return texts
}

// Reasons that the status tells apart.
const (
	reasonAway      = "Away"
	reasonRewritten = "GitRewritten" // of the source: source.Rewritten
)

// told is what a node says of itself for those who do not see its name beside it.
func (n Node) told() string {
	switch {
	case n.Reason == reasonAway, strings.HasPrefix(n.Message, "service "+n.Part+" "), strings.HasPrefix(n.Message, "image "):
		return n.Message
	case n.State == NodeFailed, n.State == NodeBlocked, n.State == NodeRejected:
		return n.ID + ": " + n.Message
	}
	return n.ID + " " + n.Message
}

// ways are the ways out, a line each, and where more is said of the reason; of an approval there is no more to say.
func (n Node) ways() []string {
	ways := strings.Split(n.Do, "\n")
	if n.State == NodeBlocked && n.Reason != "" && n.Reason != reasonApproval {
		ways = append(ways, "more on this: docs/blocked.md#"+strings.ToLower(n.Reason))
	}
	return ways
}

// superseded is the cause of a pass's end when something newer takes its place.
var (
	errSuperseded = errors.New("a newer revision takes effect")
	errDraining   = errors.New("the agent stops")
	errSuspended  = errors.New("the instance is suspended")
)

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
