package agent

import (
	"context"

	"dive-agent/reconcilers"
)

// Some changes are made last: a container whose service left the stack may run a member that the replica set still counts
// on, and a set that loses several at once has no majority. It goes when the set has let it go.

// withoutLast is a node's plan without the changes that are made last, until applyLast, where there is a Roller.
func (p *pass) withoutLast(n *nodeRun) reconcilers.Plan {
	plan := n.plan
	if p.last || len(able[reconcilers.Roller](p)) == 0 {
		return plan
	}
	plan.Changes = nil
	for _, change := range n.plan.Changes {
		if change.Last {
			n.late = true
			continue
		}
		plan.Changes = append(plan.Changes, change)
	}
	return plan
}

// applyLast steps the nodes once more that have changes to make last, unless a Roller is in trouble: a later pass does it then.
func (p *pass) applyLast(ctx context.Context) {
	for _, roller := range able[reconcilers.Roller](p) {
		if roller.err != nil {
			return
		}
	}
	p.last = true
	for _, node := range p.instance.Graph.Nodes {
		if n := p.nodes[node.ID]; n.late && n.err == nil && ctx.Err() == nil {
			n.err = p.step(ctx, n)
			p.finish(ctx, n)
		}
	}
}
