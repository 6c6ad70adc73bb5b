package agent

import (
	"context"
	"errors"
	"sync"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// How many nodes are observed, and applied, at a time. An apply mostly waits: for health, for a realm, for an answer.
const (
	surveyed = 8
	applied  = 64
)

// survey observes and plans every node, each after the nodes it needs, and changes nothing. It says whether there is
// something to apply.
func (p *pass) survey(ctx context.Context) (work bool) {
	ctx = (&reconcilers.Survey{}).In(ctx)
	slots := make(chan struct{}, surveyed)
	var all sync.WaitGroup
	for _, node := range p.instance.Graph.Nodes {
		n := p.nodes[node.ID]
		all.Go(func() {
			defer close(n.surveyed)
			for _, edge := range n.node.Needs {
				<-p.nodes[edge.On].surveyed // ends: the graph has no cycle
			}
			slots <- struct{}{}
			defer func() { <-slots }()
			p.look(ctx, n)
		})
	}
	all.Wait()
	stuck := map[*nodeRun]bool{}
	for _, n := range p.nodes {
		work = work || len(n.plan.Changes) > 0 && !p.stuck(n, stuck) && (len(n.plan.Unknown) > 0 || p.barred(n) == nil)
	}
	return work
}

// barred says why a plan is not applied by this pass however often it is tried: what is to be done about that is
// nothing that a pass does.
func (p *pass) barred(n *nodeRun) error {
	if p.mayApply != nil && !p.mayApply(n.node) {
		return nil
	}
	digest, err := gate(p.instance, n.node.ID, n.plan)
	p.update(n, func(v *Node) { v.Digest = digest })
	return err
}

// look observes and plans one node.
func (p *pass) look(ctx context.Context, n *nodeRun) {
	if ctx.Err() != nil {
		n.err = context.Cause(ctx)
		return
	}
	started := p.clock.Now()
	n.err = p.observeAndPlan(ctx, n)
	n.dirty = n.err != nil || len(n.plan.Changes) > 0
	if n.err == nil && len(n.plan.Changes) > 0 && len(n.plan.Unknown) == 0 {
		n.planned = p.clock.Now()
	}
	p.update(n, func(v *Node) {
		v.Facts, v.Plan = n.observed.Facts, n.plan.Changes
		if !n.dirty {
			v.State, v.Message, v.Started, v.Duration = NodeDone, "", started, p.clock.Now().Sub(started)
		}
	})
}

// observeAndPlan looks at a node and makes its plan. With a value of another instance that is not known the plan is shown
// only, and the node waits for that value, by name.
func (p *pass) observeAndPlan(ctx context.Context, n *nodeRun) error {
	n.awaits = nil
	err := p.planNow(ctx, n)
	if state := stateOf(err); state == NodeDone || state == NodeWaiting {
		if n.awaits = p.awaited(n); n.awaits != nil {
			return n.awaits
		}
	}
	return err
}

func (p *pass) planNow(ctx context.Context, n *nodeRun) error {
	n.observed, n.plan = reconcilers.Observed{}, reconcilers.Plan{}
	target, err := p.target(n)
	if err != nil {
		return err
	}
	n.target = target
	if p.looked != nil {
		begun := p.clock.Now()
		defer func() { p.looked(n.node.ID, p.clock.Now().Sub(begun)) }()
	}
	if n.observed, err = n.engine.Observe(ctx, target); err != nil {
		return err
	}
	p.publish(n, n.observed.Outputs)
	p.hold(n, n.observed.Holds)
	if n.observed.Started {
		p.runs(n)
	}
	if n.plan, err = n.engine.Plan(target, n.observed); err != nil {
		return err
	}
	if len(n.plan.Changes) == 0 {
		return n.observed.Err
	}
	p.tellForewarned(n)
	return nil
}

// settle gives every node that was only surveyed its end, when nothing is to be applied.
func (p *pass) settle(ctx context.Context) {
	for _, node := range p.instance.Graph.Nodes {
		n := p.nodes[node.ID]
		if n.err == nil && len(n.plan.Changes) > 0 {
			if n.err = p.heldUp(n); n.err == nil && len(n.plan.Unknown) == 0 {
				n.err = p.barred(n)
			}
		}
		p.finish(ctx, n)
	}
}

// finish gives a node its last state in this pass.
func (p *pass) finish(ctx context.Context, n *nodeRun) {
	if cause := context.Cause(ctx); cause != nil && errors.Is(n.err, context.Canceled) {
		n.err = cause
	}
	p.update(n, func(v *Node) {
		v.State = stateOf(n.err)
		v.explain(n.err)
		if n.err == nil && len(n.plan.Changes) > 0 && !n.touched && !n.late {
			v.State = NodePending // planned, and not for this pass to apply
		}
		if cause := context.Cause(ctx); cause != nil && errors.Is(n.err, cause) {
			v.State, v.Message = NodePending, cause.Error()
		}
		if !v.Started.IsZero() && v.Duration == 0 {
			v.Duration = p.clock.Now().Sub(v.Started)
		}
	})
}

// heldUp says what of a node's needs is not there: the first node by the graph's order that it waits for.
func (p *pass) heldUp(n *nodeRun) error {
	for _, edge := range n.node.Needs {
		if edge.Output != "" && !p.outputKnown(edge) {
			return &reconcilers.WaitError{For: p.edgeName(edge)}
		}
		if edge.Secret != "" {
			if !p.isHeld(edge) {
				return &reconcilers.WaitError{For: p.edgeName(edge)}
			}
			continue
		}
		on := p.nodes[edge.On]
		if edge.Output == "" && !p.applied && !p.isMet(on, edge) {
			return &reconcilers.WaitError{For: edge.On}
		}
	}
	return nil
}

// isMet says whether a node fulfils an edge by what is known of it now.
func (p *pass) isMet(on *nodeRun, edge desired.Edge) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return on.view.State == NodeDone || (edge.Started && on.running)
}
