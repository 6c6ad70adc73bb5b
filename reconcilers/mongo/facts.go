package mongo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// majority counts the voters that the asked member reaches, and how many an election needs.
func majority(st status, c config) (reachable, needed int) {
	for _, m := range c.Members {
		if seen, ok := st.member(m.Host); ok && seen.Health == 1 {
			reachable += m.Votes
		}
	}
	return reachable, c.voters()/2 + 1
}

// facts tells of the set and its members, as the member that gave the status and the configuration sees them.
func (s *session) facts(st status, c config, seen []sighting) reconcilers.Facts {
	primary := primaryHost(st)
	newest := newestOptime(st)
	f := reconcilers.Facts{
		Values: map[string]any{"replicaSetId": c.setID(), "configVersion": c.Version},
		Set:    &reconcilers.SetFacts{Name: s.want.set, Term: st.Term, Elected: st.Election.Date, Reason: st.Election.Reason},
	}
	serving := 0
	for _, m := range st.Members {
		wanted, _ := s.want.member(m.Host)
		fact := reconcilers.MemberFacts{Host: m.Host, On: wanted.on, State: m.StateName, Health: m.Health == 1, Trouble: s.troubledSince(m)}
		if i, there := c.member(m.Host); there {
			is := c.Members[i].shape()
			fact.Priority, fact.Votes, fact.Hidden, fact.Arbiter, fact.Delay = is.priority, is.votes, is.hidden, is.arbiter, time.Duration(is.delay)*time.Second
		}
		if m.State == stateSecondary {
			fact.Lag = max(0, newest.Sub(m.Optime)-fact.Delay)
		}
		if m.Health == 1 {
			fact.Started = s.r.deps.Clock.Now().Add(-time.Duration(m.Uptime) * time.Second).Truncate(time.Minute)
		}
		for _, one := range seen {
			if one.member.host == m.Host && one.tls {
				heard, _ := s.r.heard(s.component+"/"+m.Host, one.place.identity())
				fact.Certificate = heard.ends
			}
			if one.member.host == m.Host && one.answers() {
				fact.Version, fact.Started = one.version, one.place.container.StartedAt.Truncate(time.Second)
			}
		}
		if m.serves() {
			serving++
		}
		f.Members = append(f.Members, fact)
	}
	switch total := len(st.Members); {
	case primary == "":
		f.Summary = fmt.Sprintf("%s without a primary, %d of %d members", s.want.set, serving, total)
	case serving < total:
		f.Summary = fmt.Sprintf("%s PRIMARY, %d of %d members", s.want.set, serving, total)
	case total > 1:
		f.Summary = fmt.Sprintf("%s PRIMARY, %d members", s.want.set, total)
	default:
		f.Summary = s.want.set + " PRIMARY"
	}
	return f
}

// troubledSince is when the member was last heard of, or when its trouble was first seen here; zero while it serves.
func (s *session) troubledSince(m memberStatus) time.Time {
	trouble := "any of " + s.component + "/" + m.Host // beside the one of being away, which has a limit
	if m.serves() {
		s.r.overcome(trouble)
		return time.Time{}
	}
	since := s.r.firstSeen(trouble)
	if m.Health != 1 && m.Heard.Unix() > 0 && m.Heard.Before(since) {
		since = m.Heard
	}
	return since.UTC().Truncate(time.Second)
}

// newestOptime is the primary's, or the newest of all while there is none.
func newestOptime(st status) (newest time.Time) {
	primary := primaryHost(st)
	for _, m := range st.Members {
		if m.Host == primary || primary == "" && m.Optime.After(newest) {
			newest = m.Optime
		}
	}
	return newest
}

// oplogWindow is the time from the first entry of the oplog to the newest write: a member that was away for longer
// has to copy everything anew. 0 when it cannot be read.
func oplogWindow(ctx context.Context, client *driver.Client, newest time.Time) time.Duration {
	first := oplogBegin(ctx, client)
	if first.IsZero() {
		return 0
	}
	return max(0, newest.Sub(time.Unix(int64(first.T), 0)))
}

func primaryHost(st status) string {
	for _, m := range st.Members {
		if m.State == statePrimary && m.Health == 1 {
			return m.Host
		}
	}
	return ""
}

func awayHosts(st status) map[string]bool {
	away := map[string]bool{}
	for _, m := range st.Members {
		away[m.Host] = m.Health != 1
	}
	return away
}

// hearMembers lets what members say themselves count beside the primary's word, which is late by up to a heartbeat, and
// of a frozen member by ten seconds: one that does not say that it serves is in an unknown state. Members of other hosts
// may be out of this one's reach, so that their silence says nothing.
func (s *session) hearMembers(ctx context.Context, st status, seen []sighting) {
	limited, cancel := context.WithTimeout(ctx, ownLimit)
	defer cancel()
	var all sync.WaitGroup
	for i := range st.Members {
		m := &st.Members[i]
		at := slices.IndexFunc(seen, func(one sighting) bool { return one.member.host == m.Host })
		if at < 0 || !m.serves() || m.State == statePrimary {
			continue
		}
		all.Go(func() {
			one := seen[at]
			if !one.answers() { // within the little time that it was given beside the others
				one = s.ask(limited, one.member)
			}
			silent := !one.answers() && one.member.local() && !isBlocked(one.err)
			if silent || one.answers() && !one.hello.serves(s.want.set) {
				m.State, m.StateName = stateUnknown, "UNKNOWN"
			}
		})
	}
	all.Wait()
}

// memberTrouble says which wanted member does not serve, if any.
func (s *session) memberTrouble(st status) error {
	var refused, unheard, syncing, away []string
	longAway := false
	for _, m := range st.Members {
		trouble := s.component + "/" + m.Host
		if _, wanted := s.want.member(m.Host); !wanted || m.serves() {
			s.r.overcome(trouble)
			continue
		}
		if m.refusesKey() {
			refused = append(refused, s.want.title(m.Host))
			continue
		}
		if m.State == stateUnknown && m.Health == 1 {
			unheard = append(unheard, s.want.title(m.Host))
			continue
		}
		if m.Health == 1 {
			syncing = append(syncing, s.want.title(m.Host)+" ("+m.StateName+")")
			continue
		}
		longAway = longAway || s.r.deps.Clock.Now().Sub(s.r.firstSeen(trouble)) > patience
		away = append(away, s.want.title(m.Host))
	}
	switch {
	case len(refused) > 0:
		return s.wrongKey(strings.Join(refused, ", "))
	case len(away) > 0 && longAway:
		return fmt.Errorf("the other members of %s do not reach %s. See whether its service runs and what its log says", s.want.set, strings.Join(away, ", "))
	case len(away) > 0:
		return &reconcilers.WaitError{For: "member " + strings.Join(away, ", ") + " to come back", Again: 2 * time.Second}
	case len(unheard) > 0:
		return &reconcilers.WaitError{For: "member " + strings.Join(unheard, ", ") + " to say that it serves: only the primary says so yet", Again: time.Second}
	case len(syncing) > 0:
		return &reconcilers.WaitError{For: "member " + strings.Join(syncing, ", ") + " to catch up", Again: 2 * time.Second}
	}
	return nil
}

// timeText is a time for people.
func timeText(t time.Time) string { return t.UTC().Format(time.DateTime) + " UTC" }
