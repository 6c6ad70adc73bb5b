package registration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dive-agent/atomicfile"
	"dive-agent/reconcilers"
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
}

func readGiven(dir string) (given, error) {
	file := filepath.Join(dir, givenFile)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return given{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was granted: %w", err)
	}
	g := given{}
	if json.Unmarshal(data, &g) == nil {
		return g, nil
	}
	if err := os.Rename(file, file+".corrupt"); err != nil {
		return nil, fmt.Errorf("put %s aside, which is no JSON: %w", file, err)
	}
	return given{}, nil
}

func remember(dir, id string, g grantGiven) error {
	all, err := readGiven(dir)
	if err != nil {
		return err
	}
	all[id] = g
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if _, err := atomicfile.Write(filepath.Join(dir, givenFile), append(data, '\n'), atomicfile.Options{Mode: 0o600}); err != nil {
		return fmt.Errorf("keep what was granted: %w", err)
	}
	return nil
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
	switch v.act {
	case doApprove:
		return r.approve(ctx, client, t, v)
	case doRegrant:
		return r.regrant(ctx, client, t, v)
	case doSuspend:
		return r.hold(ctx, client, v.record.SpokeID, suspended, v.reason, client.suspend)
	default:
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
	asked := client.approve(ctx, v.record.SpokeID, v.want.grant)
	now, err := client.spoke(ctx, v.record.SpokeID)
	if err != nil {
		return client.policy(errors.Join(asked, err))
	}
	switch {
	case now.Status == approved && now.grant().equal(v.want.grant):
		return remember(t.Dir, now.SpokeID, grantGiven{Grant: v.want.grant})
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
		if err := remember(t.Dir, v.record.SpokeID, grantGiven{Grant: v.record.grant(), Changing: true}); err != nil {
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
