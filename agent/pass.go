package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/state"
)

// passOptions is what a pass works with.
type passOptions struct {
	fleet       *desired.Fleet
	instance    *desired.Instance
	scope       *desired.Scope           // values and secrets; no outputs yet
	secrets     map[string]desired.Value // as they are in scope
	imported    imported                 // what is known of other instances
	places      places
	reconcilers map[string]reconcilers.Reconciler
	services    reconcilers.Services
	clock       reconcilers.Clock
	log         *slog.Logger
	redact      func(string) string
	learn       func(desired.Value) // tells the redactor of secret outputs

	retry     bool                        // a person asked to try again what was given up
	fresh     bool                        // a person asked to look at everything now
	applied   bool                        // the instance was ready before: healing does not wait for what is not ready now
	mayApply  func(*desired.Node) bool    // nil: all nodes
	interrupt <-chan struct{}             // closed when a waiting pass should end so that another one can look
	onChange  func(Node)                  // called with each change of a node, in order per node
	looked    func(string, time.Duration) // called with how long looking at a node and planning took; nil: nobody asks
	recorder  recorder
}

// recorder keeps what a pass does. Its calls may block on the disk; an error ends the pass before the next change.
type recorder interface {
	begin(ctx context.Context, node string, changes []reconcilers.Change) (steps []int64, err error)
	end(node string, step int64, c reconcilers.Change, err error)
}

// pass is one walk over an instance's graph.
type pass struct {
	passOptions
	nodes map[string]*nodeRun
	began time.Time
	last  bool // all else is done: what is made last is made now

	mu      sync.Mutex                          // guards what follows, and what of each node says so; no other lock is taken under it
	outputs map[string]map[string]desired.Value // component -> output -> value
	holds   map[string][]string                 // node -> secrets whose present value it was last seen to take
	working int                                 // how many nodes are active
	idle    chan struct{}                       // closed when none is
}

// nodeRun is a node within one pass. Its own goroutine writes it: the survey's, then the apply's. Others read of it only
// what is said to be under pass.mu; node, engine and dirty, which do not change after the survey; and its channels.
type nodeRun struct {
	node     *desired.Node
	target   reconcilers.Target
	engine   reconcilers.Reconciler
	view     Node // under pass.mu
	observed reconcilers.Observed
	plan     reconcilers.Plan
	err      error
	imports  []desired.Import // what it uses of other instances
	awaits   error            // what of that it waits for, a WaitError

	dirty    bool          // the survey found something to do, or could not tell
	planned  time.Time     // when the survey made a plan that can be applied as it is; zero once it was used
	touched  bool          // a change of it was begun in this pass; under pass.mu
	running  bool          // seen to run in this pass; under pass.mu
	surveyed chan struct{} // closed after the survey
	started  chan struct{} // closed when it runs, and at its end
	ended    chan struct{} // closed when nothing more happens to it in this pass
	once     sync.Once

	late   bool          // some changes of it are made last
	queues bool          // other parts are to be interrupted in this pass, before this one
	turn   chan struct{} // holds one while a part that this node lives on has its turn (takeTurn)
}

func newPass(o passOptions) *pass {
	p := &pass{passOptions: o, nodes: map[string]*nodeRun{}, outputs: map[string]map[string]desired.Value{}, holds: map[string][]string{}, began: o.clock.Now()}
	for _, node := range o.instance.Graph.Nodes {
		imports := o.instance.ImportsOf(node.ID)
		p.nodes[node.ID] = &nodeRun{
			node: node, imports: imports,
			engine:   o.reconcilers[node.Component.Kind],
			surveyed: make(chan struct{}), started: make(chan struct{}), ended: make(chan struct{}),
			turn: make(chan struct{}, 1),
			view: Node{
				ID: node.ID, Component: node.Component.Name, Part: node.Part, Title: node.Title, Kind: node.Component.Kind, Minor: node.Minor,
				Needs: node.Needs, Imports: imports, State: NodePending,
			},
		}
	}
	return p
}

// able are the nodes whose reconcilers have an ability, in the graph's order.
func able[Ability any](p *pass) (list []*nodeRun) {
	for _, node := range p.instance.Graph.Nodes {
		if _, can := p.nodes[node.ID].engine.(Ability); can {
			list = append(list, p.nodes[node.ID])
		}
	}
	return list
}

// views gives all nodes as they are now, in the graph's order.
func (p *pass) views() []Node {
	p.mu.Lock()
	defer p.mu.Unlock()
	views := make([]Node, 0, len(p.nodes))
	for _, node := range p.instance.Graph.Nodes {
		views = append(views, p.nodes[node.ID].view)
	}
	return views
}

// update changes what is seen of a node and tells of it. It is the one way there, so that no secret gets through. A plan that stays
// was cleaned when it came, and may be long: it is cleaned once more at the node's end, for what became known meanwhile.
func (p *pass) update(n *nodeRun, change func(*Node)) {
	p.mu.Lock()
	plan := n.view.Plan
	change(&n.view)
	stays := samePlan(plan, n.view.Plan) && !n.view.State.Ended()
	n.view.clean(p.redact, stays)
	view := n.view
	p.mu.Unlock()
	if p.onChange != nil {
		p.onChange(view)
	}
}

// samePlan says whether two plans are one and the same.
func samePlan(a, b []reconcilers.Change) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// target gives a node's target with the scope as it is now.
func (p *pass) target(n *nodeRun) (reconcilers.Target, error) {
	dir, err := p.places.component(n.node.Component.Name)
	if err != nil {
		return reconcilers.Target{}, err
	}
	t := p.places.target(p.fleet, p.instance, n.node.Component, p.currentScope())
	t.Retry, t.Fresh, t.Changed = p.retry, p.fresh, p.upstreamChanged(n)
	t.Part, t.Dir, t.Services, t.Log = n.node.Part, dir, p.services, p.log.With("node", n.node.ID)
	if p.places.copyOf != "" {
		t.CopyOf = filepath.Join(p.places.copyOf, n.node.Component.Name)
	}
	return t, nil
}

func (p *pass) currentScope() *desired.Scope {
	p.mu.Lock()
	defer p.mu.Unlock()
	scope := p.scope
	for _, component := range p.instance.Components {
		scope = scope.WithOutputs(component, p.outputs[component.Name])
	}
	return scope
}

// publish takes over a node's outputs; secret ones become known to the redactor first.
func (p *pass) publish(n *nodeRun, outputs map[string]desired.Value) {
	if len(outputs) == 0 {
		return
	}
	for _, value := range outputs {
		if value.Secret() && p.learn != nil {
			p.learn(value)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	merged := maps.Clone(p.outputs[n.node.Component.Name])
	if merged == nil {
		merged = map[string]desired.Value{}
	}
	maps.Copy(merged, outputs)
	p.outputs[n.node.Component.Name] = merged
}

// hold remembers which secrets a node was seen to have as they are now.
func (p *pass) hold(n *nodeRun, secrets []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds[n.node.ID] = secrets
}

// isHeld says whether the secret of an edge works where it is set.
func (p *pass) isHeld(edge desired.Edge) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.holds[edge.On], edge.Secret)
}

// outputKnown says whether the output that an edge uses is there.
func (p *pass) outputKnown(edge desired.Edge) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	value, ok := p.outputs[p.nodes[edge.On].node.Component.Name][edge.Output]
	return ok && value.Known()
}

// edgeName is what a node waits for, as people know it.
func (p *pass) edgeName(edge desired.Edge) string {
	if edge.Output != "" {
		return p.nodes[edge.On].node.Component.Name + "." + edge.Output
	}
	if edge.Secret != "" {
		return p.nodes[edge.On].node.Component.Name + ", which sets " + edge.Secret
	}
	return edge.On
}

// outcome sums a pass up.
func (p *pass) outcome(ctx context.Context) (state.Outcome, string) {
	if cause := context.Cause(ctx); cause != nil {
		return state.Cancelled, cause.Error()
	}
	worst, message := NodeDone, ""
	for _, view := range p.views() {
		if view.State.worseThan(worst) {
			worst, message = view.State, view.ID+": "+view.Message
		}
	}
	return outcomeOf(worst), message
}

// achieved says whether all is done but for what holds nothing else up.
func (p *pass) achieved(ctx context.Context) bool {
	return ctx.Err() == nil && !slices.ContainsFunc(p.views(), func(n Node) bool { return n.State != NodeDone && !n.Minor })
}

// again says when a pass that did not end well should be followed by another one; zero: only when something wakes it.
func (p *pass) again() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var soonest time.Duration
	for _, n := range p.nodes {
		var wait *reconcilers.WaitError
		if !errors.As(n.err, &wait) {
			continue
		}
		again := wait.Again
		if !wait.Until.IsZero() {
			again = max(wait.Until.Sub(p.clock.Now()), time.Second)
		}
		if again > 0 && (soonest == 0 || again < soonest) {
			soonest = again
		}
	}
	return soonest
}

// places are the folders of an instance on the host.
type places struct {
	source  string // in the snapshot
	project string
	secrets string
	private string // parent of the components' folders
	copyOf  string // private is a copy of this one, for a plan; empty: it is the real one
}
