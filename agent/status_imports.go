package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/report"
)

// importsHealth is what is wrong with where an instance's imports come from.
type importsHealth struct {
	any     bool           // it imports something
	refused []importHealth // branches of which what they hold does not count
	old     []importHealth // of which nothing new is known
}

type importHealth struct{ reason, message, do string }

// importsHealth looks at the neighbours that an instance imports from.
func (a *Agent) importsHealth(instance *desired.Instance, now time.Time) (h importsHealth) {
	var seen []string
	for _, i := range instance.Imports() {
		h.any = true
		if slices.Contains(seen, i.Instance) {
			continue
		}
		seen = append(seen, i.Instance)
		n := a.neighbour(i.Instance)
		switch {
		case n.refused != nil:
			h.refused = append(h.refused, importHealth{string(n.refused.Reason), fmt.Sprintf("the status of %s is refused: %s; %s", i.Instance, n.refused.Message, n.usedOn()), n.refused.Do})
		case n.err != nil:
			h.old = append(h.old, importHealth{"Unreadable", fmt.Sprintf("the status of %s cannot be read: %v; %s", i.Instance, n.err, n.usedOn()), ""})
		case n.isStale(now):
			h.old = append(h.old, importHealth{
				"Stale", fmt.Sprintf("nothing was heard of the agent of %s since %s; %s", i.Instance, minute(n.taken.Committed), n.usedOn()),
				fmt.Sprintf("look at the agent on %s; it writes to status/%s every %s", n.taken.Host, i.Instance, "15 min"),
			})
		}
	}
	a.peers.mu.Lock()
	defer a.peers.mu.Unlock()
	if h.any && a.peers.unread != nil {
		h.old = []importHealth{{"GitUnreachable", fmt.Sprintf("the status branches of other instances cannot be read since %s: %v; what was read before is used on", minute(a.peers.since), a.peers.unread), ""}}
	}
	return h
}

// usedOn says what is used while nothing new counts.
func (n *neighbour) usedOn() string {
	if n.document == nil {
		return "nothing of it was read before"
	}
	return fmt.Sprintf("what was read before, generation %d of %s, is used on", n.document.Generation, minute(n.taken.Committed))
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// importsAndExports states whether what others publish counts and is of the present, and whether this instance publishes all that
// it is to publish. What runs is not touched by either.
func (s situation) importsAndExports(st *report.Status) {
	if s.imports.any {
		s.stateImports(st, report.Condition{Type: "ImportsVerified"}, s.imports.refused)
		s.stateImports(st, report.Condition{Type: "ImportsCurrent", DependsOn: []string{"SourceFollowed"}}, s.imports.old)
	}
	if len(s.exports) > 0 {
		texts := make([]string, len(s.exports))
		for i, text := range s.exports {
			texts[i] = s.redact(text)
		}
		st.Conditions = append(st.Conditions, report.Condition{Type: "OutputsPublished", Reason: "NotAll", Message: strings.Join(texts, "; ")})
		st.Why = add(st.Why, texts...)
	}
}

func (s situation) stateImports(st *report.Status, c report.Condition, troubles []importHealth) {
	c.Status = len(troubles) == 0
	hidden := s.source.Err != "" && slices.Contains(c.DependsOn, "SourceFollowed")
	var messages []string
	for _, t := range troubles {
		message := s.redact(t.message)
		messages = append(messages, message)
		if c.Reason == "" {
			c.Reason = t.reason
		}
		if !hidden {
			st.Why, st.Next = add(st.Why, message), add(st.Next, t.do)
		}
	}
	c.Message = strings.Join(messages, "; ")
	st.Conditions = append(st.Conditions, c)
}
