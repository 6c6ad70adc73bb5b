package mongo

import (
	"fmt"
	"strings"
	"time"

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

func (s *session) facts(st status, c config, version string) reconcilers.Facts {
	primary := primaryHost(st)
	newest := time.Time{}
	for _, m := range st.Members {
		if m.Host == primary || primary == "" && m.Optime.After(newest) {
			newest = m.Optime
		}
	}
	f := reconcilers.Facts{Values: map[string]any{"replicaSetId": c.setID(), "configVersion": c.Version}}
	if version != "" {
		f.Values["version"] = version
	}
	serving := 0
	for _, m := range st.Members {
		fact := reconcilers.MemberFacts{Host: m.Host, State: m.StateName, Health: m.Health == 1}
		if m.State == stateSecondary && m.Optime.Before(newest) {
			fact.Lag = newest.Sub(m.Optime)
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

// memberTrouble says which wanted member does not serve, if any.
func (s *session) memberTrouble(st status) error {
	var refused, syncing, away []string
	longAway := false
	for _, m := range st.Members {
		trouble := s.component + "/" + m.Host
		if _, wanted := s.want.member(m.Host); !wanted || m.serves() {
			s.r.overcome(trouble)
			continue
		}
		if m.refusesKey() {
			refused = append(refused, m.Host)
			continue
		}
		if m.Health == 1 {
			syncing = append(syncing, m.Host+" ("+m.StateName+")")
			continue
		}
		longAway = longAway || s.r.deps.Clock.Now().Sub(s.r.firstSeen(trouble)) > patience
		away = append(away, m.Host)
	}
	switch {
	case len(refused) > 0:
		return s.wrongKey(strings.Join(refused, ", "))
	case len(away) > 0 && longAway:
		return fmt.Errorf("the other members of %s do not reach %s. See whether its service runs and what its log says", s.want.set, strings.Join(away, ", "))
	case len(away) > 0:
		return &reconcilers.WaitError{For: "member " + strings.Join(away, ", ") + " to come back", Again: 2 * time.Second}
	case len(syncing) > 0:
		return &reconcilers.WaitError{For: "member " + strings.Join(syncing, ", ") + " to catch up", Again: 2 * time.Second}
	}
	return nil
}
