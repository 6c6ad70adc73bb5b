package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// fresh is how long the survey's plan of a node holds.
const fresh = 5 * time.Second

// apply brings the instance to its desired state: each node starts as soon as its own needs are met.
func (p *pass) apply(ctx context.Context) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	slots := make(chan struct{}, applied)
	var all sync.WaitGroup
	for _, node := range p.instance.Graph.Nodes {
		n := p.nodes[node.ID]
		p.active(1)
		all.Go(func() {
			defer p.active(-1)
			defer close(n.ended)
			defer n.release()
			p.work(ctx, n, slots)
			if stateOf(n.err) == NodeRejected {
				stop(errRejected)
			}
		})
	}
	all.Wait()
	p.applyLast(ctx)
}

var errRejected = errors.New("another part of this revision does not work")

// work is one node's way through the apply.
func (p *pass) work(ctx context.Context, n *nodeRun, slots chan struct{}) {
	defer func() { p.finish(ctx, n) }()
	if n.awaits != nil { // nothing of this pass makes it known
		return
	}
	if n.err = p.awaitNeeds(ctx, n); n.err != nil {
		return
	}
	if !n.dirty && !p.upstreamChanged(n) {
		n.release()
		return
	}
	waits := pauses{limit: p.clock.Now().Add(patience)}
	for {
		slots <- struct{}{}
		n.err = p.step(ctx, n)
		<-slots
		if n.awaits != nil || !p.waitToLookAgain(ctx, n, &waits) && !p.waitToTryAgain(ctx, n, &waits) {
			return
		}
	}
}

// step observes, plans, gates and applies a node once. What the survey has just planned is not planned again.
func (p *pass) step(ctx context.Context, n *nodeRun) error {
	p.update(n, func(v *Node) {
		if v.State != NodeWaiting { // one that looks again goes on waiting until it changes something
			v.State, v.Message = NodeWorking, ""
		}
		if v.Started.IsZero() {
			v.Started = p.clock.Now()
		}
	})
	var err error
	if !p.stillPlanned(n) {
		err = p.observeAndPlan(ctx, n)
	}
	p.update(n, func(v *Node) {
		v.Facts, v.Plan = n.observed.Facts, n.plan.Changes
	})
	if n.observed.Started && len(n.plan.Changes) == 0 {
		n.release()
	}
	if err != nil || len(n.plan.Changes) == 0 {
		return err
	}
	if len(n.plan.Unknown) > 0 {
		return &reconcilers.WaitError{For: strings.Join(n.plan.Unknown, ", ")}
	}
	if p.mayApply != nil && !p.mayApply(n.node) {
		return nil
	}
	if err := p.barred(n); err != nil {
		return err
	}
	plan := p.withoutLast(n)
	if len(plan.Changes) == 0 {
		return nil
	}
	if _, err := p.forewarn(n); err != nil {
		return err
	}
	turn, err := p.takeTurn(ctx, n)
	if err != nil {
		return err
	}
	defer turn.release()
	applied, err := n.engine.Apply(ctx, n.target, plan, &progress{pass: p, node: n})
	p.publish(n, applied.Outputs)
	p.hold(n, applied.Holds)
	if err != nil {
		return err
	}
	p.update(n, func(v *Node) { v.Facts = applied.Facts })
	return turn.back(ctx)
}

// stillPlanned says whether the survey's plan of a node can be applied as it is: it is fresh, and nothing that the node
// builds on was to be changed. It says so once.
func (p *pass) stillPlanned(n *nodeRun) bool {
	planned := n.planned
	n.planned = time.Time{}
	return !planned.IsZero() && p.clock.Now().Sub(planned) < fresh && !p.buildsOnDirty(n, map[string]bool{})
}

// buildsOnDirty says whether the survey found something to do in a node that n needs, directly or not.
func (p *pass) buildsOnDirty(n *nodeRun, seen map[string]bool) bool {
	for _, edge := range p.needs(n) {
		if seen[edge.On] {
			continue
		}
		seen[edge.On] = true
		if on := p.nodes[edge.On]; on.dirty || p.buildsOnDirty(on, seen) {
			return true
		}
	}
	return false
}

// awaitNeeds waits until all that the node needs is there, or cannot come in this pass.
func (p *pass) awaitNeeds(ctx context.Context, n *nodeRun) error {
	for _, edge := range p.needs(n) {
		on := p.nodes[edge.On]
		arrived := on.ended
		if edge.Started {
			arrived = on.started
		}
		select {
		case <-arrived:
		default:
			p.update(n, func(v *Node) {
				if v.State != NodeDone { // one that is in sync waits for nothing that people should know
					v.Message = "waits for " + p.edgeName(edge)
				}
			})
			p.active(-1)
			select {
			case <-arrived:
				p.active(1)
			case <-ctx.Done():
				p.active(1)
				return context.Cause(ctx)
			}
		}
		if err := p.unmet(edge, on); err != nil {
			return err
		}
	}
	return nil
}

// unmet judges an edge after the other node's end. An instance that was ready before is healed even when something it
// builds on is not ready now, as long as the values it uses are known.
func (p *pass) unmet(edge desired.Edge, on *nodeRun) error {
	if edge.Output != "" {
		if !p.outputKnown(edge) {
			return &reconcilers.WaitError{For: p.edgeName(edge)}
		}
		return nil
	}
	if edge.Secret != "" {
		if !p.isHeld(edge) {
			return &reconcilers.WaitError{For: p.edgeName(edge)}
		}
		return nil
	}
	if p.isMet(on, edge) || (p.applied && !strings.HasPrefix(on.node.Part, "@")) {
		return nil
	}
	return &reconcilers.WaitError{For: p.edgeName(edge)}
}

// needs are the node's edges, and one more for every node that could change something beside a stack: parts named @
// (images, networks) come first in the whole instance, so that a missing image is found before anything is touched.
func (p *pass) needs(n *nodeRun) []desired.Edge {
	needs := n.node.Needs
	if strings.HasPrefix(n.node.Part, "@") {
		return needs
	}
	for _, node := range p.instance.Graph.Nodes {
		if strings.HasPrefix(node.Part, "@") {
			needs = append(needs[:len(needs):len(needs)], desired.Edge{On: node.ID, Why: "images are found before anything is touched"})
		}
	}
	return needs
}

// upstreamChanged says whether a change was begun in a node that n needs. One that is waited for only until it runs may
// still be at it.
func (p *pass) upstreamChanged(n *nodeRun) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(n.node.Needs, func(edge desired.Edge) bool { return p.nodes[edge.On].touched })
}

// runs remembers that a node was seen to run.
func (p *pass) runs(n *nodeRun) {
	p.mu.Lock()
	n.running = true
	p.mu.Unlock()
}

// release lets go those for whom started is enough.
func (n *nodeRun) release() { n.once.Do(func() { close(n.started) }) }

// progress is the reconcilers' Progress of one node: it records each change before and after, and it is the safe point.
type progress struct {
	pass *pass
	node *nodeRun

	mu    sync.Mutex
	steps map[string]int64
}

func (g *progress) Begin(ctx context.Context, changes ...reconcilers.Change) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	clean := make([]reconcilers.Change, len(changes))
	for i, c := range changes {
		clean[i] = cleanChange(c, g.pass.redact)
	}
	steps, err := g.pass.recorder.begin(ctx, g.node.node.ID, clean)
	if err != nil {
		return fmt.Errorf("cannot record the step before it is done: %w", err)
	}
	g.mu.Lock()
	if g.steps == nil {
		g.steps = map[string]int64{}
	}
	for i, c := range changes {
		g.steps[string(c.Action)+" "+c.Address] = steps[i]
	}
	g.mu.Unlock()
	for _, c := range changes {
		g.pass.update(g.node, func(v *Node) {
			g.node.touched = true
			v.State, v.Message = NodeWorking, string(c.Action)+" "+c.Address
		})
	}
	return nil
}

func (g *progress) End(c reconcilers.Change, err error) {
	g.mu.Lock()
	step := g.steps[string(c.Action)+" "+c.Address]
	g.mu.Unlock()
	clean := cleanChange(c, g.pass.redact)
	g.pass.update(g.node, func(v *Node) { v.Changed++ })
	g.pass.recorder.end(g.node.node.ID, step, clean, err)
}

func (g *progress) Say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	g.pass.update(g.node, func(v *Node) { v.Message = text })
}

func (g *progress) Started() {
	g.pass.runs(g.node)
	g.node.release()
}
