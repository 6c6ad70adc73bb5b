package agent

import (
	"fmt"
	"strings"

	"dive-agent/report"
	"dive-agent/secrets"
)

// reasonNotFound is that of an instance that cannot start, as a secret was never had from where it comes.
const reasonNotFound = "SecretNotFound" // blockedBySecrets

// tellSecrets tells of secrets that are new, and of those that have another value where they come from. Names and generations
// alone.
func (r *round) tellSecrets(found secrets.Result) {
	if len(found.Made) > 0 {
		r.emit(Event{Kind: "secrets", Message: fmt.Sprintf("%d made", len(found.Made)), Run: r.record.id})
		r.log.Info("secrets made", "count", len(found.Made), "names", found.Made, "run", r.record.id)
	}
	if len(found.Renewed) > 0 {
		message := "new value where it comes from: " + strings.Join(found.Renewed, ", ")
		r.emit(Event{Kind: "secrets", Message: message, Run: r.record.id})
		r.log.Info("secrets have new values where they come from", "names", found.Renewed, "run", r.record.id)
	}
	if len(found.Rotated) > 0 {
		r.emit(Event{Kind: "secrets", Message: "made anew, as it is time: " + strings.Join(found.Rotated, ", "), Run: r.record.id})
		r.log.Info("secrets made anew, as it is time", "names", found.Rotated, "run", r.record.id)
	}
	r.see(func(v *view) { v.Sources = found.Troubles })
}

// sourcesOfSecrets says which secrets cannot be had where they come from, since when and why: what runs keeps their last
// values. An instance that never had one is Blocked, and says that itself.
func (s situation) sourcesOfSecrets(st *report.Status) {
	if len(s.secrets) == 0 || s.rests() {
		return
	}
	c := report.Condition{Type: "SecretsFollowed", Reason: "SourceFailed", Since: s.secrets[0].Since}
	var messages []string
	for _, t := range s.secrets {
		if t.Since.Before(c.Since) {
			c.Since = t.Since
		}
		message := s.redact(fmt.Sprintf("secret %s cannot be had from %s since %s, its last value (generation %d) stays in use: %s",
			t.Name, t.From, t.Since.UTC().Format("2006-01-02 15:04 UTC"), t.Generation, t.Why))
		messages = append(messages, message)
		st.Why, st.Next = add(st.Why, message), add(st.Next, s.redact(t.Do))
	}
	c.Message = strings.Join(messages, "; ")
	st.Conditions = append(st.Conditions, c)
}
