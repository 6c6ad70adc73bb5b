package keycloak

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// tally is how far one apply is, by Terraform's own messages and the times in them. It is for one goroutine.
type tally struct {
	all     int // resources that it changes
	done    int
	began   time.Time
	now     time.Time            // of the last message
	said    time.Time            // when it was told last
	since   map[string]time.Time // what is under way
	slowest []timed              // of those that ended, the longest first
}

// timed is how long a resource took.
type timed struct {
	Address string        `json:"address"`
	Took    time.Duration `json:"took"`
}

// keptSlowest is how many of the slowest resources are remembered.
const keptSlowest = 3

// hear takes up a message, and says whether people should be told: what begins always, what ends now and then.
func (t *tally) hear(m message, closed bool) (tell bool) {
	t.now = m.Time
	if t.began.IsZero() {
		t.began, t.since = m.Time, map[string]time.Time{}
	}
	address := m.Hook.Resource.Addr
	switch m.Type {
	case "apply_start":
		if _, replaced := t.since[address]; !replaced {
			t.since[address] = m.Time
		}
		tell = true
	case "apply_progress":
		tell = true
	case "apply_complete", "apply_errored":
		if !closed {
			return false // the first half of a replacement
		}
		t.slowest = longest(append(t.slowest, timed{address, m.Time.Sub(t.since[address])}))
		delete(t.since, address)
		if m.Type == "apply_complete" {
			t.done++
		}
		tell = m.Time.Sub(t.said) > 200*time.Millisecond
	}
	if tell {
		t.said = m.Time
	}
	return tell
}

func longest(all []timed) []timed {
	slices.SortFunc(all, func(a, b timed) int { return int(b.Took - a.Took) })
	return all[:min(len(all), keptSlowest)]
}

// words are "12 of 131 in 4 s: create keycloak_role.x; slowest keycloak_realm.this 2.1 s".
func (t *tally) words(m message) string {
	text := fmt.Sprintf("%d of %d in %s", t.done, t.all, seconds(t.now.Sub(t.began)))
	if m.Type != "apply_complete" {
		text += ": " + m.Hook.Action + " " + m.Hook.Resource.Addr
	}
	all := slices.Clone(t.slowest)
	for address, since := range t.since {
		all = append(all, timed{address, t.now.Sub(since)})
	}
	if slow := slowWords(longest(all)); slow != "" {
		text += "; slowest " + slow
	}
	return text
}

// slowWords names the resources that took half a second and more.
func slowWords(all []timed) string {
	var parts []string
	for _, one := range all {
		if one.Took >= 500*time.Millisecond {
			parts = append(parts, one.Address+" "+seconds(one.Took))
		}
	}
	return strings.Join(parts, ", ")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// lastApply is what is remembered of the last apply that came to its end.
type lastApply struct {
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took"`
	Changes string        `json:"changes"` // "6 created, 1 updated"
	Slowest []timed       `json:"slowest,omitempty"`
}

// tell adds to the facts when something was applied last, what, and how long it took.
func (a *lastApply) tell(values map[string]any) {
	if a == nil {
		return
	}
	values["applied"], values["appliedChanges"], values["applyTook"] = a.At.UTC().Format(time.RFC3339), a.Changes, seconds(a.Took)
	if slow := slowWords(a.Slowest); slow != "" {
		values["applySlowest"] = slow
	}
}
