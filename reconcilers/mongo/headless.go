package mongo

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/reconcilers"
)

const (
	calmTime    = 300 * time.Millisecond // no member's view changes for so long: no election is under way
	standLimit  = 5 * time.Second        // for a member to become electable
	settledTime = stepDownSeconds * time.Second
)

// observeHeadless tells of a set without a primary what its members say.
func (s *session) observeHeadless(ctx context.Context, o reconcilers.Observed, seen []sighting, cause error) (reconcilers.Observed, error) {
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	since := s.r.deps.Clock.Now().Sub(s.r.firstSeen(s.component))
	for _, one := range seen {
		if !one.answers() || one.hello.SetName != s.want.set {
			continue
		}
		client, isRoot, err := s.enter(ctx, one.member)
		if isBlocked(err) {
			return o, err
		}
		if err != nil || !isRoot {
			continue
		}
		st, err := getStatus(ctx, client)
		if err != nil {
			continue
		}
		c, _, err := getConfig(ctx, client, false)
		if err != nil {
			continue
		}
		if err := s.recognise(one.member.host, c); err != nil {
			return o, err
		}
		o.Facts = s.facts(st, c, seen)
		if reachable, needed := majority(st, c); reachable < needed && since > majorityWait {
			order, why := s.orderedForce(ctx)
			if order != nil {
				o.State = observation{want: s.want, phase: headless, config: c, force: order}
			}
			return o, s.lostMajority(st, c, reachable, needed, why)
		}
		heir, err := s.heir(ctx, c)
		if err != nil {
			return o, err
		}
		if m, ours := s.want.member(heir); ours && m.local() { // another one's agent sees the same
			o.State = observation{want: s.want, phase: headless, config: c, heir: heir}
		}
		break
	}
	if o.Facts.Summary == "" {
		o.Facts.Summary = s.want.set + " without a primary"
	}
	return o, &reconcilers.WaitError{For: "a primary of " + s.want.set, Again: time.Second, Err: cause}
}

// heir names the member that should stand for election: the newest of those that may be primary, by priority where two
// are equal. It is empty while the set can find its primary by itself: when a member of the configuration does not
// answer or does not serve, while an election is under way, and after a step-down that was asked for here.
func (s *session) heir(ctx context.Context, c config) (string, error) {
	if c.voters() < 2 || s.r.deps.Clock.Now().Sub(s.memory.SteppedDown) < settledTime {
		return "", nil
	}
	first, ok := s.allServe(ctx, c)
	if !ok {
		return "", ctx.Err()
	}
	if err := pause(ctx, calmTime); err != nil {
		return "", err
	}
	second, ok := s.allServe(ctx, c)
	if !ok {
		return "", ctx.Err()
	}
	var best memberConfig
	for _, m := range c.Members {
		if first[m.Host].Version == nil || second[m.Host].Version == nil || *first[m.Host].Version != *second[m.Host].Version {
			return "", nil
		}
		at, most := second[m.Host].LastWrite.Optime.Time, second[best.Host].LastWrite.Optime.Time
		if m.shape().electable() && (best.Host == "" || at.After(most) || at.Equal(most) && m.Priority > best.Priority) {
			best = m
		}
	}
	return best.Host, nil
}

// allServe asks every member of the configuration; false when one is silent, does not serve, or is primary.
func (s *session) allServe(ctx context.Context, c config) (map[string]hello, bool) {
	words := map[string]hello{}
	for _, one := range s.look(ctx) {
		words[one.member.host] = one.hello
	}
	for _, m := range c.Members {
		if h := words[m.Host]; h.IsWritablePrimary || !h.serves(s.want.set) {
			return nil, false
		}
	}
	return words, true
}

// standForElection has a member become primary, unless there is one or a member went away meanwhile.
func (s *session) standForElection(ctx context.Context, host string) error {
	m, err := s.declared(host)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, standLimit)
	defer cancel()
	client, _, err := s.enter(limited, m)
	if err != nil {
		return err
	}
	c, _, err := getConfig(limited, client, false)
	if err != nil {
		return fmt.Errorf("read the configuration of %s: %w", host, err)
	}
	if lasts := s.r.deps.Clock.Now().Sub(s.r.firstSeen(s.component)); lasts > patience && s.renewedFor(host) >= renewEvery {
		s.r.renew(s.component + "/" + host) // the votes it asks for may go to other servers
		if err := dropConnections(limited, client, host, c); err != nil {
			return err
		}
	}
	for {
		if _, ok := s.allServe(limited, c); !ok {
			break // the set goes on without help, or must not be helped
		}
		if err = run(limited, client, adminDatabase, bson.D{{Key: "replSetStepUp", Value: 1}}, nil); err == nil || !isPassing(err) {
			break
		}
		if pause(limited, retryEvery) != nil {
			break
		}
	}
	if err != nil && !isPassing(err) {
		return fmt.Errorf("let %s stand for election: %w", host, err)
	}
	_, err = s.primary(ctx)
	return err
}
