package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dive-agent/gitremote"
)

// TextOptions say how a status is shown on a terminal.
type TextOptions struct {
	// Now is the time of reading, for "for 4 min".
	Now time.Time
	// Color allows colours.
	Color bool
	// Width is of the terminal, in characters: longer lines are broken between words. 0: none is.
	Width int
}

// Text is the status as `dive-agent status` prints it: the news, the causes,
// the ways out, then a line for each component.
func (s *Status) Text(o TextOptions) string {
	var b strings.Builder
	s.textHead(&b, o)
	b.WriteString(s.Causes(o))
	if len(s.Why)+len(s.Next) > 0 {
		b.WriteString("\n")
	}
	if !s.Seen.IsZero() {
		fmt.Fprintf(&b, "  as seen %s ago, not looked at since:\n", age(o.Now.Sub(s.Seen)))
	}
	var names, seen []string
	for _, c := range s.Components {
		names = append(names, clean(c.Name))
		seen = append(seen, s.componentSeen(c))
	}
	nameWidth, seenWidth := widest(names), min(40, widest(seen))
	for i, c := range s.Components {
		line := "  " + pad(names[i], nameWidth) + "  " + pad(seen[i], seenWidth) + "  " + componentMore(c, o.Now)
		if o.Width > 0 {
			line = cut(line, o.Width) // the whole of what is wrong stands above
		}
		b.WriteString(paint(strings.TrimRight(line, " "), stateColor(c.State), o.Color) + "\n")
	}
	s.textMembers(&b, o)
	s.textSpokes(&b, o)
	return b.String()
}

// Lasting is how long the phase lasts: "for 4 min".
func (s *Status) Lasting(now time.Time) string {
	if s.Since.IsZero() {
		return ""
	}
	return "for " + age(now.Sub(s.Since))
}

func (s *Status) textHead(b *strings.Builder, o TextOptions) {
	head := clean(s.Instance) + "  " + paint(strings.ToUpper(string(s.Phase)), phaseColor(s.Phase), o.Color)
	if lasts := s.Lasting(o.Now); lasts != "" {
		head += " " + lasts
	}
	switch {
	case s.Applied == "" && s.Attempted != "":
		head += "   at " + gitremote.Short(s.Attempted) + " (nothing applied yet)"
	case s.Attempted != "" && s.Attempted != s.Applied:
		head += "   at " + gitremote.Short(s.Attempted) + " (applied " + gitremote.Short(s.Applied) + ")"
	case s.Applied != "":
		head += "   at " + gitremote.Short(s.Applied)
	}
	fmt.Fprintf(b, "%s   host %s\n\n", head, clean(s.Host))
}

// Causes are the causes and the ways out, as Text has them.
func (s *Status) Causes(o TextOptions) string {
	var b strings.Builder
	o.list(&b, "why", s.Why, s.Logs)
	o.list(&b, "next", s.Next, nil)
	return b.String()
}

// saidLines is how many of a container's last words a terminal shows: the way out stands below them, on the first screen.
const saidLines = 8

// list writes lines under a word; words said by containers are indented.
func (o TextOptions) list(b *strings.Builder, word string, lines, said []string) {
	for i, line := range lines {
		if i > 0 {
			word = ""
		}
		for j, part := range broken(clean(line), o.Width-8) {
			if j > 0 {
				word, part = "", "  "+part
			}
			fmt.Fprintf(b, "  %-5s %s\n", word, part)
		}
	}
	last := bounded(said)
	for _, line := range last[max(0, len(last)-saidLines):] {
		if line != "" {
			fmt.Fprintf(b, "          %s\n", line)
		}
	}
}

// componentSeen is what stands first about a component.
func (s *Status) componentSeen(c Component) string {
	if c.Summary != "" {
		return clean(c.Summary)
	}
	if c.State == "done" {
		return "in sync"
	}
	return clean(c.State)
}

// onPage are values that the page and status.yaml tell, and that nobody looks for on a first screen.
var onPage = map[string]bool{"configVersion": true, "replicaSetId": true, "registeredAt": true, "applyTook": true, "applySlowest": true}

// componentMore is the rest: what is wrong, what is planned, or what was seen.
func componentMore(c Component, now time.Time) string {
	switch {
	case c.Message != "":
		return cut(clean(c.Message), 120)
	case len(c.Plan) == 1:
		return "1 change to make: " + cut(clean(c.Plan[0]), 100)
	case len(c.Plan) > 1:
		return fmt.Sprintf("%d changes to make", len(c.Plan))
	case len(c.Notes) > 0:
		return cut(clean(c.Notes[0]), 120)
	}
	var seen []string
	for _, name := range slices.Sorted(maps.Keys(c.Values)) {
		if onPage[name] || strings.Contains(c.Summary, fmt.Sprint(c.Values[name])) {
			continue
		}
		seen = append(seen, clean(name)+" "+valueWords(c.Values[name], now))
	}
	return cut(strings.Join(seen, ", "), 120)
}

// valueWords is a plain value for people; a time is told by its distance.
func valueWords(value any, now time.Time) string {
	text := clean(fmt.Sprint(value))
	t, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		return text
	case t.After(now):
		return "in " + age(t.Sub(now))
	}
	return age(now.Sub(t)) + " ago"
}

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "34"
)

func paint(text, color string, allowed bool) string {
	if !allowed || color == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func phaseColor(p Phase) string {
	switch p {
	case Ready:
		return green
	case Degraded, Blocked:
		return red
	case Suspended, Removing, Removed:
		return yellow
	}
	return blue
}

func stateColor(state string) string {
	switch state {
	case "failed", "rejected", "blocked":
		return red
	case "working", "waiting":
		return yellow
	}
	return ""
}
