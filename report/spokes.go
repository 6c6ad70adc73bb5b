package report

import (
	"strings"
	"time"
)

// Spoke is one record of the hub's federation service.
type Spoke struct {
	Code string `json:"code" yaml:"code"`
	// Instance is whose manifest declares it; empty: none does.
	Instance string `json:"instance,omitempty" yaml:"instance,omitempty"`
	ID       string `json:"spokeId" yaml:"spokeId"`
	// State is pending, approved, suspended or revoked.
	State string    `json:"state" yaml:"state"`
	Since time.Time `json:"since,omitzero" yaml:"since,omitempty"`
	// Alive is what the heartbeats of an approved one say: online, late or silent.
	Alive string `json:"alive,omitempty" yaml:"alive,omitempty"`
	// Heartbeat is the last one; no news by itself.
	Heartbeat time.Time `json:"heartbeat,omitzero" yaml:"heartbeat,omitempty"`
	// Token and Certificate are until when they are good; zero: not known here.
	Token       time.Time `json:"token,omitzero" yaml:"token,omitempty"`
	Certificate time.Time `json:"certificate,omitzero" yaml:"certificate,omitempty"`
	// Revision is what the instance says to have applied, in its own status, which its host signed; empty: none was read.
	Revision string `json:"revision,omitempty" yaml:"revision,omitempty"`
}

var spokesHead = []string{"Spoke", "State", "Since", "Last heartbeat", "Token until", "Certificate until", "Revision", "Instance", "Id"}

// pageSpokes is the hub's table of all spokes.
func (s *Status) pageSpokes(b *strings.Builder) {
	var rows [][]string
	for _, v := range s.Spokes {
		rows = append(rows, []string{
			sign(v.sign()) + " " + escape(v.Code), escape(v.words()), momentOrNone(v.Since), momentOrNone(v.Heartbeat), momentOrNone(v.Token),
			momentOrNone(v.Certificate), shortRevision(v.Revision), escape(v.Instance), escape(v.ID),
		})
	}
	table(b, "Spokes", spokesHead, rows)
}

// textSpokes is the same for a terminal, with ages in place of moments.
func (s *Status) textSpokes(b *strings.Builder, o TextOptions) {
	if len(s.Spokes) == 0 {
		return
	}
	rows := [][]string{{"SPOKE", "STATE", "FOR", "HEARTBEAT", "TOKEN", "CERTIFICATE", "REVISION", "INSTANCE"}}
	left := func(end time.Time) string {
		switch {
		case end.IsZero():
			return ""
		case end.Before(o.Now):
			return "ended"
		}
		return "for " + age(end.Sub(o.Now))
	}
	since := func(t time.Time, after string) string {
		if t.IsZero() {
			return ""
		}
		return age(o.Now.Sub(t)) + after
	}
	for _, v := range s.Spokes {
		rows = append(rows, []string{clean(v.Code), v.words(), since(v.Since, ""), since(v.Heartbeat, " ago"), left(v.Token), left(v.Certificate), shortRevision(v.Revision), clean(v.Instance)})
	}
	b.WriteString("\n")
	widths := columnWidths(rows, o.Width)
	for i, row := range rows {
		line := "  "
		for j, cell := range row {
			line += pad(cut(cell, widths[j]), widths[j]) + "  "
		}
		color := ""
		if i > 0 && s.Spokes[i-1].sign() == "failed" {
			color = red
		}
		b.WriteString(paint(strings.TrimRight(line, " "), color, o.Color) + "\n")
	}
}

// shortRevision is a revision as people read it: one that an agent wrote, or nothing.
func shortRevision(revision string) string {
	if !isRevision(revision) {
		return ""
	}
	return revision[:7]
}

func (v Spoke) words() string {
	if v.Alive == "" {
		return clean(v.State)
	}
	return clean(v.State) + ", " + clean(v.Alive)
}

func (v Spoke) sign() string {
	switch {
	case v.State == "approved" && v.Alive == "online":
		return "done"
	case v.State == "approved" && v.Alive == "silent":
		return "failed"
	case v.State == "suspended", v.State == "revoked" && v.Instance != "":
		return "blocked"
	}
	return "pending"
}

func momentOrNone(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return moment(t)
}

// isRevision says whether a text is the name of a commit.
func isRevision(text string) bool {
	return (len(text) == 40 || len(text) == 64) && strings.Trim(text, "0123456789abcdef") == ""
}
