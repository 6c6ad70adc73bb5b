package registration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"dive-agent/reconcilers"
	"dive-agent/reconcilers/internal/jsonfile"
)

// A heartbeat that was on its way writes back the whole record as it was, and so can undo a suspension or a revocation.
// It takes under 50 ms; the record is read again after settleAfter, and the call repeated until it holds.
const (
	settleAfter = 500 * time.Millisecond
	holdTries   = 5
)

const givenFile = "grants.json"

// given is what this agent granted, by spoke id. It tells a grant that a manifest has lowered from one that somebody else
// has raised. Without it (it was lost), a record that holds more than its manifest is suspended.
type given map[string]grantGiven

type grantGiven struct {
	Grant    grant `json:"grant"`
	Changing bool  `json:"changing,omitempty"` // suspended by this agent, on the way to another grant

	Instance string `json:"instance,omitempty"` // whose manifest it was granted to
	Standing string `json:"standing,omitempty"` // suspended: by this agent, since the manifest said so
	Ended    bool   `json:"ended,omitempty"`    // revoked by this agent, since merged manifests said so
}

func readGiven(dir string) (given, error) {
	g, err := jsonfile.Read[given](filepath.Join(dir, givenFile), "read what was granted")
	if g == nil {
		g = given{}
	}
	return g, err
}

func (r *Approvals) remember(dir, id string, g grantGiven) error {
	r.kept.Lock()
	defer r.kept.Unlock()
	all, err := readGiven(dir)
	if err != nil {
		return err
	}
	all[id] = g
	return all.write(dir)
}

func (g given) write(dir string) error {
	return jsonfile.Write(filepath.Join(dir, givenFile), "keep what was granted", g)
}

// adopt remembers as granted what somebody else approved and is as a merged manifest says: when that goes, it is revoked.
// What is declared and not revoked was not ended, whatever was about to be done when it was written: who revokes it from now
// on is somebody else.
func adopt(dir string, all given, verdicts []verdict) error {
	found := false
	for _, v := range verdicts {
		r := v.record
		if v.want.instance == "" || r.Status == revoked || v.ends {
			continue
		}
		if mine := all[r.SpokeID]; mine.Ended {
			mine.Ended = false
			all[r.SpokeID], found = mine, true
		}
		if r.Status == approved && v.act == leave && all[r.SpokeID].Instance != v.want.instance {
			all[r.SpokeID], found = grantGiven{Grant: r.grant(), Instance: v.want.instance}, true
		}
	}
	if !found {
		return nil
	}
	return all.write(dir)
}

// carryOut does what a verdict says, if the record is still the one that was judged. Each call has its own limit, so that
// a change that has begun ends; the record is checked after each call.
func (r *Approvals) carryOut(ctx context.Context, client *hubClient, t reconcilers.Target, v verdict) error {
	now, err := client.spoke(ctx, v.record.SpokeID)
	if err != nil {
		return client.policy(err)
	}
	if !sameRecord(now, v.record) {
		return &reconcilers.WaitError{
			For: "the record of " + shown(v.record.Code) + " to be judged anew", Again: time.Second,
			Err: errors.New("it changed since the plan was made"),
		}
	}
	if v.act == doToken {
		return r.mint(ctx, client, t, v)
	}
	if err := mintedTokens.keep(&r.kept, t.Dir, v.record.SpokeID, nil); err != nil { // each of these ends the tokens that were
		return err
	}
	if !v.staysOrGetsApproved() {
		if err := opalTokens.keep(&r.kept, t.Dir, v.record.SpokeID, nil); err != nil {
			return err
		}
	}
	switch v.act {
	case doApprove:
		return r.approve(ctx, client, t, v)
	case doRegrant:
		return r.regrant(ctx, client, t, v)
	case doRelease:
		return r.approve(ctx, client, t, v)
	case doSuspend:
		if v.want.standing == suspended {
			if err := r.remember(t.Dir, v.record.SpokeID, grantGiven{Grant: v.record.grant(), Instance: v.want.instance, Standing: suspended}); err != nil {
				return err
			}
		}
		return r.hold(ctx, client, v.record.SpokeID, suspended, v.reason, client.suspend)
	default:
		if v.ends {
			if err := r.remember(t.Dir, v.record.SpokeID, grantGiven{Grant: v.record.grant(), Instance: v.of, Ended: true}); err != nil {
				return err
			}
		}
		return r.hold(ctx, client, v.record.SpokeID, revoked, v.reason, client.revoke)
	}
}

// sameRecord says whether everything that a verdict rests on is as it was.
func sameRecord(a, b *record) bool {
	if a.Status != b.Status || a.Code != b.Code || !a.grant().equal(b.grant()) {
		return false
	}
	for _, name := range []string{"name", "description", "baseUrl", "apiUrl", "idpUrl", "idpPublicUrl", "contactEmail", "publicKey", "certificatePEM"} {
		was, had := b.has(name)
		is, has := a.has(name)
		if was != is || had != has {
			return false
		}
	}
	return true
}

// approve grants exactly what the manifest declares. Whatever the hub answers, and when it does not within the limit, the
// record tells what happened.
func (r *Approvals) approve(ctx context.Context, client *hubClient, t reconcilers.Target, v verdict) error {
	opal, asked := client.approve(ctx, v.record.SpokeID, v.want.grant)
	if err := r.takeOPALToken(t, v.record.SpokeID, opal); err != nil {
		return err
	}
	now, err := client.spoke(ctx, v.record.SpokeID)
	if err != nil {
		return client.policy(errors.Join(asked, err))
	}
	switch {
	case now.Status == approved && now.grant().equal(v.want.grant):
		err := r.remember(t.Dir, now.SpokeID, grantGiven{Grant: v.want.grant, Instance: v.want.instance})
		if err != nil || !v.listens {
			return err
		}
		return r.mint(ctx, client, t, v)
	case now.Status == approved:
		return fmt.Errorf("%s was approved with %s where the manifest grants %s", now.SpokeID, now.grant(), v.want.grant)
	case asked != nil:
		return client.policy(asked)
	}
	return fmt.Errorf("the hub answered that %s is approved, and its record is %s", now.SpokeID, now.Status)
}

// regrant changes what an approved spoke holds: the hub can only suspend and approve anew, which ends its tokens. What is
// under way is remembered first, so that a run that stops between the two is finished by the next.
func (r *Approvals) regrant(ctx context.Context, client *hubClient, t reconcilers.Target, v verdict) error {
	if v.record.Status == approved {
		if err := r.remember(t.Dir, v.record.SpokeID, grantGiven{Grant: v.record.grant(), Changing: true, Instance: v.want.instance}); err != nil {
			return err
		}
		if err := r.hold(ctx, client, v.record.SpokeID, suspended, "the grant changes with the merged manifest", client.suspend); err != nil {
			return err
		}
	}
	return r.approve(ctx, client, t, v)
}

// hold brings a record to a state and sees that it stays there.
func (r *Approvals) hold(ctx context.Context, client *hubClient, id, state, reason string, call func(context.Context, string, string) error) error {
	var last error
	for range holdTries {
		asked := call(ctx, id, reason) // may go on for long on the hub: the record tells
		held, err := r.holds(ctx, client, id, state)
		switch {
		case err != nil:
			last = errors.Join(asked, err)
		case held:
			return nil
		case asked != nil:
			last = asked
		default:
			last = fmt.Errorf("%s did not stay %s: a heartbeat wrote its old record back", id, state)
		}
	}
	return client.policy(last)
}

// holds says whether the record is in the state, now and after a heartbeat that was on its way has ended.
func (r *Approvals) holds(ctx context.Context, client *hubClient, id, state string) (bool, error) {
	for look := range 2 {
		if look > 0 {
			<-r.deps.Clock.After(settleAfter)
		}
		now, err := client.spoke(ctx, id)
		if err != nil || now.Status != state {
			return false, err
		}
	}
	return true, nil
}
