package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dive-agent/reconcilers"
	"dive-agent/report"
	"dive-agent/secrets"
	"dive-agent/state"
)

// situation is all that a status is computed from.
type situation struct {
	instance  string
	host      string
	known     state.Instance
	rejected  rejectionDetail
	next      *assignment
	nodes     []Node
	seen      time.Time // when the nodes were as they are told
	running   bool
	removed   bool
	movedTo   string            // the host that a removed one is bound to now
	removal   removal           // of a removed one: what its manifest said
	archive   string            // and where what its volumes held is then
	err       error             // what kept the round from its graph
	left      []string          // components that are not declared any more, and of which something was kept
	secrets   []secrets.Trouble // what cannot be had where it comes from
	imports   importsHealth     // of what others publish
	revisions map[string]string // that other instances say to have applied
	exports   []string          // why outputs are not published as the manifests have it
	unkept    error             // why the last status could not be written to the state
	refused   *Refusal
	source    SourceHealth
	keys      *keyTrouble // what is wrong with the host's own keys
	now       time.Time
	redact    func(string) string
}

// statusOf computes the status of an instance. It is the only place that does; success with something that is not ready
// cannot come out of it.
func statusOf(s situation) *report.Status {
	st := &report.Status{
		APIVersion: report.APIVersion, Kind: report.Kind, Instance: s.instance, Host: s.host,
		Attempted: s.known.Attempted, Applied: s.known.Applied, Updated: s.now,
	}
	if s.next != nil {
		st.Role, st.Branch, st.Subject = s.next.instance.Role, s.next.revision.Branch, s.redact(s.next.revision.Subject)
		if st.Attempted == "" || s.known.Suspended == nil {
			st.Attempted = s.next.revision.Commit
		}
	}
	s.components(st)
	if s.rests() && len(s.nodes) > 0 {
		st.Seen = s.seen
	}
	s.phase(st)
	s.conditions(st)
	return st
}

// rests says whether the instance is not looked at: it is suspended, or not declared here any more.
func (s situation) rests() bool { return s.known.Suspended != nil || s.removed }

// phase decides the phase and the words that explain it.
func (s situation) phase(st *report.Status) {
	worst := s.worst()
	switch {
	case s.known.Suspended != nil:
		st.Phase, st.News = report.Suspended, "suspended by "+s.known.Suspended.By
		st.Why = add(st.Why, "suspended by "+s.known.Suspended.By+" since "+s.known.Suspended.Since.UTC().Format("2006-01-02 15:04 UTC"), s.known.Suspended.Reason)
		st.Next = []string{"nothing is changed until: dive-agent resume " + s.instance}
	case s.movedTo != "":
		st.Phase, st.News = report.Removing, "moved to host "+s.movedTo+", what runs here was left running"
		st.Why = []string{"its manifest binds it to host " + s.movedTo + " now; what runs on this one was left running, with its data"}
	case s.removed && s.err == nil:
		st.Phase = s.removal.phase()
		st.News, st.Next = s.removal.told(s.archive)
		st.Why = []string{st.News}
	case s.err != nil:
		n := Node{ID: s.instance, State: stateOf(s.err)}
		n.explain(s.err)
		n.clean(s.redact, false)
		st.Phase, st.News = troublePhase(stateOf(s.err), s.known.Applied != ""), n.Message
		st.Why, st.Next = add(nil, n.Message), add(nil, n.ways()...)
	case s.known.Rejected != nil:
		st.Phase, st.News = report.Degraded, s.known.Rejected.Reason
		st.Why, st.Logs = []string{s.known.Rejected.Reason}, s.rejected.Logs
		st.Next = s.afterRejection()
	case s.running:
		st.Phase = report.Progressing
	case worst == nil && len(s.nodes) > 0 && s.next != nil && s.known.AppliedDigest != s.next.instance.Digest:
		st.Phase, st.News = report.Progressing, "looks at what is to change" // the nodes are still those of the revision before
	case worst == nil && len(s.nodes) > 0:
		st.Phase, st.News = report.Ready, news(st)
	case worst == nil:
		st.Phase = report.Pending
		if s.next != nil && len(s.next.instance.Components) == 0 {
			st.Why = add(st.Why, "it declares no components: there is nothing to do")
			st.Next = add(st.Next, "merge components into "+s.next.instance.Position.File+" or its blueprint")
		}
	default:
		st.Phase = troublePhase(worst.State, s.known.Applied != "" && worst.Until.IsZero())
		if worst.Minor && st.Phase == report.Blocked {
			st.Phase = report.Degraded
		}
		st.News = worst.told()
		if worst.Reason == reasonApproval {
			st.News = worst.Message // the news are the phase
		}
	}
	s.explainNodes(st)
}

// worst is the node that matters most, nil when all are done. What fails because of another node matters less than that.
func (s situation) worst() *Node {
	var worst *Node
	for i := range s.nodes {
		n := &s.nodes[i]
		if n.State == NodeDone || s.follows(*n) {
			continue
		}
		if worst == nil || s.lesser(worst) && !s.lesser(n) || s.lesser(worst) == s.lesser(n) && n.State.worseThan(worst.State) {
			worst = n
		}
	}
	return worst
}

// lesser says whether a node tells less of the instance than others: it holds nothing up, or it waits for one that does not.
func (s situation) lesser(n *Node) bool {
	return n.Minor || n.State == NodeWaiting && slices.ContainsFunc(s.nodes, func(on Node) bool {
		return on.Minor && on.State != NodeDone && on.ID == n.Waits
	})
}

func troublePhase(state NodeState, applied bool) report.Phase {
	switch {
	case state == NodeBlocked:
		return report.Blocked
	case state == NodeFailed || state == NodeRejected || applied:
		return report.Degraded
	}
	return report.Progressing
}

// explainNodes adds what is wrong with nodes: root causes, not what merely waits for them. What fails and builds on a node
// that is in trouble is named, and its own words stand with its component.
func (s situation) explainNodes(st *report.Status) {
	var followers []string
	for _, n := range s.nodes {
		switch n.State {
		case NodeFailed, NodeBlocked, NodeRejected:
			if s.follows(n) {
				followers = append(followers, n.ID)
				continue
			}
			if s.known.Rejected == nil || s.known.Rejected.Reason != n.Message {
				st.Why = add(st.Why, n.told())
			}
			st.Why, st.Next = add(st.Why, n.askedFor()...), add(st.Next, n.ways()...)
			if s.known.Rejected == nil {
				st.Logs = append(st.Logs, n.Logs...)
			}
		case NodeWaiting:
			if !s.explained(n) {
				st.Why, st.Next = add(st.Why, n.told()), add(st.Next, n.ways()...)
			}
		}
	}
	if len(st.Why) > 0 && len(st.Next) == 0 {
		st.Next = []string{"it is tried again by itself, and at once with: dive-agent sync " + s.instance}
	}
	if minor := s.minorTrouble(); minor != "" {
		st.Why = add(st.Why, "nothing else is held up by "+minor+": its class is optional or stretch")
	}
	if len(followers) > 0 {
		st.Why = add(st.Why, "what builds on it fails too: "+strings.Join(followers, ", "))
	}
}

// minorTrouble names the nodes that do not work and hold nothing up.
func (s situation) minorTrouble() string {
	var names []string
	for _, n := range s.nodes {
		if n.Minor && (n.State == NodeFailed || n.State == NodeBlocked || n.State == NodeRejected) {
			names = append(names, n.ID)
		}
	}
	return strings.Join(names, ", ")
}

// follows says whether a node fails while one that it builds on, directly or not, is in trouble itself.
func (s situation) follows(n Node) bool {
	return n.State == NodeFailed && n.Reason != reasonAway && s.onTrouble(n, map[string]bool{})
}

func (s situation) onTrouble(n Node, seen map[string]bool) bool {
	for _, edge := range n.Needs {
		if seen[edge.On] {
			continue
		}
		seen[edge.On] = true
		for _, on := range s.nodes {
			if on.ID != edge.On {
				continue
			}
			trouble := on.State == NodeFailed || on.State == NodeRejected || (on.State == NodeBlocked && on.Reason != reasonApproval)
			if trouble || s.onTrouble(on, seen) {
				return true
			}
		}
	}
	return false
}

// explained says whether a node waits only for another node of the graph that is itself in trouble.
func (s situation) explained(n Node) bool {
	for _, other := range s.nodes {
		if other.ID != n.ID && other.State != NodeDone && n.waitsFor(other.Component) {
			return true
		}
	}
	return false
}

// news is what a Ready subject tells.
func news(st *report.Status) string {
	var parts []string
	for _, c := range st.Components {
		if c.Summary != "" {
			parts = append(parts, c.Summary)
		}
	}
	return strings.Join(parts, ", ")
}

func add(list []string, texts ...string) []string {
	for _, text := range texts {
		text = strings.TrimSpace(text)
		found := text == ""
		for _, have := range list {
			found = found || have == text
		}
		if !found {
			list = append(list, text)
		}
	}
	return list
}

// askedFor tells of a plan that waits for approval why its changes do.
func (n *Node) askedFor() (lines []string) {
	if n.Reason != reasonApproval {
		return nil
	}
	for _, change := range n.Plan {
		if (change.Destroys || change.Asks != "") && len(lines) < 3 {
			lines = append(lines, changeLine(change))
		}
	}
	return lines
}

func changeLine(c reconcilers.Change) string {
	line := fmt.Sprintf("%s %s: %s", c.Action, c.Address, c.Reason)
	if c.Destroys {
		line += " (destroys)"
	} else if c.Asks != "" {
		line += " (" + c.Asks + ")"
	}
	return strings.TrimSuffix(line, ": ")
}

// conditions states what must hold. A cause hides what follows from it.
func (s situation) conditions(st *report.Status) {
	if s.refused != nil && st.Phase == report.Ready {
		st.News = strings.TrimSuffix(s.refused.Revision.Short()+" is refused, "+st.News, ", ")
	}
	ready := report.Condition{Type: "Ready", Status: st.Phase == report.Ready, Reason: string(st.Phase), Message: st.News}
	source := report.Condition{Type: "SourceFollowed", Status: s.source.Err == "", Reason: s.source.Reason, Message: s.source.Err, Since: s.source.Since}
	accepted := report.Condition{Type: "RevisionAccepted", Status: s.refused == nil, DependsOn: []string{"SourceFollowed"}}
	if s.refused != nil {
		accepted.Reason, accepted.Since = "InvalidManifests", s.refused.Since
		told := fmt.Sprintf("%s is refused as a whole, %s stays in force:", s.refused.Revision.Short(), Revision{Commit: st.Attempted}.Short())
		message := s.refused.Message
		accepted.Message = told + " " + message
		st.Why = add(append(st.Why, told), strings.Split(message, "\n")...)
		st.Next = add(st.Next, "correct it in the fleet repository and merge; dive-agent validate lists the same there")
	}
	if s.source.Err != "" {
		st.Why = add(st.Why, "the fleet repository is not followed since "+s.source.Since.UTC().Format("2006-01-02 15:04 UTC")+": "+source.Message)
		next := "what runs keeps running; the repository is asked again by itself, and by: dive-agent sync " + s.instance
		if s.source.Reason == reasonRewritten {
			next = "what runs keeps running; nothing new is taken until somebody mends the branch"
		}
		st.Next = add(st.Next, next)
	}
	works := report.Condition{Type: "RevisionWorks", Status: s.known.Rejected == nil}
	if r := s.known.Rejected; r != nil {
		works.Reason, works.Message, works.Since = "Rejected", Revision{Commit: r.Revision}.Short()+": "+r.Reason, r.Since
	}
	st.Conditions = []report.Condition{ready, source, accepted, works}
	if len(s.left) > 0 && !s.rests() {
		names := strings.Join(s.left, ", ")
		gone := report.Condition{Type: "AllDeclared", Reason: "ComponentsGone", Message: "no longer declared, what they made was left and may still run: " + names}
		st.Conditions, st.Why = append(st.Conditions, gone), add(st.Why, gone.Message)
		st.Next = add(st.Next, "declare them again, or take away by hand what they made, then their folders in instances/"+s.instance+"/components")
	}
	s.sourcesOfSecrets(st)
	s.importsAndExports(st)
	s.hostKeys(st)
	if s.unkept != nil {
		st.Conditions = append(st.Conditions, report.Condition{Type: "StateKept", Reason: "CannotWrite", Message: s.redact(s.unkept.Error())})
		st.Why = add(st.Why, s.redact(s.unkept.Error()))
	}
}

// carry takes over what the last status knew: since when things are as they are, what was seen of an instance that rests,
// and the generation, which grows when the content changed. What does not run any more
// has nothing to be taken over.
func carry(st *report.Status, last *report.Status, runs bool) (changed bool, err error) {
	rests := st.Phase == report.Suspended || st.Phase == report.Removing || st.Phase == report.Removed
	if rests && runs && len(st.Nodes) == 0 && last != nil { // the agent was started anew
		st.Components, st.Services, st.Sets, st.Members, st.Spokes, st.Checks, st.Nodes = last.Components, last.Services, last.Sets, last.Members, last.Spokes, last.Checks, last.Nodes
		if st.Seen = last.Seen; st.Seen.IsZero() && len(st.Nodes) > 0 {
			st.Seen = last.Updated
		}
	}
	if st.Phase == report.Removed && last != nil && st.Role == "" { // the agent was started anew, and has no manifest to read them from
		st.Role, st.Branch, st.Subject = last.Role, last.Branch, last.Subject
	}
	st.Since = st.Updated
	if last != nil && last.Phase == st.Phase {
		st.Since = last.Since
	}
	for i := range st.Conditions {
		c := &st.Conditions[i]
		if c.Since.IsZero() {
			c.Since = st.Updated
		}
		if last == nil {
			continue
		}
		for _, old := range last.Conditions {
			if old.Type == c.Type && old.Status == c.Status && old.Reason == c.Reason {
				c.Since = old.Since
			}
		}
	}
	for i := range st.Checks {
		st.Checks[i].Since = sinceOf(st.Checks[i], last, st.Updated)
	}
	if last == nil {
		st.Generation++
		return true, nil
	}
	before, err := last.Digest()
	if err != nil {
		return false, err
	}
	plain := *st
	plain.Runs = last.Runs // the phase tells when one begins or ends
	now, err := plain.Digest()
	st.Generation = last.Generation
	if before != now {
		st.Generation++
	}
	return before != now, err
}

// sinceOf says since when a check has passed, or failed, by what the last status knew of it.
func sinceOf(c report.Check, last *report.Status, now time.Time) time.Time {
	if last != nil {
		for _, old := range last.Checks {
			if old.Component == c.Component && old.Name == c.Name && old.Passed == c.Passed && !old.Since.IsZero() {
				return old.Since
			}
		}
	}
	if !c.At.IsZero() {
		return c.At
	}
	return now
}
