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
	word handover        // of the hub's agent
	dead map[string]bool // tokens, of those that are kept and handed over, that the hub does not know any more
}

// Observe asks the hub for the spoke's status. On the hub that may make a token, when the spoke is approved and has no
// live one: there is no other way to ask.
//
// With the hub away, the outputs are those that are kept, so that nothing that runs changes.
func (r *Spoke) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	k, err := readKept(t.Dir)
	if err != nil {
		return reconcilers.Settle(ctx, reconcilers.Observed{State: spokeState{away: true}}, err)
	}
	s := spokeState{kept: k, now: r.deps.Clock.Now(), away: true}
	o := reconcilers.Observed{Outputs: k.outputs(), State: s}
	o.Facts = s.facts()
	spec := t.Component.Spec.(*SpokeSpec)
	if s.want, err = spec.declare(t.Instance, t.Scope); err != nil {
		return reconcilers.Settle(ctx, o, err)
	}
	client, err := spec.Hub.open(t, &r.clients, "")
	if err != nil {
		return reconcilers.Settle(ctx, o, err)
	}
	if s.live, err = client.status(ctx, s.want.code); err != nil {
		return reconcilers.Settle(ctx, o, client.policy(err))
	}
	s.away, s.may = false, spec.RegisterAgainAfter
	if s.live != nil {
		if s.word, err = spec.handed(t.Scope, s.live.SpokeID); err != nil {
			return reconcilers.Settle(ctx, o, err)
		}
		s.dead = client.dead(ctx, s.live, s.now, k.issued(), s.word.issued())
	}
	if s.live != nil && s.live.SpokeID == k.SpokeID {
		s.kept.Status = s.live.Status
	}
	o.Outputs, o.Facts, o.State = s.kept.outputs(), s.facts(), s
	o.Err = s.hindrance(client.base, spec)
	return o, nil
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
	case s.want.standing != approved:
		if s.live != nil && s.live.Status == revoked && s.want.standing == revoked && !s.ended() {
			return reconcilers.Change{Action: reconcilers.Update, Address: address, Reason: s.live.SpokeID + " is revoked, as the manifest says"}, true
		}
		return reconcilers.Change{}, false
	case s.live == nil:
		return reconcilers.Change{Action: reconcilers.Create, Address: address, Reason: "the hub does not know it"}, true
	case s.anew() != "":
		return reconcilers.Change{Action: reconcilers.Create, Address: address, Reason: s.live.SpokeID + " is revoked, and " + s.anew()}, true
	case s.live.Status != pending && s.live.Status != approved:
		return reconcilers.Change{}, false // suspended: registering could approve it behind the hub's back
	case s.live.SpokeID != s.kept.SpokeID:
		return reconcilers.Change{Action: reconcilers.Update, Address: address, Reason: "the hub has it as " + s.live.SpokeID + ", this host not yet"}, true
	case s.tokenReason() != "":
		return reconcilers.Change{Action: reconcilers.Update, Address: "token of " + s.want.code, Reason: s.tokenReason()}, true
	}
	return reconcilers.Change{}, false
}

// ended says whether the revoked record is kept as one that the manifest ended.
func (s spokeState) ended() bool { return s.kept.SpokeID == s.live.SpokeID && s.kept.Ended }

// anew says why a revoked spoke may register again, or nothing: a merged manifest has to have asked for it. The hub's agent
// approves it only as the manifest says.
func (s spokeState) anew() string {
	switch {
	case s.live.Status != revoked:
		return ""
	case s.may == s.live.SpokeID:
		return "registerAgainAfter names it"
	case s.ended():
		return "the manifest says approved again"
	case s.word.Again && s.word.SpokeID == s.live.SpokeID:
		return "the hub's agent ended it as merged manifests said, which declare it"
	case len(s.differences()) > 0:
		return "the manifest says otherwise now: " + strings.Join(s.differences(), "; ")
	}
	return ""
}

// tokenReason says why another token than the kept one is to be taken, or nothing.
func (s spokeState) tokenReason() string {
	_, reason := s.token()
	return reason
}

// token gives the token that is to be taken, and why; nil when the kept one stays. The hub shows the oldest one that
// lives, so a later one than ours means that ours does not live any more; of an earlier one the hub was asked whether it
// still knows ours. What the hub's agent hands over is later and ours still good: services take it over without a gap.
func (s spokeState) token() (*issued, string) {
	if s.live.Status != approved {
		return nil, ""
	}
	lost := s.dead[s.kept.Token]
	if w := s.word; w.Token != "" && !s.dead[w.Token] && w.Token != s.kept.Token && s.now.Before(w.ExpiresAt) && (lost || w.ExpiresAt.After(s.kept.ExpiresAt)) {
		return &issued{Token: w.Token, ExpiresAt: w.ExpiresAt}, "the hub's agent handed over a new one, good until " + w.ExpiresAt.UTC().Format(time.RFC3339)
	}
	theirs := s.live.Token
	switch {
	case theirs == nil || theirs.Token == "" || theirs.Token == s.kept.Token:
		return nil, ""
	case s.kept.Token == "":
		return theirs, "none is kept yet"
	case lost:
		return theirs, "the hub does not know the one before any more"
	case !s.now.Before(s.kept.ExpiresAt):
		return theirs, "expired at " + s.kept.ExpiresAt.UTC().Format(time.RFC3339)
	case theirs.ExpiresAt.After(s.kept.ExpiresAt):
		return theirs, "the hub made a new one, good until " + theirs.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return nil, ""
}

// hindrance is what keeps the spoke from being in the federation as its manifest says, though nothing can be changed
// from here.
func (s spokeState) hindrance(hub string, spec *SpokeSpec) error {
	if _, needed := s.change(); needed {
		return nil
	}
	if s.want.standing != approved {
		if s.live == nil || s.live.Status == s.want.standing || s.live.Status == revoked {
			return nil // as declared
		}
		return &reconcilers.WaitError{
			For: "the hub to have it " + s.want.standing, Err: fmt.Errorf("it has %s as %s", s.live.SpokeID, s.live.Status),
		}
	}
	switch s.live.Status {
	case revoked:
		return &reconcilers.BlockedError{
			Reason: "SpokeRevoked", Message: fmt.Sprintf("the hub has revoked %s", s.live.SpokeID),
			Do: fmt.Sprintf("If the spoke is to register anew, merge registerAgainAfter: %s", s.live.SpokeID),
		}
	case suspended:
		if s.word.Objection != "" {
			return &reconcilers.BlockedError{
				Reason: "SpokeSuspended", Message: fmt.Sprintf("the hub has suspended %s, which is not what the manifest says: %s", s.live.SpokeID, s.word.Objection),
				Do: "Somebody else may have registered this code: " + s.wayOut(spec),
			}
		}
		return &reconcilers.BlockedError{
			Reason: "SpokeSuspended", Message: fmt.Sprintf("the hub has suspended %s", s.live.SpokeID),
			Do: "Ask the hub's operators. What runs keeps running, without a token.",
		}
	}
	lines := s.differences()
	if s.live.Status == pending && s.word.Objection != "" {
		lines = []string{s.word.Objection} // the hub's agent sees all of the record
	}
	if len(lines) > 0 {
		return s.differs(lines, spec)
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

// differs is that of a record that is not as the manifest says.
func (s spokeState) differs(lines []string, spec *SpokeSpec) error {
	do := "The hub keeps a record as it was first made. The plan of the hub's instance has it revoked, and waits for approval: after that it registers anew by itself. Or put the manifest back."
	switch {
	case s.kept.Found:
		do = "Somebody registered this code before. If it was nobody of yours: " + s.wayOut(spec)
	case s.live.Status == pending:
		do = "The hub keeps a record as it was first made: put the manifest back, or " + s.wayOut(spec)
	}
	return &reconcilers.BlockedError{
		Reason: "RecordDiffers", Message: fmt.Sprintf("the record %s differs from the manifest: %s", s.live.SpokeID, strings.Join(lines, "; ")), Do: do,
	}
}

// wayOut has the record make room for this spoke's own. The hub's agent tells a spoke that listens that it may register anew.
func (s spokeState) wayOut(spec *SpokeSpec) string {
	if spec.Handover.IsZero() {
		return fmt.Sprintf("merge revoke: [%s] in the hub's instance and registerAgainAfter: %[1]s here.", s.live.SpokeID)
	}
	return fmt.Sprintf("merge revoke: [%s] in the hub's instance; this spoke registers anew by itself then.", s.live.SpokeID)
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
	if s.want.standing != "" && s.want.standing != approved {
		f.Notes = append(f.Notes, "the manifest says standing: "+s.want.standing)
	}
	f.Values["spokeId"], f.Values["status"] = id, status
	if s.kept.Token != "" && (s.live == nil || status == approved) {
		f.Values["tokenExpires"] = s.kept.ExpiresAt.UTC().Format(time.RFC3339)
	}
	if s.kept.Found {
		f.Notes = append(f.Notes, "the record was there before this agent registered: only the hub's side can compare its URLs")
	}
	f.Notes = append(f.Notes, s.differences()...)
	return f
}

// freshFor is how long after its registration a pending spoke asks more often, and the hub's agent after a merge that declares
// one: neither needs longer where both are well.
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

// with is the state with what the hub says now.
func (s spokeState) with(live *registered) spokeState {
	s.live = live
	return s
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
	case s.want.standing != approved:
		if live == nil || live.Status != revoked {
			return nil
		}
		next.SpokeID, next.Status, next.Found, next.Ended = live.SpokeID, revoked, false, true // what runs keeps its token, which is dead
	case live == nil, live.Status == revoked && s.with(live).anew() != "", live.Status != suspended && live.Status != revoked && live.SpokeID != s.kept.SpokeID:
		answer, err := client.register(ctx, s.want)
		if err != nil {
			return client.policy(err)
		}
		next = kept{
			SpokeID: answer.SpokeID, Status: answer.Status, Sent: s.want.fields, HubName: answer.Name,
			Found: live != nil && live.SpokeID == answer.SpokeID,
		}
		next.take(answer.Token)
		if next.OPAL = s.kept.OPAL; answer.opal != nil {
			next.OPAL = answer.opal.Token
		} else if answer.SpokeID != s.kept.SpokeID {
			next.OPAL = ""
		}
	case live.Status == approved:
		next.Status = approved
		token, _ := s.with(live).token()
		next.take(token)
	default:
		return nil // suspended or revoked meanwhile: the look that follows says so
	}
	return next.write(t.Dir)
}
