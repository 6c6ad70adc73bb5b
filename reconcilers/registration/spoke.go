package registration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"dive-agent/reconcilers"
)

// Spoke is the reconciler of kind SpokeRegistration. It is safe for concurrent use by different targets.
type Spoke struct {
	deps    reconcilers.Deps
	clients clients
}

var (
	_ reconcilers.Reconciler = (*Spoke)(nil)
	_ reconcilers.Watcher    = (*Spoke)(nil)
	_ io.Closer              = (*Spoke)(nil)
)

// NewSpoke makes the reconciler. It connects to nothing.
func NewSpoke(deps reconcilers.Deps) reconcilers.Reconciler { return &Spoke{deps: deps} }

// Close ends idle connections. The reconciler must not be used afterwards.
func (r *Spoke) Close() error {
	r.clients.close()
	return nil
}

// spokeState is what a plan is made from.
type spokeState struct {
	want declared
	kept kept
	live *registered // nil: the hub knows no such spoke
	now  time.Time
	away bool // the hub could not be asked: nothing is planned
	may  string
}

// Observe asks the hub for the spoke's status. On the hub that may make a token, when the spoke is approved and has no
// live one: there is no other way to ask.
//
// With the hub away, the outputs are those that are kept, so that nothing that runs changes.
func (r *Spoke) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	k, err := readKept(t.Dir)
	if err != nil {
		return settle(ctx, reconcilers.Observed{State: spokeState{away: true}}, err)
	}
	s := spokeState{kept: k, now: r.deps.Clock.Now(), away: true}
	o := reconcilers.Observed{Outputs: k.outputs(), State: s}
	o.Facts = s.facts()
	spec := t.Component.Spec.(*SpokeSpec)
	if s.want, err = spec.declare(t.Instance, t.Scope); err != nil {
		return settle(ctx, o, err)
	}
	client, err := spec.Hub.open(t, &r.clients, "")
	if err != nil {
		return settle(ctx, o, err)
	}
	if s.live, err = client.status(ctx, s.want.code); err != nil {
		return settle(ctx, o, client.policy(err))
	}
	s.away, s.may = false, spec.RegisterAgainAfter
	if s.live != nil && s.live.SpokeID == k.SpokeID {
		s.kept.Status = s.live.Status
	}
	o.Outputs, o.Facts, o.State = s.kept.outputs(), s.facts(), s
	o.Err = s.hindrance(client.base, spec)
	return o, nil
}

// settle puts errors that carry policy into the observation; any other is a failure of observing.
func settle(ctx context.Context, o reconcilers.Observed, err error) (reconcilers.Observed, error) {
	var wait *reconcilers.WaitError
	var blocked *reconcilers.BlockedError
	if ctx.Err() == nil && (errors.As(err, &wait) || errors.As(err, &blocked)) {
		o.Err = err
		return o, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return o, err
}

// Plan gives at most one change: to register, to take up a record that is there, or to take a new token.
func (r *Spoke) Plan(_ reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	s, ok := o.State.(spokeState)
	if !ok {
		return reconcilers.Plan{}, errors.New("the observation was not made by this reconciler")
	}
	change, needed := s.change()
	if !needed {
		return reconcilers.Plan{State: s}, nil
	}
	return reconcilers.Plan{Changes: []reconcilers.Change{change}, State: s}, nil
}

func (s spokeState) change() (reconcilers.Change, bool) {
	address := "spoke " + s.want.code
	switch {
	case s.away:
		return reconcilers.Change{}, false
	case s.live == nil:
		return reconcilers.Change{Action: reconcilers.Create, Address: address, Reason: "the hub does not know it"}, true
	case s.live.Status == revoked && s.may == s.live.SpokeID:
		return reconcilers.Change{Action: reconcilers.Create, Address: address, Reason: s.live.SpokeID + " is revoked, and registerAgainAfter names it"}, true
	case s.live.Status != pending && s.live.Status != approved:
		return reconcilers.Change{}, false // suspended: registering could approve it behind the hub's back
	case s.live.SpokeID != s.kept.SpokeID:
		return reconcilers.Change{Action: reconcilers.Update, Address: address, Reason: "the hub has it as " + s.live.SpokeID + ", this host not yet"}, true
	case s.tokenReason() != "":
		return reconcilers.Change{Action: reconcilers.Update, Address: "token of " + s.want.code, Reason: s.tokenReason()}, true
	}
	return reconcilers.Change{}, false
}

// tokenReason says why the token that the hub shows is to be taken, or nothing. The hub shows the oldest one that lives, so
// a later one than ours means that ours does not live any more.
func (s spokeState) tokenReason() string {
	theirs := s.live.Token
	switch {
	case s.live.Status != approved || theirs == nil || theirs.Token == "" || theirs.Token == s.kept.Token:
		return ""
	case s.kept.Token == "":
		return "none is kept yet"
	case !s.now.Before(s.kept.ExpiresAt):
		return "expired at " + s.kept.ExpiresAt.UTC().Format(time.RFC3339)
	case theirs.ExpiresAt.After(s.kept.ExpiresAt):
		return "the hub made a new one, good until " + theirs.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return ""
}

// hindrance is what keeps the spoke from being in the federation as its manifest says, though nothing can be changed
// from here.
func (s spokeState) hindrance(hub string, spec *SpokeSpec) error {
	if _, needed := s.change(); needed {
		return nil
	}
	switch s.live.Status {
	case revoked:
		return &reconcilers.BlockedError{
			Reason: "SpokeRevoked", Message: fmt.Sprintf("the hub has revoked %s", s.live.SpokeID),
			Do: fmt.Sprintf("If the spoke is to register anew, merge registerAgainAfter: %s", s.live.SpokeID),
		}
	case suspended:
		return &reconcilers.BlockedError{
			Reason: "SpokeSuspended", Message: fmt.Sprintf("the hub has suspended %s", s.live.SpokeID),
			Do: "Ask the hub's operators. What runs keeps running, without a token.",
		}
	}
	if lines := s.differences(); len(lines) > 0 {
		return &reconcilers.BlockedError{
			Reason:  "RecordDiffers",
			Message: fmt.Sprintf("the record %s differs from the manifest: %s", s.live.SpokeID, strings.Join(lines, "; ")),
			Do: fmt.Sprintf("The hub keeps a record as it was first made. Put the manifest back, or have the hub revoke it and merge registerAgainAfter: %s",
				s.live.SpokeID),
		}
	}
	if s.live.Status == pending {
		return &reconcilers.WaitError{
			For: "approval by the hub", Again: s.live.poll(spec, s.now),
			Err: errors.New("the hub's agent approves when this manifest is merged and equals the record"),
		}
	}
	if s.live.Status != approved || s.kept.Token == "" {
		return &reconcilers.WaitError{For: "a token of the hub at " + hub}
	}
	return nil
}

// differences compares the manifest with what the record was made from, and the name with the hub's own word.
func (s spokeState) differences() []string {
	if s.kept.SpokeID == "" || s.live == nil || s.live.SpokeID != s.kept.SpokeID {
		return nil
	}
	return s.want.differences(func(name string) (string, bool) {
		if name == "name" && s.kept.HubName != "" {
			return s.kept.HubName, true
		}
		for _, f := range s.kept.Sent {
			if f.Name == name {
				return f.Value, true
			}
		}
		return "", false
	})
}

func (s spokeState) facts() reconcilers.Facts {
	f := reconcilers.Facts{Summary: "not registered", Values: map[string]any{}}
	if s.kept.SpokeID == "" && s.live == nil {
		return f
	}
	id, status := s.kept.SpokeID, s.kept.Status
	if s.live != nil {
		id, status = s.live.SpokeID, s.live.Status
		if !s.live.RegisteredAt.IsZero() {
			f.Values["registeredAt"] = s.live.RegisteredAt.UTC().Format(time.RFC3339)
		}
	}
	f.Summary = status
	f.Values["spokeId"], f.Values["status"] = id, status
	if s.kept.Token != "" {
		f.Values["tokenExpires"] = s.kept.ExpiresAt.UTC().Format(time.RFC3339)
	}
	if s.kept.Found {
		f.Notes = append(f.Notes, "the record was there before this agent registered: only the hub's side can compare its URLs")
	}
	f.Notes = append(f.Notes, s.differences()...)
	return f
}

// freshFor is how long after its registration a pending spoke asks more often: the hub's agent needs no longer to approve
// what is merged.
const freshFor = 30 * time.Second

// poll is how soon to ask again for a spoke that waits.
func (live *registered) poll(spec *SpokeSpec, now time.Time) time.Duration {
	if age := now.Sub(live.RegisteredAt); live.Status == pending && age >= 0 && age < freshFor {
		return min(minPoll, pollOf(spec.Poll))
	}
	return pollOf(spec.Poll)
}

func pollOf(poll interface{ Std() time.Duration }) time.Duration {
	if d := poll.Std(); d > 0 {
		return d
	}
	return 2 * time.Second
}

// Apply carries out the plan's change and looks at the result: pending is a WaitError.
func (r *Spoke) Apply(ctx context.Context, t reconcilers.Target, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	s, ok := p.State.(spokeState)
	if !ok {
		return reconcilers.Applied{}, fmt.Errorf("the plan of %s was not made by this reconciler", t.ID())
	}
	for _, change := range p.Changes {
		if err := progress.Begin(ctx, change); err != nil {
			return reconcilers.Applied{}, err
		}
		err := r.carryOut(context.WithoutCancel(ctx), t, s)
		progress.End(change, err)
		if err != nil {
			return reconcilers.Applied{}, err
		}
	}
	o, err := r.Observe(ctx, t)
	if err == nil {
		err = o.Err
	}
	return reconcilers.Applied{Outputs: o.Outputs, Facts: o.Facts}, err
}

// carryOut does the plan's one change. Each call of the hub has its own limit, so that a change that has begun ends.
func (r *Spoke) carryOut(ctx context.Context, t reconcilers.Target, s spokeState) error {
	client, err := t.Component.Spec.(*SpokeSpec).Hub.open(t, &r.clients, "")
	if err != nil {
		return err
	}
	live, err := client.status(ctx, s.want.code) // the world may have moved on since the plan was made
	if err != nil {
		return client.policy(err)
	}
	next := s.kept
	switch {
	case live == nil, live.Status == revoked && s.may == live.SpokeID, live.Status != suspended && live.Status != revoked && live.SpokeID != s.kept.SpokeID:
		answer, err := client.register(ctx, s.want)
		if err != nil {
			return client.policy(err)
		}
		next = kept{
			SpokeID: answer.SpokeID, Status: answer.Status, Sent: s.want.fields, HubName: answer.Name,
			Found: live != nil && live.SpokeID == answer.SpokeID,
		}
		next.take(answer.Token)
	case live.Status == approved:
		next.Status = approved
		next.take(live.Token)
	default:
		return nil // suspended or revoked meanwhile: the look that follows says so
	}
	return next.write(t.Dir)
}
