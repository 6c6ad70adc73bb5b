package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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

	mu     sync.Mutex
	kept   map[string]memory // by instance and component
	looked chan struct{}     // closed with the next look at any checks
}

var (
	_ reconcilers.Reconciler = (*Reconciler)(nil)
	_ io.Closer              = (*Reconciler)(nil)
)

// New makes the reconciler of kind Verification.
func New(deps reconcilers.Deps) reconcilers.Reconciler {
	return &Reconciler{deps: deps, mongo: newMongoPool(), kept: map[string]memory{}, looked: make(chan struct{})}
}

// Registration is this kind's line in the program's list of reconcilers.
var Registration = reconcilers.Registration{Kind: Kind, New: New}

// Close ends all connections. The reconciler must not be used afterwards.
func (r *Reconciler) Close() error {
	r.mongo.close()
	return nil
}

// Observe makes all checks whose turn has come, and tells of the others what they saw last. Failing checks of severity fail
// are waited for as long as the manifest says (within), counted from when they were first seen to fail or something last
// changed beneath them: the revision, or a container of the instance. Then they are a failure that lists each with what
// was seen.
func (r *Reconciler) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok {
		return reconcilers.Observed{}, fmt.Errorf("component %s carries a %T, not checks", t.Component.Name, t.Component.Spec)
	}
	checks, err := made(t, spec)
	if err != nil {
		return reconcilers.Observed{}, err
	}
	results, err := r.look(ctx, t, spec, checks)
	if err != nil {
		return reconcilers.Observed{}, err
	}
	facts, missed := summarise(spec, checks, results)
	return reconcilers.Observed{Facts: facts, Started: true, Err: r.judge(ctx, t, spec, missed, len(checks))}, nil
}

// made are the checks that the manifest's values do not switch off.
func made(t reconcilers.Target, spec *Spec) (checks []Check, err error) {
	for _, check := range spec.Checks {
		if !check.When.IsZero() {
			wanted, err := check.When.Eval(t.Scope)
			switch {
			case err != nil:
				return nil, err
			case !wanted.Known():
				return nil, &reconcilers.WaitError{For: check.When.Missing(t.Scope)[0]}
			case wanted.Go() == false:
				continue
			case wanted.Go() != true:
				return nil, fmt.Errorf("check %s: when is neither true nor false", check.Name)
			}
		}
		checks = append(checks, check)
	}
	return checks, nil
}

// look makes the checks whose turn has come and keeps what they saw.
func (r *Reconciler) look(ctx context.Context, t reconcilers.Target, spec *Spec, checks []Check) (map[string]result, error) {
	key := componentKey(t)
	before := r.recall(key)
	scheduled := slices.ContainsFunc(checks, func(c Check) bool { return spec.schedule(c) != nil })
	on := ""
	if scheduled {
		on = beneath(ctx, t)
	}
	results := make([]result, len(checks))
	group := errgroup.Group{}
	group.SetLimit(atOnce)
	for i, check := range checks {
		if !before.due(check, spec.schedule(check), t, on, r.deps.Clock.Now()) {
			results[i] = before.results[check.Name]
			continue
		}
		group.Go(func() error {
			began := r.deps.Clock.Now()
			results[i] = result{outcome: r.runCheck(ctx, t, check), at: began}
			results[i].took = r.deps.Clock.Now().Sub(began)
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.mongo.sweep(key)
	named := make(map[string]result, len(checks))
	for i, check := range checks {
		named[check.Name] = results[i]
	}
	r.keep(key, on, named)
	return named, nil
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

// miss is a check of severity fail that failed.
type miss struct {
	name string
	outcome
}

func summarise(spec *Spec, checks []Check, results map[string]result) (reconcilers.Facts, []miss) {
	var (
		facts  reconcilers.Facts
		missed []miss
		passed int
	)
	for _, check := range checks {
		o := results[check.Name]
		facts.Checks = append(facts.Checks, reconcilers.CheckFacts{
			Name: check.Name, Severity: check.severity(), Passed: o.passed, Saw: o.saw, Counts: o.counts, Dates: o.dates,
			At: o.at.UTC(), Took: o.took, Next: next(spec.schedule(check), o.at),
		})
		switch {
		case o.passed:
			passed++
		case check.severity() == severityWarn:
			facts.Notes = append(facts.Notes, fmt.Sprintf("warning: check %s: %s", check.Name, o.saw))
		default:
			missed = append(missed, miss{check.Name, o.outcome})
		}
	}
	facts.Summary = sum(len(checks), passed, len(missed))
	return facts, missed
}

// sum is "12 checks passed", or "9 passed, 2 failed, 1 warning".
func sum(all, passed, failed int) string {
	if passed == all {
		return fmt.Sprintf("%d %s passed", all, plural(all, "check", "checks"))
	}
	parts := []string{fmt.Sprintf("%d passed", passed)}
	if failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", failed))
	}
	if warned := all - passed - failed; warned > 0 {
		parts = append(parts, fmt.Sprintf("%d %s", warned, plural(warned, "warning", "warnings")))
	}
	return strings.Join(parts, ", ")
}

// judge turns failing checks into a wait or a failure.
func (r *Reconciler) judge(ctx context.Context, t reconcilers.Target, spec *Spec, missed []miss, total int) error {
	on := ""
	if len(missed) > 0 {
		on = beneath(ctx, t)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := componentKey(t)
	m := r.kept[key]
	if len(missed) == 0 {
		m.since, m.failing = time.Time{}, ""
		r.kept[key] = m
		return nil
	}
	now := r.deps.Clock.Now()
	if m.since.IsZero() || m.failing != on {
		m.since, m.failing = now, on
		r.kept[key] = m
	}
	if now.Sub(m.since) >= spec.Within.Std() {
		return describe(missed, total)
	}
	for _, m := range missed {
		if m.wait != nil {
			return &reconcilers.WaitError{For: fmt.Sprintf("check %s (%s)", m.name, m.wait.For), Again: again}
		}
	}
	return &reconcilers.WaitError{For: "another look", Again: again, Err: describe(missed, total)}
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
