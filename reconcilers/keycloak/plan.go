package keycloak

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dive-agent/reconcilers"
)

// plan asks Terraform. A plan that the server's own failures kept from its end is made once more, since it changes nothing: such a
// failure is mostly over with the next request. Keycloak answers 500 to who administers it while somebody deletes another realm.
func (l *look) plan(ctx context.Context) (*planned, error) {
	p, err := l.planOnce(ctx)
	if err != nil && ctx.Err() == nil && p != nil && p.stream.serverFailed() {
		l.target.Log.Warn("the server failed during a plan, which is made once more", "error", l.deps.Redact(p.stream.telling()[0].String()))
		p, err = l.planOnce(ctx)
	}
	switch {
	case errors.Is(err, errRefused):
		policy := l.notAccepted(l.deps.Redact(err.Error()))
		err = errors.Join(policy, l.remember(policy))
	case p != nil && err != nil:
		err = l.failed("plan", p.stream, err)
	}
	return p, err
}

// planOnce plans, and takes over what is ours in the realm and missing in the state. An error with a plan is Terraform's.
func (l *look) planOnce(ctx context.Context) (*planned, error) {
	given := l.imports()
	if mine := l.mine(); mine != nil {
		return newAdopter(l.server, l.state, given, mine).adopt(ctx, l.work, l.in, l.spec)
	}
	if err := l.work.writeImports(given); err != nil {
		return nil, err
	}
	return l.work.plan(ctx, l.in, l.spec.Parallelism)
}

// imports are those of the manifest that the state does not have.
func (l *look) imports() map[string]string {
	known, given := l.state.ids(), map[string]string{}
	for address, id := range l.spec.Imports {
		if _, there := known[address]; !there {
			given[address] = id
		}
	}
	return given
}

// mine says which resources may be taken over; nil when none may. After an apply that was cut off it is those which
// were begun and did not get into the state. With `adopt` and no state it is all, and all too for a person who asks.
func (l *look) mine() func(string) bool {
	empty := l.state == nil || l.state.managed() == 0 || l.lost != nil
	if l.spec.Adopt && empty || l.asked {
		return func(string) bool { return true }
	}
	if l.cut == nil || len(l.cut.begun) == 0 {
		return nil
	}
	known := map[string]bool{}
	if l.state != nil {
		known = l.state.addresses()
	}
	for address := range l.cut.begun {
		if !known[address] {
			return func(address string) bool { return l.cut.begun[address] }
		}
	}
	return nil
}

// judge turns a plan into changes, or into what is wrong with it.
func (l *look) judge(ctx context.Context, seen *observation, p *planned) error {
	now := l.deps.Clock.Now()
	// The server took who asked, and no lock stood in the way: a later refusal, or lock, is a first one again.
	if err := errors.Join(removeIfThere(l.refusalFile()), removeIfThere(l.work.lockFile())); err != nil {
		return err
	}
	if !p.changes {
		l.record.Drift = sinceWhen(l.record.Drift, nil, now)
		return l.inSync(now, nil)
	}
	if err := l.foreign(ctx, p); err != nil {
		return err
	}
	changes := changesOf(p, l.spec)
	if len(changes) == 0 {
		l.record.Drift = sinceWhen(l.record.Drift, nil, now)
		return l.inSync(now, nil)
	}
	print := printOf(changes)
	if l.lost == nil && l.record.Inputs == l.in.digest && (!l.record.Verified && equal(print, l.record.Applied) || equal(print, l.record.Stuck)) {
		l.record.Drift = sinceWhen(l.record.Drift, nil, now)
		return l.inSync(now, print)
	}
	if leave, stuck := l.drift(changes, p.stream.drift, now); leave {
		return l.inSync(now, stuck)
	}
	content, err := contentOf(l.work, l.in, p)
	if err != nil {
		return err
	}
	if err := l.work.keep(l.record); err != nil {
		return err
	}
	serial := int64(0)
	if l.state != nil {
		serial = l.state.Serial
	}
	seen.changes, seen.content, seen.differences = changes, content, differencesOf(p, l.deps.Redact)
	seen.asks, seen.held = l.asks(changes), l.held(changes)
	seen.saved = &saved{file: p.file, serial: serial, inputs: l.in, apply: l.work.apply, changes: changes, plan: p.plan, anew: l.lost != nil}
	return l.keepWaiting(seen)
}

// foreign refuses to make a realm that is there already and not in the state.
func (l *look) foreign(ctx context.Context, p *planned) error {
	for _, rc := range p.plan.ResourceChanges {
		after, _ := rc.Change.After.(map[string]any)
		name, _ := after["realm"].(string)
		if rc.Type != "keycloak_realm" || !rc.Change.Actions.Create() || name == "" {
			continue
		}
		there, err := l.server.realm(ctx, name)
		if err != nil {
			return err
		}
		if there {
			return &reconcilers.BlockedError{
				Reason: "RealmExists", Message: fmt.Sprintf("realm %s is on the server and not in the Terraform state of this component", name),
				Do: l.adoptLine() + ". Or put the realm's state back. Nothing was changed",
			}
		}
	}
	return nil
}

// inSync records that a plan had nothing to do, or nothing that an apply would end.
func (l *look) inSync(now time.Time, stuck []string) error {
	if l.state != nil {
		l.record.take(l.state, l.work.toolName)
	}
	l.record.Inputs, l.record.Verified, l.record.Stuck, l.record.Applied, l.record.Begun = l.in.digest, true, stuck, nil, ""
	if !l.work.trusts {
		l.record.Compared = now
	}
	l.record.Adopt = l.spec.Adopt
	if err := l.work.keep(l.record); err != nil {
		return err
	}
	if l.state != nil {
		if _, err := keepCopy(l.work.state, l.work.copies); err != nil {
			return err
		}
	}
	return l.work.finished()
}

// equal says whether two lists that say something say the same.
func equal(a, b []string) bool { return len(a) > 0 && slices.Equal(a, b) }

// Plan hands on what Observe made Terraform say.
func (r *Reconciler) Plan(t reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	seen, ok := o.State.(*observation)
	if !ok {
		return reconcilers.Plan{}, fmt.Errorf("component %s: the observation is not one of kind %s", t.Component.Name, Kind.Name)
	}
	if len(seen.unknown) > 0 {
		return reconcilers.Plan{
			Unknown: seen.unknown,
			Changes: []reconcilers.Change{{Action: reconcilers.Run, Address: "module " + t.Component.Spec.(*Spec).Module, Reason: "known after apply: " + strings.Join(seen.unknown, ", ")}},
		}, nil
	}
	plan := reconcilers.Plan{Changes: seen.changes, Content: seen.content, Differences: seen.differences, Asks: seen.asks, Held: seen.held}
	switch {
	case seen.saved != nil:
		plan.State = seen.saved
	case seen.rotation != nil:
		plan.State = seen.rotation
	case seen.shown:
		plan.State = shown{}
	case seen.account != nil:
		plan.State = seen.account
	}
	return plan, nil
}
