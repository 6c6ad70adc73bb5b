package report

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Set is a replica set as a whole.
type Set struct {
	Component string `json:"component" yaml:"component"`
	Name      string `json:"name" yaml:"name"`
	FCV       string `json:"featureCompatibilityVersion,omitempty" yaml:"featureCompatibilityVersion,omitempty"`
	// Term counts the elections; Elected and Reason, the server's word, are of the last one.
	Term    int64     `json:"term,omitempty" yaml:"term,omitempty"`
	Elected time.Time `json:"elected,omitzero" yaml:"elected,omitempty"`
	Reason  string    `json:"reason,omitempty" yaml:"reason,omitempty"`
	// Oplog is its window: how long a member may be away and still catch up. No news by itself.
	Oplog time.Duration `json:"oplogNs,omitempty" yaml:"oplog,omitempty"`
	// TLS is how the primary takes connections and logins of members, the server's words; empty where the manifest has no TLS.
	TLS string `json:"tls,omitempty" yaml:"tls,omitempty"`
}

// Member is one member of a replica set.
type Member struct {
	Component string `json:"component" yaml:"component"`
	Host      string `json:"host" yaml:"host"`
	// On is the host whose agent runs it, where that is another one than the instance's.
	On     string `json:"on,omitempty" yaml:"on,omitempty"`
	State  string `json:"state" yaml:"state"`
	Health bool   `json:"health" yaml:"health"`
	// Lag is how far it is behind the primary beyond Delay; news only when it grows or shrinks much.
	Lag      time.Duration `json:"lagNs" yaml:"lag"`
	Priority float64       `json:"priority" yaml:"priority"`
	Votes    int           `json:"votes" yaml:"votes"`
	Hidden   bool          `json:"hidden,omitempty" yaml:"hidden,omitempty"`
	Arbiter  bool          `json:"arbiter,omitempty" yaml:"arbiter,omitempty"`
	Delay    time.Duration `json:"delayNs,omitempty" yaml:"delay,omitempty"`
	Version  string        `json:"version,omitempty" yaml:"version,omitempty"`
	Started  time.Time     `json:"started,omitzero" yaml:"started,omitempty"`
	// Trouble is since when it does not serve; zero: it does.
	Trouble time.Time `json:"trouble,omitzero" yaml:"trouble,omitempty"`
	// Certificate is until when the member's is valid; zero without TLS.
	Certificate time.Time `json:"certificate,omitzero" yaml:"certificate,omitempty"`
}

// Serves says whether the member does what it is for.
func (m Member) Serves() bool {
	return m.Health && (m.State == "PRIMARY" || m.State == "SECONDARY" || m.State == "ARBITER")
}

// StateWord is the server's word, or "away" where it says that the member is not reachable.
func (m Member) StateWord() string {
	if !m.Health {
		return "away"
	}
	return clean(m.State)
}

// LagWord is the lag of a member that can have one.
func (m Member) LagWord() string {
	if !m.Health || m.State != "SECONDARY" {
		return ""
	}
	return age(m.Lag)
}

// Traits are what sets a member apart from one of this host with data that serves clients: "on usa-b", "hidden", "delayed 1 h".
func (m Member) Traits() (traits []string) {
	if m.On != "" {
		traits = append(traits, "on "+clean(m.On))
	}
	if m.Arbiter && m.State != "ARBITER" {
		traits = append(traits, "arbiter")
	}
	if m.Hidden {
		traits = append(traits, "hidden")
	}
	if m.Delay > 0 {
		traits = append(traits, "delayed "+age(m.Delay))
	}
	return traits
}

// electionReasons are the server's words that need no look into the manual (replSetGetStatus, lastElectionReason).
var electionReasons = map[string]string{
	"electionTimeout": "no primary was seen", "priorityTakeover": "higher priority", "catchupTakeover": "ahead of the others",
	"stepUpRequest": "handed over", "stepUpRequestSkipDryRun": "handed over", "singleNodePromptElection": "alone in the set",
}

// certificatesEnd is when the first of the members' certificates ends; zero without TLS.
func certificatesEnd(members []Member) (first time.Time) {
	for _, m := range members {
		if !m.Certificate.IsZero() && (first.IsZero() || m.Certificate.Before(first)) {
			first = m.Certificate
		}
	}
	return first
}

// Words tell the set in parts: version, TLS, last election, oplog. elected says when that was.
func (v Set) Words(elected string) (parts []string) {
	if v.FCV != "" {
		parts = append(parts, "compatibility "+clean(v.FCV))
	}
	if v.TLS != "" {
		parts = append(parts, clean(v.TLS))
	}
	if v.Term > 0 {
		parts = append(parts, fmt.Sprintf("term %d", v.Term))
	}
	if !v.Elected.IsZero() {
		reason := cmp.Or(electionReasons[v.Reason], clean(v.Reason))
		parts = append(parts, strings.TrimSuffix("elected "+elected+" ("+reason+")", " ()"))
	}
	switch {
	case v.Oplog > 0 && v.Oplog < time.Hour:
		parts = append(parts, "oplog under 1 h")
	case v.Oplog > 0:
		parts = append(parts, "oplog "+age(v.Oplog))
	}
	return parts
}

// hostWidth is how much of a member's name a table shows when the width is not told.
const hostWidth = 60

// textMembers writes a table for each replica set. With a width of 80 or more no row is longer: what does not fit goes on
// in a row below.
func (s *Status) textMembers(b *strings.Builder, o TextOptions) {
	for i, m := range s.Members {
		if i > 0 && s.Members[i-1].Component == m.Component {
			continue
		}
		var of []Member
		for _, other := range s.Members {
			if other.Component == m.Component {
				of = append(of, other)
			}
		}
		s.textSet(b, m.Component, of, o)
	}
}

func (s *Status) textSet(b *strings.Builder, component string, members []Member, o TextOptions) {
	rows := [][]string{{"member", "state", "lag", "priority", "votes", "version", "up"}}
	notes := []string{""}
	for _, m := range members {
		up := ""
		if m.Health && !m.Started.IsZero() {
			up = age(o.Now.Sub(m.Started))
		}
		rows = append(rows, []string{
			clean(m.Host), m.StateWord(), m.LagWord(), fmt.Sprint(m.Priority), fmt.Sprint(m.Votes), clean(m.Version), up,
		})
		note := m.Traits()
		if !m.Trouble.IsZero() {
			note = append(note, "in trouble for "+age(o.Now.Sub(m.Trouble)))
		}
		notes = append(notes, strings.Join(note, ", "))
	}
	b.WriteString("\n")
	for _, v := range s.Sets {
		if words := v.Words(age(o.Now.Sub(v.Elected)) + " ago"); v.Component == component && len(words) > 0 {
			if end := certificatesEnd(members); !end.IsZero() {
				words = append(words, "certificates until "+end.UTC().Format(time.DateOnly))
			}
			head := clean(component) + ", " + clean(v.Name) + ": " + strings.Join(words, ", ")
			for _, part := range broken(head, o.Width-2) {
				b.WriteString("  " + part + "\n")
			}
		}
	}
	widths := columnWidths(rows, o.Width)
	for i, row := range rows {
		line := "  "
		for j, cell := range row {
			line += pad(cut(cell, widths[j]), widths[j]) + "  "
		}
		line = strings.TrimRight(line, " ")
		color := ""
		if i > 0 && !members[i-1].Serves() {
			color = red
		}
		if notes[i] != "" {
			full := sum(widths) + 2*len(widths) + 2
			if o.Width == 0 || full+utf8.RuneCountInString(notes[i]) <= o.Width {
				line = pad(line, full) + notes[i]
			} else {
				line += "\n    " + cut(notes[i], max(20, o.Width-4))
			}
		}
		b.WriteString(paint(line, color, o.Color) + "\n")
	}
}

// columnWidths gives each column the width of its widest cell; the first one, the names, what is left of the whole.
func columnWidths(rows [][]string, width int) []int {
	widths := make([]int, len(rows[0]))
	for j := range widths {
		for _, row := range rows {
			widths[j] = max(widths[j], utf8.RuneCountInString(row[j]))
		}
	}
	most := hostWidth
	if width > 0 {
		most = max(12, width-2-sum(widths[1:])-2*(len(widths)-1))
	}
	widths[0] = min(widths[0], most)
	return widths
}

func sum(all []int) (total int) {
	for _, n := range all {
		total += n
	}
	return total
}

// pageMembers is the same for the page, with moments in place of ages.
func (s *Status) pageMembers(b *strings.Builder) {
	var sets [][]string
	for _, v := range s.Sets {
		sets = append(sets, []string{escape(v.Component), escape(v.Name), escape(strings.Join(v.Words(moment(v.Elected)), ", "))})
	}
	table(b, "Replica sets", []string{"Component", "Set", "Seen"}, sets)
	var rows [][]string
	for _, m := range s.Members {
		state := "done"
		if !m.Serves() {
			state = "failed"
		}
		notes := m.Traits()
		if !m.Trouble.IsZero() {
			notes = append(notes, "in trouble since "+moment(m.Trouble))
		}
		if !m.Certificate.IsZero() {
			notes = append(notes, "certificate until "+moment(m.Certificate))
		}
		started := ""
		if !m.Started.IsZero() {
			started = moment(m.Started)
		}
		rows = append(rows, []string{
			sign(state) + " " + escape(m.Host), escape(m.State), m.LagWord(), fmt.Sprint(m.Priority), fmt.Sprint(m.Votes), escape(m.Version),
			started, escape(strings.Join(notes, ", ")),
		})
	}
	table(b, "Members of the replica set", []string{"Member", "State", "Lag", "Priority", "Votes", "Version", "Started", "Notes"}, rows)
}

// lagStep is a lag as far as it is news: what comes and goes with each look is none.
func lagStep(lag time.Duration) time.Duration {
	for _, step := range []time.Duration{24 * time.Hour, time.Hour, 10 * time.Minute, time.Minute, 10 * time.Second} {
		if lag >= step {
			return step
		}
	}
	return 0
}
