package agent

import (
	"context"
	"slices"

	"dive-agent/reconcilers"
)

// takeTurn asks the components that live on a node whether its plan may interrupt it now: a replica set lets its members
// go one at a time. The error is theirs, mostly a WaitError. With no error the turn is the node's until back or release.
func (p *pass) takeTurn(ctx context.Context, n *nodeRun) (*turn, error) {
	t := &turn{pass: p, node: n}
	n.queues = false
	if !slices.ContainsFunc(n.plan.Changes, interrupts) {
		return t, nil
	}
	for _, roller := range p.rollers(n) {
		select {
		case roller.turn <- struct{}{}:
		case <-ctx.Done():
			t.release()
			return nil, context.Cause(ctx)
		}
		t.rollers = append(t.rollers, roller)
	}
	t.part = reconcilers.Turn{Part: n.node.Part, Changes: n.plan.Changes}
	for _, roller := range t.rollers {
		t.part.Others = p.waitingForTurn(roller, n)
		if err := t.ask(ctx, roller, reconcilers.Roller.Turn); err != nil {
			n.queues = len(t.part.Others) > 0
			t.release()
			return nil, err
		}
	}
	return t, nil
}

// turn is a node's permission to be interrupted.
type turn struct {
	pass    *pass
	node    *nodeRun
	rollers []*nodeRun
	part    reconcilers.Turn
}

// back waits until the node serves again for those that live on it.
func (t *turn) back(ctx context.Context) error {
	for _, roller := range t.rollers {
		if err := t.ask(ctx, roller, reconcilers.Roller.Back); err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) ask(ctx context.Context, roller *nodeRun,
	what func(reconcilers.Roller, context.Context, reconcilers.Target, reconcilers.Turn, reconcilers.Progress) error,
) error {
	target, err := t.pass.target(roller)
	if err != nil {
		return err
	}
	return what(roller.engine.(reconcilers.Roller), ctx, target, t.part, &progress{pass: t.pass, node: roller})
}

// release lets the next one have its turn.
func (t *turn) release() {
	for _, roller := range t.rollers {
		<-roller.turn
	}
	t.rollers = nil
}

func interrupts(c reconcilers.Change) bool { return c.Interrupts }

// rollers are the nodes that live on n and have a say in when it is interrupted, in the graph's order.
func (p *pass) rollers(n *nodeRun) []*nodeRun {
	return slices.DeleteFunc(able[reconcilers.Roller](p), func(one *nodeRun) bool { return !livesOn(one, n) })
}

func livesOn(one, n *nodeRun) bool {
	for _, edge := range one.node.Needs {
		if edge.On == n.node.ID && edge.Output == "" {
			return true
		}
	}
	return false
}

// waitingForTurn names the other parts under the same roller that are to be interrupted and were not yet.
func (p *pass) waitingForTurn(roller, n *nodeRun) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var parts []string
	for _, node := range p.instance.Graph.Nodes {
		one := p.nodes[node.ID]
		over := one.view.State != NodePending && one.view.State != NodeWorking && one.view.State != NodeWaiting
		if one != n && livesOn(roller, one) && !over && one.view.Changed == 0 && slices.ContainsFunc(one.view.Plan, interrupts) {
			parts = append(parts, node.Part)
		}
	}
	return parts
}
