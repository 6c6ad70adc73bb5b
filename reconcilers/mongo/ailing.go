package mongo

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A member can serve and still be no good for the others: what it says comes late, it has fallen behind, or its clock is
// off. Nothing is repaired for that; people are told of it, and no other member is restarted meanwhile.
const (
	lateLimit    = time.Second      // for the primary's heartbeats to a member, as it measures them (pingMs, smoothed)
	clockLimit   = 30 * time.Second // between clocks; elections and replication do not depend on them, dates in documents and logs do
	catchUpLimit = time.Second      // for a member to have what was written a moment ago
	idleNote     = 10 * time.Second // between two entries that a primary makes in its oplog when nobody writes (periodicNoopIntervalSecs)
)

// ailing says of each member that is no good why, in words that change by steps only: a status is news when they do.
func (s *session) ailing(ctx context.Context, st status, seen []sighting) (notes []string) {
	clocks, newest := clocksOff(seen), newestOptime(st)
	for _, m := range st.Members {
		if words := s.ails(m, newest, clocks[m.Host]); words != "" && !s.catchesUp(ctx, m, newest) {
			notes = append(notes, m.Host+" "+words)
		}
	}
	if off := clocks[thisHost]; off != 0 {
		notes = append(notes, "the clock of this host is "+clockWords(off)+" of the members'")
	}
	return notes
}

// ails says what is wrong with a member that serves; empty: nothing is.
func (s *session) ails(m memberStatus, newest time.Time, clock time.Duration) string {
	switch late := time.Duration(m.PingMs) * time.Millisecond; {
	case !m.serves():
		return "" // its state says more
	case m.State == stateSecondary && s.lag(m, newest) > lagLimit:
		return "is more than " + lagStep(s.lag(m, newest)) + " behind the primary"
	case late > lateLimit:
		return "answers the primary late: a heartbeat takes more than " + lateLimit.String()
	case clock != 0:
		return "has a clock that is " + clockWords(clock) + " of the others'"
	}
	return ""
}

// lag is how far the member is behind the newest write. One that is delayed by the manifest is allowed to miss, beside its
// delay, what a primary that nobody writes to notes.
func (s *session) lag(m memberStatus, newest time.Time) time.Duration {
	lag := newest.Sub(m.Optime)
	if delay := s.delay(m.Host); delay > 0 {
		lag -= time.Duration(delay)*time.Second + idleNote
	}
	return lag
}

// catchesUp says whether a member that seems to be behind is so no more when it is asked itself, some moments later: the
// first write after a pause makes all others seem as far behind as the pause was long.
func (s *session) catchesUp(ctx context.Context, m memberStatus, newest time.Time) bool {
	one, wanted := s.want.member(m.Host)
	if !wanted || s.lag(m, newest) <= lagLimit {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	for pause(limited, retryEvery) == nil {
		if seen := s.ask(limited, one); seen.answers() {
			m.Optime = time.Unix(int64(seen.hello.LastWrite.Optime.Time.T), 0)
			if s.lag(m, newest) <= lagLimit {
				return true
			}
		}
	}
	return false
}

// lagStep is the largest of some steps that a lag has reached.
func lagStep(lag time.Duration) string {
	steps := []struct {
		least time.Duration
		words string
	}{{24 * time.Hour, "a day"}, {time.Hour, "1 h"}, {10 * time.Minute, "10 min"}, {time.Minute, "1 min"}}
	for _, step := range steps {
		if lag >= step.least {
			return step.words
		}
	}
	return fmt.Sprintf("%.0f s", lagLimit.Seconds())
}

// thisHost stands for the agent's own clock among those of the members.
const thisHost = ""

// clocksOff gives by how much clocks are ahead (negative: behind) of most others, where that is more than clockLimit and
// more than the way of the question explains. The agent's own clock is one of those that are compared.
func clocksOff(seen []sighting) map[string]time.Duration {
	ahead := map[string]time.Duration{thisHost: 0}
	unsure := map[string]time.Duration{}
	all := []time.Duration{0}
	for _, one := range seen {
		if one.answers() && !one.hello.LocalTime.IsZero() {
			ahead[one.member.host], unsure[one.member.host] = one.ahead, one.trip/2
			all = append(all, one.ahead)
		}
	}
	slices.Sort(all)
	most := min(max(0, all[(len(all)-1)/2]), all[len(all)/2]) // the middle; where it lies between two, the agent's own if it may be
	off := map[string]time.Duration{}
	for host, by := range ahead {
		if by -= most; by.Abs() > clockLimit+unsure[host] {
			off[host] = by
		}
	}
	return off
}

func clockWords(off time.Duration) string {
	word := "ahead"
	if off < 0 {
		word = "behind"
	}
	switch by := off.Abs(); {
	case by < 2*time.Minute:
		return fmt.Sprintf("%.0f s %s", by.Seconds(), word)
	case by < 2*time.Hour:
		return fmt.Sprintf("%.0f min %s", by.Minutes(), word)
	default:
		return fmt.Sprintf("%.0f h %s", by.Hours(), word)
	}
}
