package mongo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// A connection between members can end at another server than the one that it is meant for: where containers were killed and
// started, the engine gives one the former address of another, and what was being opened to that address ends there. Without
// TLS a server does not look whom it reached, and heartbeats keep the connection for good. Then what members say of each other
// and what they say of themselves do not agree. dropConnections (manual, "Database Commands") makes a server look the names up
// anew: on 4.4.2, 5.0.4 and 6.0.5 they agree within half a second at heartbeats of 300 ms.

// renewEvery is how long a member's connections are left alone after they were closed: there are other causes, which it does
// not end.
const renewEvery = 2 * time.Minute

// crossing is a member whose connections seem to end at other servers than they are meant for.
type crossing struct {
	from string
	why  string
	due  bool // its connections are to be made anew now
}

// crossings lists the members whose word and the others' have not agreed for longer than a heartbeat may take: the primary
// has one for what it says it is not, or one does not know the primary. A member that just does not answer says nothing.
func (s *session) crossings(st status, c config, seen []sighting) []crossing {
	var list []crossing
	primary := primaryHost(st)
	for _, one := range seen {
		m, known := st.member(one.member.host)
		if !known || m.Host == primary {
			continue
		}
		from, why := s.crossed(m, primary, one)
		trouble := s.component + "/crossed/" + m.Host
		if _, wanted := s.want.member(from); why == "" || !wanted {
			s.r.overcome(trouble)
			continue
		}
		if s.r.deps.Clock.Now().Sub(s.r.firstSeen(trouble)) > crossedLimit(c) {
			first := !slices.ContainsFunc(list, func(other crossing) bool { return other.from == from })
			list = append(list, crossing{from, why, first && s.renewedFor(from) >= renewEvery})
		}
	}
	return list
}

// crossed says which member's connections may be meant for one server and end at another, by what the primary says of a
// member (as hearMembers leaves it) and what that one says itself; empty: the two agree.
func (s *session) crossed(m memberStatus, primary string, one sighting) (from, why string) {
	serves := one.answers() && one.hello.serves(s.want.set)
	stopped := one.member.local() && !one.found
	switch {
	case m.refusesKey() || !one.answers() && !stopped:
		return "", ""
	case serves && m.Health != 1:
		return primary, fmt.Sprintf("%s serves, but the primary %s does not reach it", m.Host, primary)
	case serves && !m.serves():
		return primary, fmt.Sprintf("%s serves, but the primary %s has it for %s", m.Host, primary, m.StateName)
	case !serves && m.State == stateUnknown && m.Health == 1:
		return primary, fmt.Sprintf("%s does not serve, but the primary %s says that it does", m.Host, primary)
	case serves && !one.hello.Arbiter && one.hello.Primary != primary: // an arbiter lets no administrator in
		return m.Host, fmt.Sprintf("%s serves, but does not know the primary %s", m.Host, primary)
	}
	return "", ""
}

// crossedLimit is how long members may say different things of each other without a fault: a frozen one is missed when the
// time for a heartbeat is over, 10 s unless the configuration says another.
func crossedLimit(c config) time.Duration {
	seconds, _ := c.setting("heartbeatTimeoutSecs").(int)
	return max(patience, time.Duration(seconds)*time.Second+patience/3)
}

// crossedNotes tells people of members whose word and the others' do not agree, and what is done, in words that stay.
func crossedNotes(list []crossing) (notes []string) {
	for _, one := range list {
		notes = append(notes, fmt.Sprintf("%s: a connection may end at another server, and %s is made to connect anew, once in %.0f min",
			one.why, one.from, renewEvery.Minutes()))
	}
	return notes
}

// whileRenewed makes a wait of members' trouble that new connections are going to end, or have not had the time to.
func (s *session) whileRenewed(trouble error, o observation) error {
	if trouble == nil || isBlocked(trouble) {
		return trouble
	}
	due := slices.ContainsFunc(o.crossed, func(one crossing) bool { return one.due })
	fresh := slices.ContainsFunc(o.config.Members, func(m memberConfig) bool { return s.renewedFor(m.Host) < patience })
	if due || fresh {
		return &reconcilers.WaitError{For: "the members to reach each other by new connections", Again: time.Second, Err: trouble}
	}
	return trouble
}

func (p *planner) planCrossed(list []crossing) {
	for _, one := range list {
		if one.due {
			p.add(step{action: renewConnections, host: one.from}, reconcilers.Run, "connections of "+one.from,
				"made anew: "+one.why+", for longer than a heartbeat may take")
		}
	}
}

// renewConnections has a member close what it has open to the others. It opens what it needs anew, by the names; clients
// and elections do not notice. It is tried once in renewEvery, whether the member takes it or not.
func (s *session) renewConnections(ctx context.Context, host string) error {
	if s.renewedFor(host) < renewEvery {
		return nil
	}
	m, err := s.declared(host)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, ownLimit)
	defer cancel()
	s.r.renew(s.component + "/" + host)
	client, err := s.logInRoot(limited, m)
	if err != nil {
		return err
	}
	c, _, err := getConfig(limited, client, false)
	if err != nil {
		return fmt.Errorf("read the configuration of %s: %w", host, err)
	}
	return dropConnections(limited, client, host, c)
}

// renewedFor is how long ago a member's connections were made anew by this reconciler; very long: never.
func (s *session) renewedFor(host string) time.Duration {
	return s.r.deps.Clock.Now().Sub(s.r.renewedAt(s.component + "/" + host))
}

// dropConnections closes what the member has open to the others of the configuration.
func dropConnections(ctx context.Context, client *driver.Client, host string, c config) error {
	var others []string
	for _, m := range c.Members {
		if m.Host != host {
			others = append(others, m.Host)
		}
	}
	command := bson.D{{Key: "dropConnections", Value: 1}, {Key: "hostAndPort", Value: others}}
	if err := run(ctx, client, adminDatabase, command, nil); err != nil {
		return fmt.Errorf("have %s open its connections anew: %w", host, err)
	}
	return nil
}

// renewedAt is when a member's connections were last made anew by this reconciler; zero: never.
func (r *Reconciler) renewedAt(member string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.renewals[member]
}

func (r *Reconciler) renew(member string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.renewals[member] = r.deps.Clock.Now()
}
