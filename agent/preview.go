package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"dive-agent/reconcilers"
	"dive-agent/report"
	"dive-agent/state"
)

// Preview is what a revision would change on one instance of this host.
type Preview struct {
	Instance string        `json:"instance"`
	Host     string        `json:"host"`
	From     string        `json:"from,omitempty"` // applied commit
	To       string        `json:"to,omitempty"`   // commit that is looked at
	Branch   string        `json:"branch,omitempty"`
	Subject  string        `json:"subject,omitempty"`
	Blocked  string        `json:"blocked,omitempty"` // what keeps all of it from being done: a secret that is missing
	Do       string        `json:"do,omitempty"`      // the way out of it
	Offline  bool          `json:"offline,omitempty"` // by the manifests alone: nothing that runs was asked
	Base     bool          `json:"base,omitempty"`    // offline, against other manifests; without it everything is new
	Nodes    []PreviewNode `json:"nodes"`
	Expected time.Duration `json:"expected,omitempty"` // by earlier runs; 0 when there is none to go by
}

// PreviewNode is the plan of one node.
type PreviewNode struct {
	ID        string          `json:"id"`
	Component string          `json:"component"`
	Part      string          `json:"part,omitempty"`
	Summary   string          `json:"summary,omitempty"`
	Changes   []PreviewChange `json:"changes,omitempty"`
	Waits     string          `json:"waits,omitempty"`  // what it will wait for before it can be planned further
	Digest    string          `json:"digest,omitempty"` // of a plan that waits for approval
	Approve   string          `json:"approve,omitempty"`
	Asks      []string        `json:"asks,omitempty"` // why the plan as a whole waits for approval
	Held      string          `json:"held,omitempty"` // what keeps the plan from being applied now, approved or not
	Do        string          `json:"do,omitempty"`   // the way out of that
	Error     string          `json:"error,omitempty"`
	Note      string          `json:"note,omitempty"` // how the plan came about, where that limits it
}

// PreviewChange is a change with what it sets, as far as people may see it.
type PreviewChange struct {
	reconcilers.Change
	Differences []reconcilers.Difference `json:"differences,omitempty"`
}

// previewChanges joins a plan's changes with what they set, cleaned of secrets.
func previewChanges(plan reconcilers.Plan, redact func(string) string) []PreviewChange {
	var all []PreviewChange
	for _, c := range plan.Changes {
		all = append(all, PreviewChange{cleanChange(c, redact), cleanDifferences(plan.Differences[c.Address], redact)})
	}
	return all
}

// Counts sums the changes up.
func (p *Preview) Counts() (changes, destroys, waiting int) {
	for _, n := range p.Nodes {
		for _, c := range n.Changes {
			if c.Destroys {
				destroys++
			} else {
				changes++
			}
		}
		if n.Approve != "" {
			waiting++
		}
	}
	return changes, destroys, waiting
}

// Unseen names the nodes of which it is not known whether they are in sync: they could not be looked at, or are not well.
func (p *Preview) Unseen() (nodes []string) {
	for _, n := range p.Nodes {
		if len(n.Changes) == 0 && (n.Error != "" || n.Waits != "") {
			nodes = append(nodes, n.ID)
		}
	}
	return nodes
}

// Preview makes the plan of every instance of this host (of one, when named) at a revision, with the live state, and
// changes nothing: reconcilers work on copies of their folders. The decision is the one an apply takes.
func (a *Agent) Preview(ctx context.Context, revision Revision, name string) ([]Preview, error) {
	fleet, err := a.load(revision)
	if err != nil {
		return nil, err
	}
	if name != "" && fleet.Instances[name] == nil {
		return nil, &UnknownError{Name: name, Have: slices.Sorted(maps.Keys(fleet.Instances))}
	}
	var previews []Preview
	for _, instance := range slices.Sorted(maps.Keys(fleet.Instances)) {
		inst := fleet.Instances[instance]
		if inst.Host != a.Host || (name != "" && name != instance) {
			continue
		}
		preview, err := a.preview(ctx, &assignment{revision: revision, fleet: fleet, instance: inst})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", instance, err)
		}
		previews = append(previews, preview)
	}
	return previews, nil
}

// idle is a pass over an instance that has not begun, for those who change nothing of its graph. missing says which secrets
// do not exist.
func (a *Agent) idle(ctx context.Context, next *assignment, folders places) (p *pass, known state.Instance, missing, err error) {
	w := newWorker(a, next.instance.Name)
	if known, err = w.recall(ctx); err != nil {
		return nil, known, nil, err
	}
	values, missing, err := a.Secrets.Peek(ctx, next.instance, folders.secrets)
	if err != nil {
		return nil, known, nil, err
	}
	scope, others, err := a.scopeOf(ctx, next.instance, folders, values)
	if err != nil {
		return nil, known, nil, err
	}
	services, _ := w.stack(next.instance, next.fleet, folders)
	return newPass(passOptions{
		fleet: next.fleet, instance: next.instance, places: folders, reconcilers: a.Reconcilers, services: services,
		scope: scope, imported: others,
		clock: a.Clock, log: w.log, redact: a.Redactor.String, learn: a.learn,
		applied: known.Applied != "",
	}), known, missing, nil
}

func (a *Agent) preview(ctx context.Context, next *assignment) (_ Preview, err error) {
	folders, remove, err := a.borrowed(next)
	if err != nil {
		return Preview{}, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	p, known, missing, err := a.idle(ctx, next, folders)
	if err != nil {
		return Preview{}, err
	}
	p.survey(ctx)
	if ctx.Err() != nil {
		return Preview{}, ctx.Err()
	}
	preview := Preview{
		Instance: next.instance.Name, Host: a.Host, From: known.Applied, To: next.revision.Commit,
		Branch: next.revision.Branch, Subject: next.revision.Subject,
	}
	if missing != nil {
		n := Node{}
		n.explain(missing)
		preview.Blocked, preview.Do = n.Message, n.Do
	}
	for _, node := range next.instance.Graph.Nodes {
		told := p.previewNode(p.nodes[node.ID])
		if err := p.outlined(ctx, p.nodes[node.ID], &told); err != nil {
			return preview, err
		}
		preview.Nodes = append(preview.Nodes, told)
	}
	preview.Expected, err = a.expected(ctx, p)
	return preview, err
}

func (p *pass) previewNode(n *nodeRun) PreviewNode {
	told := PreviewNode{
		ID: n.node.ID, Component: n.node.Component.Name, Part: n.node.Part,
		Summary: n.view.Facts.Summary, Changes: previewChanges(n.plan, p.redact),
	}
	switch stateOf(n.err) {
	case NodeDone:
	case NodeWaiting:
		told.Waits = p.redact(n.err.Error())
	default:
		told.Error = p.redact(n.err.Error())
	}
	if digest, err := approval(p.instance, n.node.ID, n.plan); err != nil {
		told.Digest, told.Approve, told.Asks = digest, report.ApproveLine(n.node.ID, digest), cleanTexts(n.plan.Asks, p.redact)
	}
	held, way := holds(n.plan.Held)
	told.Held, told.Do = p.redact(held), p.redact(way)
	return told
}

// outlined tells what a component that was never made, and cannot be planned before others are there, will consist of.
func (p *pass) outlined(ctx context.Context, n *nodeRun, told *PreviewNode) error {
	outliner, able := n.engine.(reconcilers.Outliner)
	if !able || n.node.Part != "" || n.observed.Facts.Summary != "" || len(n.plan.Unknown) == 0 && stateOf(n.err) != NodeWaiting {
		return nil
	}
	target := n.target
	target.Services, target.Scope, target.Dir = nil, standIns(p.instance), filepath.Join(p.places.private, "outline-"+n.node.Component.Name)
	outline, err := outliner.Outline(ctx, target)
	if err != nil {
		return ctx.Err() // then it stands there as one that waits
	}
	told.Changes, told.Note = compareItems(reconcilers.Outline{}, outline), outline.Note
	return nil
}

// expected adds up how long the nodes that change took last: an upper bound, since nodes run side by side.
func (a *Agent) expected(ctx context.Context, p *pass) (total time.Duration, err error) {
	err = a.Store.View(ctx, func(r state.Reader) error {
		nodes, err := r.Nodes(p.instance.Name)
		for _, node := range nodes {
			if n := p.nodes[node.ID]; n != nil && len(n.plan.Changes) > 0 {
				total += node.LastDuration
			}
		}
		return err
	})
	return total, err
}
