package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dive-agent/reconcilers"
)

const (
	atOnce = 8               // checks that run at the same time
	again  = 2 * time.Second // between two looks at failing checks
)

// Reconciler runs checks. It is safe for concurrent use by different targets.
type Reconciler struct {
	deps  reconcilers.Deps
	mongo *mongoPool

	mu      sync.Mutex
	failing map[string]trouble // by instance and component
}

// trouble is that core checks fail: since when, and on which containers.
type trouble struct {
	since time.Time
	on    string
}

var (
	_ reconcilers.Reconciler = (*Reconciler)(nil)
	_ io.Closer              = (*Reconciler)(nil)
)

// New makes the reconciler of kind Verification.
func New(deps reconcilers.Deps) reconcilers.Reconciler {
	return &Reconciler{deps: deps, mongo: newMongoPool(), failing: map[string]trouble{}}
}

// Registration is this kind's line in the program's list of reconcilers.
var Registration = reconcilers.Registration{Kind: Kind, New: New}

// Close ends all connections. The reconciler must not be used afterwards.
func (r *Reconciler) Close() error {
	r.mongo.close()
	return nil
}

// outcome is what one check saw.
type outcome struct {
	passed bool
	saw    string // what was seen, with what was expected where they differ; no secret
	wait   *reconcilers.WaitError
}

func pass(format string, args ...any) outcome {
	return outcome{true, fmt.Sprintf(format, args...), nil}
}

func fail(format string, args ...any) outcome {
	return outcome{false, fmt.Sprintf(format, args...), nil}
}

// failed is a check that could not be made. What only waits for something keeps its reason.
func failed(err error) outcome {
	o := outcome{saw: err.Error()}
	errors.As(err, &o.wait)
	return o
}

// Observe runs all checks. Failing core checks are waited for as long as the manifest says (within), counted from when
// they were first seen to fail or something last changed beneath them: the revision, or a container of the instance. Then
// they are a failure that lists each with what was seen.
func (r *Reconciler) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok {
		return reconcilers.Observed{}, fmt.Errorf("component %s carries a %T, not checks", t.Component.Name, t.Component.Spec)
	}
	outcomes := make([]outcome, len(spec.Checks))
	group := errgroup.Group{}
	group.SetLimit(atOnce)
	for i, check := range spec.Checks {
		group.Go(func() error {
			outcomes[i] = r.runCheck(ctx, t, check)
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return reconcilers.Observed{}, ctx.Err()
	}
	r.mongo.sweep(componentKey(t))
	facts, missed := summarise(spec, outcomes)
	return reconcilers.Observed{Facts: facts, Started: true, Err: r.judge(ctx, t, spec, missed)}, nil
}

// runCheck gives one check its time and cleans what it saw of secrets.
func (r *Reconciler) runCheck(ctx context.Context, t reconcilers.Target, check Check) outcome {
	ctx, cancel := context.WithTimeout(ctx, check.timeout())
	defer cancel()
	one := &try{r: r, target: t, check: check}
	o := one.run(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && !o.passed {
		o.saw = fmt.Sprintf("no answer within %s: %s", check.timeout(), o.saw)
	}
	o.saw = one.clean(o.saw)
	return o
}

// componentKey names a component of this host's instances.
func componentKey(t reconcilers.Target) string {
	if t.Instance == nil {
		return t.Component.Name
	}
	return t.Instance.Name + "/" + t.Component.Name
}

// miss is a core check that failed.
type miss struct {
	name string
	outcome
}

func summarise(spec *Spec, outcomes []outcome) (reconcilers.Facts, []miss) {
	var (
		facts  reconcilers.Facts
		missed []miss
		passed int
	)
	for i, check := range spec.Checks {
		o := outcomes[i]
		facts.Checks = append(facts.Checks, reconcilers.CheckFacts{Name: check.Name, Passed: o.passed, Saw: o.saw})
		switch {
		case o.passed:
			passed++
		case check.Class == "optional":
			facts.Notes = append(facts.Notes, fmt.Sprintf("optional check %s failed: %s", check.Name, o.saw))
		default:
			missed = append(missed, miss{check.Name, o})
		}
	}
	facts.Summary = fmt.Sprintf("%d checks passed", passed)
	if rest := len(spec.Checks) - passed; rest > 0 {
		facts.Summary = fmt.Sprintf("%d passed, %d failed", passed, rest)
	}
	return facts, missed
}

// judge turns failing checks into a wait or a failure.
func (r *Reconciler) judge(ctx context.Context, t reconcilers.Target, spec *Spec, missed []miss) error {
	key := componentKey(t)
	if len(missed) == 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.failing, key)
		return nil
	}
	on := beneath(ctx, t)
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.deps.Clock.Now()
	if have, known := r.failing[key]; !known || have.on != on {
		r.failing[key] = trouble{now, on}
	}
	if now.Sub(r.failing[key].since) >= spec.Within.Std() {
		return describe(missed, len(spec.Checks))
	}
	for _, m := range missed {
		if m.wait != nil {
			return &reconcilers.WaitError{For: fmt.Sprintf("check %s (%s)", m.name, m.wait.For), Again: again}
		}
	}
	return &reconcilers.WaitError{For: "another look", Again: again, Err: describe(missed, len(spec.Checks))}
}

// beneath tells apart what the checks stand on: the revision of the instance and the containers of its services.
func beneath(ctx context.Context, t reconcilers.Target) string {
	if t.Instance == nil || t.Instance.Graph == nil {
		return ""
	}
	var b strings.Builder
	b.WriteString(t.Instance.Digest)
	for _, node := range t.Instance.Graph.Nodes {
		if node.Part == "" || strings.HasPrefix(node.Part, "@") { // no service
			continue
		}
		id := "absent"
		if c, err := t.Services.Find(ctx, node.Part); err == nil {
			id = c.ID + "@" + c.StartedAt.String()
		}
		fmt.Fprintf(&b, " %s=%s", node.Part, id)
	}
	return b.String()
}

func describe(missed []miss, total int) error {
	lines := make([]string, len(missed))
	for i, m := range missed {
		lines[i] = m.name + ": " + m.saw
	}
	return fmt.Errorf("%d of %d checks failed: %s", len(missed), total, strings.Join(lines, "; "))
}

// Plan is always empty: a check changes nothing.
func (r *Reconciler) Plan(reconcilers.Target, reconcilers.Observed) (reconcilers.Plan, error) {
	return reconcilers.Plan{}, nil
}

// Apply has nothing to carry out and tells what the checks see now.
func (r *Reconciler) Apply(ctx context.Context, t reconcilers.Target, p reconcilers.Plan, _ reconcilers.Progress) (reconcilers.Applied, error) {
	if len(p.Changes) > 0 {
		return reconcilers.Applied{}, fmt.Errorf("the plan of %s was not made by this reconciler", t.ID())
	}
	o, err := r.Observe(ctx, t)
	if err == nil {
		err = o.Err
	}
	return reconcilers.Applied{Facts: o.Facts}, err
}
