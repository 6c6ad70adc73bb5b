package mongo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// A member that lacks more than the oplog of the one that it copies from has is too stale for it, and stays RECOVERING for
// ever (manual, "Resync a Member of a Replica Set"). The oplog of another member may reach back further: after an initial
// sync it begins with that, and without chaining the primary alone is asked. Such a member is made to copy from one that
// has what it lacks; where there is none, only an initial sync is left, which wipes it and so is for a person.
const staleLimit = 30 * time.Second // for a member that was given another source to say that it is not too stale any more

// staleMember is a member that cannot catch up from whom it copies.
type staleMember struct {
	host string
	from string // member that has what it lacks; empty: nobody
}

// staleMembers looks at those that are RECOVERING by the primary's word. Who cannot be asked is not stale.
func (s *session) staleMembers(ctx context.Context, st status) (list []staleMember) {
	for _, m := range st.Members {
		member, wanted := s.want.member(m.Host)
		if !wanted || m.State != stateRecovering || m.Health != 1 {
			continue
		}
		if has, stale := s.tooStale(ctx, member); stale {
			list = append(list, staleMember{m.Host, s.reachesBack(ctx, st, has)})
		}
	}
	return list
}

// tooStale says by the member's own word whether it is, and the newest entry that it has.
func (s *session) tooStale(ctx context.Context, m wantMember) (has bson.Timestamp, stale bool) {
	client, err := s.logInRoot(ctx, m)
	if err != nil {
		return has, false
	}
	st, err := getStatus(ctx, client)
	if err != nil || !st.TooStale {
		return has, false
	}
	return s.ask(ctx, m).hello.LastWrite.Optime.Time, true
}

// staleNow ends the wait for a member that does not get there by itself.
func (s *session) staleNow(ctx context.Context, m wantMember) error {
	if _, stale := s.tooStale(ctx, m); !stale {
		return nil
	}
	var list []staleMember
	err := s.onPrimary(ctx, func(client *driver.Client) error {
		st, err := getStatus(ctx, client)
		list = s.staleMembers(ctx, st)
		return err
	})
	if err == nil {
		err = s.staleTrouble(list)
	}
	if err == nil {
		err = &reconcilers.WaitError{For: "another member for " + m.host + " to copy from, which is too stale for its source", Again: retryEvery}
	}
	return err
}

// reachesBack gives a member whose oplog begins before an entry; empty when there is none.
func (s *session) reachesBack(ctx context.Context, st status, entry bson.Timestamp) string {
	for _, m := range st.Members {
		member, wanted := s.want.member(m.Host)
		if !wanted || member.arbiter || member.delay > 0 || !m.serves() {
			continue
		}
		client, err := s.logInRoot(ctx, member)
		if err != nil {
			continue
		}
		if first := oplogBegin(ctx, client); !first.IsZero() && !first.After(entry) {
			return m.Host
		}
	}
	return ""
}

// staleTrouble tells of members that only an initial sync helps.
func (s *session) staleTrouble(list []staleMember) error {
	var hosts []string
	for _, one := range list {
		if one.from == "" {
			hosts = append(hosts, s.want.title(one.host))
		}
	}
	if len(hosts) == 0 {
		return nil
	}
	return &reconcilers.BlockedError{
		Reason:  "MemberTooStale",
		Message: fmt.Sprintf("%s was away for longer than the oplog of any other member reaches back, and cannot catch up", strings.Join(hosts, ", ")),
		Do:      "Stop it, empty its volume and start it: it copies all data anew from the others",
	}
}

func (p *planner) planStale(list []staleMember) {
	for _, one := range list {
		if one.from != "" {
			p.add(step{action: copyFrom, host: one.host, was: one.from}, reconcilers.Run, "source of "+one.host,
				"copies from "+one.from+" for now: whom it would copy from has no longer what it lacks")
		}
	}
}

// copyFrom gives a member that is too stale another source, and waits until it copies. It may go back to its former source
// before it has what it lacks; then it is nearer to it by so much, and is given the other one again.
func (s *session) copyFrom(ctx context.Context, host, from string) error {
	m, err := s.declared(host)
	if err != nil {
		return err
	}
	client, err := s.logInRoot(ctx, m)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, staleLimit)
	defer cancel()
	for asked := false; ; asked = true {
		st, err := getStatus(limited, client)
		if err == nil && !st.TooStale {
			return nil
		}
		if err == nil && !asked {
			err = run(limited, client, adminDatabase, bson.D{{Key: "replSetSyncFrom", Value: from}}, nil)
		}
		if err == nil {
			err = pause(limited, retryEvery)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return &reconcilers.WaitError{For: "member " + host + " to copy from " + from, Again: time.Second, Err: err}
		}
	}
}

// oplogBegin is the first entry of a member's oplog, one read whatever its size; zero when it cannot be read.
func oplogBegin(ctx context.Context, client *driver.Client) bson.Timestamp {
	var answer struct {
		Cursor struct {
			First []struct {
				Time bson.Timestamp `bson:"ts"`
			} `bson:"firstBatch"`
		} `bson:"cursor"`
	}
	command := bson.D{
		{Key: "find", Value: "oplog.rs"},
		{Key: "sort", Value: bson.D{{Key: "$natural", Value: 1}}},
		{Key: "limit", Value: 1},
		{Key: "singleBatch", Value: true},
		{Key: "projection", Value: bson.D{{Key: "ts", Value: 1}}},
	}
	if err := run(ctx, client, "local", command, &answer); err != nil || len(answer.Cursor.First) == 0 {
		return bson.Timestamp{}
	}
	return answer.Cursor.First[0].Time
}
