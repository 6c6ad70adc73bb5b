package registration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// Approvals is the reconciler of kind SpokeApprovals. It is safe for concurrent use by different targets.
type Approvals struct {
	deps    reconcilers.Deps
	clients clients
}

var (
	_ reconcilers.Reconciler = (*Approvals)(nil)
	_ reconcilers.Watcher    = (*Approvals)(nil)
	_ io.Closer              = (*Approvals)(nil)
)

// NewApprovals makes the reconciler. It connects to nothing.
func NewApprovals(deps reconcilers.Deps) reconcilers.Reconciler { return &Approvals{deps: deps} }

// Close ends idle connections. The reconciler must not be used afterwards.
func (r *Approvals) Close() error {
	r.clients.close()
	return nil
}

// approvalsState is what a plan is made from.
type approvalsState struct {
	verdicts []verdict
	asked    bool // false: the hub could not be asked, nothing is planned
}

// Observe compares the hub's records with the manifests of the fleet.
func (r *Approvals) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	o := reconcilers.Observed{State: approvalsState{}, Facts: reconcilers.Facts{Summary: "not asked yet"}}
	client, err := r.open(t)
	if err != nil {
		return settle(ctx, o, err)
	}
	given, err := readGiven(t.Dir)
	if err != nil {
		return o, err
	}
	records, err := client.spokes(ctx)
	if err != nil {
		return settle(ctx, o, client.policy(err))
	}
	j := judge{policy: t.Component.Spec.(*ApprovalsSpec).UnknownSpokes, given: given, own: strings.ToUpper(valueOf(t.Instance, "code"))}
	j.declare(t.Fleet)
	verdicts := j.all(records)
	o.State = approvalsState{verdicts: verdicts, asked: true}
	o.Facts = factsOf(records, verdicts, j.troubles)
	return o, nil
}

func (r *Approvals) open(t reconcilers.Target) (*hubClient, error) {
	spec := t.Component.Spec.(*ApprovalsSpec)
	e := evaluator{scope: t.Scope}
	key := e.value("adminKey", spec.AdminKey)
	if e.err != nil {
		return nil, e.err
	}
	if key.Text() == "" {
		return nil, &reconcilers.BlockedError{
			Reason: "WrongAdminKey", Message: "adminKey is empty",
			Do: "adminKey must be the FEDERATION_ADMIN_KEY that the hub's backend runs with.",
		}
	}
	return spec.Hub.open(t, &r.clients, key.Text())
}

// Plan has a change for each record that must not stay as it is, in the order of the codes.
func (r *Approvals) Plan(_ reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	s, ok := o.State.(approvalsState)
	if !ok {
		return reconcilers.Plan{}, errors.New("the observation was not made by this reconciler")
	}
	plan := reconcilers.Plan{}
	var steps []verdict
	for _, v := range s.verdicts {
		if v.act == leave {
			continue
		}
		plan.Changes = append(plan.Changes, v.change())
		steps = append(steps, v)
	}
	plan.State = steps
	return plan, nil
}

// Apply carries out one change after the other. A change that fails does not keep the others from being made; the first
// error is the result's.
func (r *Approvals) Apply(ctx context.Context, t reconcilers.Target, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	steps, ok := p.State.([]verdict)
	if len(p.Changes) > 0 && (!ok || len(steps) != len(p.Changes)) {
		return reconcilers.Applied{}, fmt.Errorf("the plan of %s was not made by this reconciler", t.ID())
	}
	client, err := r.open(t)
	if err != nil {
		return reconcilers.Applied{}, err
	}
	var first error
	for i, change := range p.Changes {
		if err := progress.Begin(ctx, change); err != nil {
			return reconcilers.Applied{}, err
		}
		err := r.carryOut(context.WithoutCancel(ctx), client, t, steps[i])
		progress.End(change, err)
		if first == nil {
			first = err
		}
	}
	if first != nil {
		return reconcilers.Applied{}, first
	}
	o, err := r.Observe(ctx, t)
	if err == nil {
		err = o.Err
	}
	return reconcilers.Applied{Facts: o.Facts}, err
}

// factsOf sums up for people: how many records are in which state, and what an operator should know.
func factsOf(records []*record, verdicts []verdict, troubles []string) reconcilers.Facts {
	count := map[string]int{}
	for _, r := range records {
		count[r.Status]++
	}
	f := reconcilers.Facts{Values: map[string]any{}, Notes: slices.Clone(troubles)}
	var parts []string
	for _, status := range []string{approved, pending, suspended, revoked} {
		f.Values[status] = count[status]
		if count[status] > 0 || status == approved {
			parts = append(parts, fmt.Sprintf("%d %s", count[status], status))
		}
	}
	f.Summary = strings.Join(parts, ", ")
	for _, v := range verdicts {
		f.Notes = append(f.Notes, v.notes...)
	}
	return f
}

// declare collects the spokes that the fleet's manifests declare, by code.
func (j *judge) declare(fleet *desired.Fleet) {
	j.declared = map[string]declared{}
	if fleet == nil {
		return
	}
	names := make([]string, 0, len(fleet.Instances))
	for name := range fleet.Instances {
		names = append(names, name)
	}
	slices.Sort(names)
	twice := map[string]bool{}
	for _, name := range names {
		instance := fleet.Instances[name]
		for _, component := range instance.Components {
			spec, ok := component.Spec.(*SpokeSpec)
			if !ok {
				continue
			}
			d, err := spec.declare(instance, instance.Scope(nil))
			if err != nil {
				j.troubles = append(j.troubles, fmt.Sprintf("%s: %s cannot be compared with the hub's record: %v", name, component.Name, err))
				j.unclear = append(j.unclear, d.code)
				continue
			}
			if other, known := j.declared[d.code]; known {
				twice[d.code] = true
				j.troubles = append(j.troubles, fmt.Sprintf("%s and %s both declare the spoke %s: neither is approved", other.instance, name, d.code))
			}
			j.declared[d.code] = d
		}
	}
	for code := range twice {
		delete(j.declared, code)
		j.unclear = append(j.unclear, code)
	}
}
