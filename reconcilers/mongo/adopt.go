package mongo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// othersFresh makes sure, before a set is initiated, that no other member has one: a set that is made beside the data
// of another can never be joined with it. Those in blank are known to be new. Members that did not answer are left to
// the caller. A member that takes no login has no users yet, or is looked at again before it is added.
func (s *session) othersFresh(ctx context.Context, seen []sighting, blank map[string]bool) (bool, error) {
	fresh := make([]bool, len(seen))
	errs := make([]error, len(seen))
	var all sync.WaitGroup
	for i, one := range seen {
		if fresh[i] = true; one.member.host == s.want.initial().host || !one.answers() || blank[one.member.host] {
			continue
		}
		all.Go(func() {
			client, err := s.visit(ctx, one.member)
			if isCredentials(err) {
				if name := s.foreignNameInLog(ctx, one.member); name != "" {
					errs[i] = s.foreignSet(one.member.host, name)
				}
				return
			}
			if err == nil {
				fresh[i], err = s.neverInSet(ctx, client, one.member)
			}
			s.r.pool.forget(s.visitKey(one.member)) // its users are replaced when it joins
			errs[i] = err
		})
	}
	all.Wait()
	for i, one := range seen {
		if errs[i] != nil && !isBlocked(errs[i]) {
			return false, &reconcilers.WaitError{For: one.member.host + " to say that it is in no set", Again: time.Second, Err: errs[i]}
		}
		if errs[i] != nil || !fresh[i] {
			return false, errs[i]
		}
	}
	return true, nil
}

// awaitOthers waits until every other member has answered too: their services were started before.
func (s *session) awaitOthers(ctx context.Context, first wantMember, progress reconcilers.Progress) error {
	limited, cancel := context.WithTimeout(ctx, acceptLimit)
	defer cancel()
	for _, m := range s.want.members {
		if m.host == first.host {
			continue
		}
		if _, err := s.waitUsable(limited, m, progress); err != nil {
			if isBlocked(err) || ctx.Err() != nil {
				return err
			}
			return &reconcilers.WaitError{
				For:   fmt.Sprintf("%s to answer before %s is initiated: it may hold the set's data", m.host, s.want.set),
				Again: time.Second, Err: err,
			}
		}
	}
	return nil
}

// visit logs in to a member that may not be one of the set yet, as whoever it knows.
func (s *session) visit(ctx context.Context, m wantMember) (*driver.Client, error) {
	return s.logInAny(ctx, m, s.visitKey(m).user, slices.Concat(s.rootLogins(), keyLogins(s.want.keys.all()))...)
}

func (s *session) visitKey(m wantMember) clientKey { return clientKey{s.component, m.host, "visit"} }

// sameSet sorts out the members that answer as ones of the set and are of another with its name: such sets are never
// made one by losing one of them. It asks only where there is a doubt: two primaries, two members with one name, or a
// name that the primary's configuration does not know.
func (s *session) sameSet(ctx context.Context, primary wantMember, c config, seen []sighting) ([]sighting, error) {
	me := ""
	for _, one := range seen {
		if one.member.host == primary.host {
			me = one.hello.Me
		}
	}
	var same []sighting
	for _, one := range seen {
		h := one.hello
		if _, known := c.member(h.Me); one.member.host == primary.host || !one.answers() || h.SetName == "" ||
			known && !h.IsWritablePrimary && h.Me != me {
			same = append(same, one)
			continue
		}
		client, err := s.visit(ctx, one.member)
		var own config
		if err == nil {
			own, _, err = getConfig(ctx, client, false)
		}
		s.r.pool.forget(s.visitKey(one.member))
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil: // whoever it is, nothing is planned from its word
		case own.setID() != c.setID():
			return nil, &reconcilers.BlockedError{
				Reason: "TwoReplicaSets",
				Message: fmt.Sprintf("%s and %s are in two replica sets that are both named %s (%s with %d members, %s with %d): they cannot be made one without losing the data of one",
					primary.host, one.member.host, s.want.set, c.setID(), len(c.Members), own.setID(), len(own.Members)),
				Do: "Decide which one to keep, save what is needed of the other, and empty the volume of the other's member: it then joins by itself",
			}
		default:
			same = append(same, one)
		}
	}
	return same, nil
}

// lostWhileOthersStart tells an emptied member from a lost set: as long as another member does not answer, that one may
// have the data. lost is what the emptied member means otherwise.
func (s *session) lostWhileOthersStart(seen []sighting, lost error) error {
	for _, one := range seen {
		trouble := s.component + "/silent/" + one.member.host
		if one.answers() {
			s.r.overcome(trouble)
			continue
		}
		if s.r.deps.Clock.Now().Sub(s.r.firstSeen(trouble)) < patience {
			return &reconcilers.WaitError{For: one.member.host + " to answer: another member is empty", Again: time.Second, Err: errors.Join(lost, one.err)}
		}
	}
	return lost
}
