package registration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// Approvals is the reconciler of kind SpokeApprovals. It is safe for concurrent use by different targets.
type Approvals struct {
	deps     reconcilers.Deps
	clients  clients
	opal     *http.Client
	renewals sync.Map   // folder of a component -> time.Time when the next token is to be renewed
	absences sync.Map   // folder of a component -> absence
	kept     sync.Mutex // held while a file in the folder of a component is read, changed and written
}

var (
	_ reconcilers.Reconciler = (*Approvals)(nil)
	_ reconcilers.Watcher    = (*Approvals)(nil)
	_ io.Closer              = (*Approvals)(nil)
)

// NewApprovals makes the reconciler. It connects to nothing.
func NewApprovals(deps reconcilers.Deps) reconcilers.Reconciler {
	return &Approvals{deps: deps, opal: newOPALClient()}
}

// Close ends idle connections. The reconciler must not be used afterwards.
func (r *Approvals) Close() error {
	r.clients.close()
	r.opal.CloseIdleConnections()
	return nil
}

// approvalsState is what a plan is made from.
type approvalsState struct {
	verdicts []verdict
	orders   []opalOrder
}

// approvalsPlan is what is to be done, change by change: first about records, then for OPAL clients.
type approvalsPlan struct {
	steps  []verdict
	orders []opalOrder
}

// Observe compares the hub's records with the manifests of the fleet.
func (r *Approvals) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	o := reconcilers.Observed{State: approvalsState{}, Facts: reconcilers.Facts{Summary: "not asked yet"}}
	client, err := r.open(t)
	if err != nil {
		return reconcilers.Settle(ctx, o, err)
	}
	given, err := readGiven(t.Dir)
	if err != nil {
		return o, err
	}
	records, err := client.spokes(ctx)
	if err != nil {
		return reconcilers.Settle(ctx, o, client.policy(err))
	}
	spec := t.Component.Spec.(*ApprovalsSpec)
	j := judge{policy: spec.UnknownSpokes, revoke: spec.Revoke, given: given, own: strings.ToUpper(valueOf(t.Instance, "code"))}
	if t.Fleet != nil {
		j.removed = t.Fleet.Removed
	}
	j.declare(t.Fleet)
	verdicts := j.all(records)
	r.awaits(t.Dir, j.absent)
	if err := adopt(t.Dir, given, verdicts); err != nil {
		return o, err
	}
	tokens, err := mintedTokens.read(t.Dir)
	if err != nil {
		return o, err
	}
	o.Facts = factsOf(records, verdicts, j.troubles)
	o.Facts.Spokes = spokeFacts(verdicts, tokens, r.deps.Clock.Now())
	handed, next := handOver(verdicts, tokens, readersOf(t, handoverOutput), r.deps.Clock.Now())
	look, err := r.lookAtOPAL(t, verdicts, r.deps.Clock.Now())
	if err != nil {
		return o, err
	}
	r.renewals.Store(t.Dir, sooner(next, look.next))
	o.Outputs = map[string]desired.Value{handoverOutput: handed}
	maps.Copy(o.Outputs, look.outputs)
	o.State = approvalsState{verdicts: verdicts, orders: look.orders}
	if look.err != nil {
		return reconcilers.Settle(ctx, o, look.err)
	}
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

// Plan has a change for each record that must not stay as it is, in the order of the codes. Those that wait for approval
// come when no other is left: nobody waits for what is asked about another spoke. Tokens of OPAL clients come last: nobody waits
// for an OPAL server either.
func (r *Approvals) Plan(_ reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	s, ok := o.State.(approvalsState)
	if !ok {
		return reconcilers.Plan{}, errors.New("the observation was not made by this reconciler")
	}
	steps := slices.DeleteFunc(slices.Clone(s.verdicts), func(v verdict) bool { return v.act == leave })
	if len(s.orders) > 0 || slices.ContainsFunc(steps, func(v verdict) bool { return v.act != doRenew }) {
		steps = slices.DeleteFunc(steps, func(v verdict) bool { return v.act == doRenew })
	}
	plan := reconcilers.Plan{State: approvalsPlan{steps, s.orders}}
	for _, v := range steps {
		plan.Changes = append(plan.Changes, v.change())
	}
	for _, order := range s.orders {
		plan.Changes = append(plan.Changes, order.change())
	}
	return plan, nil
}

// atATime is how many records are changed at a time: a call may take the hub minutes, and goes on to the caller's limit.
const atATime = 8

// Apply carries out the changes, begun in their order. One that fails does not keep the others from being made, but for those that
// need the OPAL server, which is asked no more after a failure; the first error is the result's, and what else was done is handed
// over all the same.
func (r *Approvals) Apply(ctx context.Context, t reconcilers.Target, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	plan, ok := p.State.(approvalsPlan)
	if len(p.Changes) > 0 && (!ok || len(plan.steps)+len(plan.orders) != len(p.Changes)) {
		return reconcilers.Applied{}, fmt.Errorf("the plan of %s was not made by this reconciler", t.ID())
	}
	client, err := r.open(t)
	if err != nil {
		return reconcilers.Applied{}, err
	}
	server, err := r.opalServer(t)
	if err != nil && len(plan.orders) > 0 {
		return reconcilers.Applied{}, err
	}
	first, err := r.changeRecords(ctx, client, t, plan.steps, p.Changes, progress)
	if err != nil {
		return reconcilers.Applied{}, err
	}
	for i, change := range p.Changes[len(plan.steps):] {
		if err := progress.Begin(ctx, change); err != nil {
			return reconcilers.Applied{}, err
		}
		err := r.makeOPALToken(context.WithoutCancel(ctx), client, server, t, plan.orders[i])
		progress.End(change, err)
		if err != nil {
			first = cmp.Or(first, err)
			break
		}
	}
	o, err := r.Observe(ctx, t)
	if err == nil {
		err = o.Err
	}
	if first != nil {
		err = first
	}
	return reconcilers.Applied{Outputs: o.Outputs, Facts: o.Facts}, err
}

// changeRecords carries out the plan's steps, some at a time, and gives the first failure by the plan's order. With an error not
// all of them were begun; those that were have ended.
func (r *Approvals) changeRecords(ctx context.Context, client *hubClient, t reconcilers.Target, steps []verdict, changes []reconcilers.Change, progress reconcilers.Progress) (failed, err error) {
	failures := make([]error, len(steps))
	slots := make(chan struct{}, atATime)
	var all sync.WaitGroup
	for i, v := range steps {
		slots <- struct{}{}
		if err = progress.Begin(ctx, changes[i]); err != nil {
			break
		}
		all.Go(func() {
			defer func() { <-slots }()
			failures[i] = r.carryOut(context.WithoutCancel(ctx), client, t, v)
			progress.End(changes[i], failures[i])
		})
	}
	all.Wait()
	return cmp.Or(failures...), err
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
