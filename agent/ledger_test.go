package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// ledger is an engine in memory: it makes entries. It stands in for real engines where only the agent's own order,
// gates and waits are tested; it keeps to the reconcilers' contract (TestLedgerKeepsTheContract).
type ledger struct {
	mu      sync.Mutex
	entries map[string]string                                            // address -> value
	order   []string                                                     // of the changes made
	hook    map[string]func(context.Context, reconcilers.Progress) error // during a change, by address
	errs    map[string]error                                             // what keeps an entry from being ready
	looks   map[string]int                                               // observations, by address
	asks    map[string]string                                            // why changes wait for approval, by address
	held    map[string]error                                             // what holds plans, by address
	health  string                                                       // of the service behind each entry; empty: there is none
	looked  func(address string, times int)                              // after each of them; nil: not told
}

func newLedger() *ledger {
	return &ledger{entries: map[string]string{}, hook: map[string]func(context.Context, reconcilers.Progress) error{}, errs: map[string]error{}, looks: map[string]int{}, asks: map[string]string{}, held: map[string]error{}}
}

// entry is the spec of one entry of the ledger.
type entry struct {
	Value    desired.Expr `yaml:"value"`
	Destroys bool
	Parts    []string
}

// Outputs is desired.Outputter.
func (e *entry) Outputs() []desired.Output {
	return []desired.Output{{Name: "value"}, {Name: "token", Secret: true}}
}

func (l *ledger) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	if err := ctx.Err(); err != nil {
		return reconcilers.Observed{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks[t.ID()]++
	if l.looked != nil {
		l.looked(t.ID(), l.looks[t.ID()])
	}
	value, there := l.entries[t.ID()]
	o := reconcilers.Observed{State: value, Started: there, Err: l.errs[t.ID()]}
	if l.health != "" {
		o.Facts.Service = &reconcilers.ServiceFacts{Name: t.ID(), State: "running", Health: l.health}
	}
	if there && o.Err == nil {
		o.Outputs = outputsOf(value)
		o.Facts.Summary = value
	}
	return o, nil
}

func outputsOf(value string) map[string]desired.Value {
	return map[string]desired.Value{"value": desired.String(value), "token": desired.Secret("token-of-" + value)}
}

func (l *ledger) Plan(t reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	spec := t.Component.Spec.(*entry)
	want, err := spec.Value.Eval(t.Scope)
	if err != nil {
		return reconcilers.Plan{}, err
	}
	have := o.State.(string)
	if want.Known() && have == want.Text() {
		return reconcilers.Plan{}, nil
	}
	change := reconcilers.Change{Action: reconcilers.Create, Address: t.ID(), Reason: "is " + have + ", wants " + want.Display()}
	if have != "" {
		change.Action, change.Destroys = reconcilers.Update, spec.Destroys
	}
	change.Asks = l.asks[t.ID()]
	p := reconcilers.Plan{Changes: []reconcilers.Change{change}, State: want.Text(), Held: l.held[t.ID()]}
	if !want.Known() {
		p.Unknown = []string{spec.Value.References()[0].String()}
	}
	return p, nil
}

func (l *ledger) Apply(ctx context.Context, t reconcilers.Target, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	for _, change := range p.Changes {
		if err := progress.Begin(ctx, change); err != nil {
			return reconcilers.Applied{}, err
		}
		l.mu.Lock()
		l.entries[t.ID()] = p.State.(string)
		l.order = append(l.order, t.ID())
		hook := l.hook[t.ID()]
		l.mu.Unlock()
		var err error
		if hook != nil {
			err = hook(ctx, progress)
		}
		progress.End(change, err)
		if err != nil {
			return reconcilers.Applied{}, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	value := l.entries[t.ID()]
	return reconcilers.Applied{Outputs: outputsOf(value), Facts: reconcilers.Facts{Summary: value}}, nil
}

func (l *ledger) made() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.order)
}

// handClock is time that tests move: After fires when Now was moved past it.
type handClock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[chan time.Time]time.Time
	asked  chan time.Duration // gets the length of each wait; nil: not told
}

func newHandClock() *handClock {
	return &handClock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), timers: map[chan time.Time]time.Time{}}
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	fire := make(chan time.Time, 1)
	c.timers[fire] = c.now.Add(d)
	asked := c.asked
	c.mu.Unlock()
	if asked != nil {
		asked <- d
	}
	return fire
}

func (c *handClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for fire, at := range maps.Clone(c.timers) {
		if !at.After(c.now) {
			fire <- c.now
			delete(c.timers, fire)
		}
	}
}

// memory is a recorder that keeps what it is told.
type memory struct {
	mu    sync.Mutex
	lines []string
	fails error
}

func (m *memory) begin(_ context.Context, node string, changes []reconcilers.Change) (steps []int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		m.lines = append(m.lines, "begin "+node+" "+string(c.Action))
		steps = append(steps, int64(len(m.lines)))
	}
	return steps, m.fails
}

func (m *memory) end(node string, _ int64, _ reconcilers.Change, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, fmt.Sprintf("end %s %v", node, err))
}

// world is a pass over a small graph.
type world struct {
	ledger   *ledger
	clock    *handClock
	recorder *memory
	instance *desired.Instance
	options  passOptions
}

// newWorld makes an instance of components; each line is "name: value expression", needs come from its references.
func newWorld(t *testing.T, components ...[2]string) *world {
	w := &world{ledger: newLedger(), clock: newHandClock(), recorder: &memory{}}
	w.instance = &desired.Instance{Name: "deu", Position: desired.Position{File: "instances/deu.yaml"}, Graph: &desired.Graph{}, Approve: map[string]string{}}
	for _, c := range components {
		expr, problems := desired.ParseExpr(c[1], desired.Position{})
		require.Empty(t, problems)
		component := &desired.Component{Name: c[0], Kind: "Ledger", Spec: &entry{Value: expr}}
		node := &desired.Node{ID: c[0], Component: component}
		for _, ref := range expr.References() {
			node.Needs = append(node.Needs, desired.Edge{On: ref.Path[0], Output: ref.Path[1]})
		}
		w.instance.Components = append(w.instance.Components, component)
		w.instance.Graph.Nodes = append(w.instance.Graph.Nodes, node)
	}
	w.options = passOptions{
		instance: w.instance, scope: desired.NewScope(nil), places: places{private: t.TempDir()},
		reconcilers: map[string]reconcilers.Reconciler{"Ledger": w.ledger}, services: noServices{}, clock: w.clock,
		log: slog.New(slog.DiscardHandler), redact: func(s string) string { return s }, recorder: w.recorder,
		interrupt: make(chan struct{}),
	}
	return w
}

// run makes one pass and gives it.
func (w *world) run(ctx context.Context) *pass {
	p := newPass(w.options)
	if p.survey(ctx) {
		p.apply(ctx)
	} else {
		p.settle(ctx)
	}
	return p
}

func states(p *pass) map[string]NodeState {
	all := map[string]NodeState{}
	for _, v := range p.views() {
		all[v.ID] = v.State
	}
	return all
}
