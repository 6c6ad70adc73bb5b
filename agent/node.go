package agent

import (
	"errors"
	"fmt"
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

// Ended says whether nothing more happens to the node in this pass.
func (s NodeState) Ended() bool { return s != NodePending && s != NodeWorking }

// Node is what a pass knows of one node of the graph. It is a value: what is handed out does not change any more.
type Node struct {
	ID        string
	Component string
	Part      string
	Title     string
	Kind      string
	Needs     []desired.Edge

	State    NodeState
	Message  string // what it does, waits for, or why it failed; redacted
	Do       string // the way out, when blocked
	Reason   string // CamelCase, when blocked
	Logs     []string
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
	)
	switch {
	case err == nil:
		return NodeDone
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
func (n *Node) explain(err error, redact func(string) string) {
	n.Message, n.Do, n.Reason, n.Logs = "", "", "", nil
	var (
		wait     *reconcilers.WaitError
		blocked  *reconcilers.BlockedError
		rejected *reconcilers.RejectedError
	)
	switch {
	case err == nil:
	case errors.As(err, &rejected):
		n.Message, n.Reason = redact(rejected.Error()), "Rejected"
		for _, line := range rejected.Logs {
			n.Logs = append(n.Logs, redact(line))
		}
	case errors.As(err, &blocked):
		n.Reason, n.Do = blocked.Reason, redact(blocked.Do)
		n.Message = redact((&reconcilers.BlockedError{Message: blocked.Message, Err: blocked.Err}).Error())
	case errors.As(err, &wait):
		n.Message = redact(wait.Error())
	default:
		n.Message = redact(err.Error())
	}
}

// superseded is the cause of a pass's end when something newer takes its place.
var (
	errSuperseded = errors.New("a newer revision takes effect")
	errDraining   = errors.New("the agent stops")
	errSuspended  = errors.New("the instance is suspended")
)

// approvalError is the gate's answer to a plan that destroys.
func approvalError(inst *desired.Instance, node, digest string, destroys int) error {
	return &reconcilers.BlockedError{
		Reason:  "ApprovalRequired",
		Message: fmt.Sprintf("waits for approval of %d %s (%s)", destroys, plural(destroys, "destroy", "destroys"), digest),
		Do: fmt.Sprintf("To let exactly this plan through, merge into %s: spec: {approve: {%s: %s}}",
			inst.Position.File, node, digest),
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
