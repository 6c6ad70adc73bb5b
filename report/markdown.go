package report

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"dive-agent/gitremote"
)

// Page is the status as README.md of a status branch: for people, on a forge.
// Whatever containers said in it is shown as they said it and cannot be a link,
// a picture, HTML or another row.
func (s *Status) Page() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: %s%s\n\n", escape(s.Instance), s.Phase, s.sinceWords())
	s.pageHead(&b)
	bullets(&b, "Why", s.Why)
	bullets(&b, "What to do", s.Next)
	if len(s.Logs) > 0 {
		b.WriteString("**Last words**\n\n")
		block(&b, s.Logs)
	}
	s.pagePlans(&b)
	s.pageConditions(&b)
	s.pageComponents(&b)
	s.pageServices(&b)
	s.pageMembers(&b)
	s.pageSpokes(&b)
	s.pageChecks(&b)
	s.pageRuns(&b)
	s.pageGraph(&b)
	fmt.Fprintf(&b, "---\nGeneration %d, written %s by the agent on %s. For programs: status.yaml.\n",
		s.Generation, moment(s.Updated), escape(s.Host))
	return []byte(b.String())
}

func (s *Status) sinceWords() string {
	if s.Since.IsZero() {
		return ""
	}
	return " since " + moment(s.Since)
}

func (s *Status) pageHead(b *strings.Builder) {
	var parts []string
	switch {
	case s.Applied == "" && s.Attempted != "":
		parts = append(parts, "on the way to "+code(gitremote.Short(s.Attempted))+", nothing applied yet")
	case s.Attempted != s.Applied && s.Attempted != "":
		parts = append(parts, "attempted "+code(gitremote.Short(s.Attempted)), "applied "+code(gitremote.Short(s.Applied)))
	case s.Applied != "":
		parts = append(parts, "at "+code(gitremote.Short(s.Applied)))
	}
	if s.Subject != "" {
		parts = append(parts, "“"+escape(cut(clean(s.Subject), 120))+"”")
	}
	if s.Role != "" {
		parts = append(parts, escape(s.Role))
	}
	parts = append(parts, "host "+escape(s.Host))
	b.WriteString(strings.Join(parts, " · ") + "\n\n")
}

func (s *Status) pageConditions(b *strings.Builder) {
	var rows [][]string
	for _, c := range s.Visible() {
		rows = append(rows, []string{escape(c.Type), escape(c.Reason), escape(c.Message), moment(c.Since)})
	}
	table(b, "What does not hold", []string{"Condition", "Reason", "Message", "Since"}, rows)
}

// pageComponents escapes whatever came from outside: names, messages and facts must not change the page.
func (s *Status) pageComponents(b *strings.Builder) {
	if !s.Seen.IsZero() {
		fmt.Fprintf(b, "What follows was seen %s, and not looked at since.\n\n", moment(s.Seen))
	}
	var rows [][]string
	for _, c := range s.Components {
		seen := c.Summary
		if c.Message != "" {
			seen = join(seen, c.Message)
		}
		plan := "in sync"
		if len(c.Plan) > 0 {
			plan = strings.Join(escapeAll(c.Plan), "<br>")
		}
		rows = append(rows, []string{sign(c.State) + " " + escape(c.Name), escape(c.Kind), escape(c.State), escape(seen), plan})
	}
	table(b, "Components", []string{"Component", "Kind", "State", "Seen", "Plan"}, rows)
	var facts [][]string
	for _, c := range s.Components {
		for _, name := range slices.Sorted(maps.Keys(c.Values)) {
			facts = append(facts, []string{escape(c.Name), escape(name), escape(fmt.Sprint(c.Values[name]))})
		}
		for _, note := range c.Notes {
			facts = append(facts, []string{escape(c.Name), "note", escape(note)})
		}
	}
	table(b, "Facts", []string{"Component", "Fact", "Value"}, facts)
}

func (s *Status) pageServices(b *strings.Builder) {
	var rows [][]string
	for _, v := range s.Services {
		rows = append(rows, []string{
			sign(serviceState(v)) + " " + escape(v.Name), escape(v.words()), code(v.Image), code(shortDigest(v.Digest)),
		})
	}
	table(b, "Services", []string{"Service", "State", "Image", "Digest"}, rows)
}

// words is the state of a service in a few words.
func (v Service) words() string {
	words := v.State
	if v.Health != "" {
		words += ", " + v.Health
	}
	if v.State != "running" && v.ExitCode != 0 {
		words += fmt.Sprintf(", exit code %d", v.ExitCode)
	}
	if v.Restarts > 0 {
		words += fmt.Sprintf(", %d restarts", v.Restarts)
	}
	return words
}

func serviceState(v Service) string {
	switch {
	case v.State == "running" && (v.Health == "healthy" || v.Health == ""), v.State == "exited" && v.ExitCode == 0:
		return "done"
	case v.Health == "starting":
		return "working"
	}
	return "failed"
}

func shortDigest(digest string) string {
	algorithm, sum, ok := strings.Cut(digest, ":")
	if !ok || len(sum) <= 12 {
		return digest
	}
	return algorithm + ":" + sum[:12]
}

func (s *Status) pageChecks(b *strings.Builder) {
	var rows [][]string
	for _, c := range s.Checks {
		mark, word := c.Verdict()
		looked := ""
		if !c.At.IsZero() {
			looked = c.At.UTC().Format("2006-01-02 15:04:05")
		}
		rows = append(rows, []string{mark + " " + escape(c.Name), word, escape(c.Saw), looked})
	}
	table(b, "Checks", []string{"Check", "Result", "Seen", "Made at (UTC)"}, rows)
}

// Verdict is the result as a sign and as a word: passed, failed, or warning.
func (c Check) Verdict() (mark, word string) {
	switch {
	case c.Passed:
		return sign("done"), "passed"
	case c.Warns():
		return "!", "warning"
	}
	return sign("failed"), "failed"
}

// sign is what a state looks like in one character.
func sign(state string) string {
	switch state {
	case "done":
		return "✓"
	case "failed", "rejected":
		return "✗"
	case "blocked":
		return "!"
	case "working":
		return "◐"
	}
	return "·"
}

func table(b *strings.Builder, title string, head []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "## %s\n\n| %s |\n|%s\n", title, strings.Join(head, " | "), strings.Repeat(" --- |", len(head)))
	for _, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
	b.WriteString("\n")
}

func bullets(b *strings.Builder, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "**%s**\n\n", title)
	for _, line := range lines {
		fmt.Fprintf(b, "- %s\n", escapeLine(line))
	}
	b.WriteString("\n")
}

// block writes lines as they are, in a fence that they cannot close.
func block(b *strings.Builder, lines []string) {
	b.WriteString("```text\n")
	for _, line := range bounded(lines) {
		b.WriteString(strings.ReplaceAll(line, "```", "'''") + "\n")
	}
	b.WriteString("```\n\n")
}

// shownLines and shownWidth bound what a page or a terminal shows of a log: the
// end of it, where the cause stands.
const (
	shownLines = 40
	shownWidth = 300
)

// bounded gives the last lines of a log, each fit to be shown.
func bounded(texts []string) (lines []string) {
	for _, text := range texts {
		for line := range strings.Lines(text) {
			lines = append(lines, line)
		}
	}
	lines = lines[max(0, len(lines)-shownLines):]
	for i, line := range lines {
		lines[i] = cut(verbatim(line), shownWidth)
	}
	return lines
}

// verbatim is clean for text whose spaces matter.
func verbatim(line string) string {
	line = strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", "    ")
	indent := len(line) - len(strings.TrimLeft(line, " "))
	var b strings.Builder
	for i, field := range strings.Split(line[indent:], " ") {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(clean(field))
	}
	return line[:indent] + strings.TrimRight(b.String(), " ")
}

var (
	special = regexp.MustCompile("[\\\\`*_\\[\\]<|~&#$@]")
	links   = regexp.MustCompile(`(?i)(://|www\.)`)
	numbers = regexp.MustCompile(`^([0-9]+)([.)])`)
	leading = regexp.MustCompile(`^([-+=:>])`)
)

// Escape makes one line of untrusted text show as it is inside of a paragraph
// or a table of Markdown.
func Escape(text string) string { return escape(text) }

// Code is a text in Markdown's code style; empty for an empty one.
func Code(text string) string { return code(text) }

func escape(text string) string {
	text = special.ReplaceAllString(clean(text), `\$0`)
	return links.ReplaceAllStringFunc(text, func(s string) string {
		if s == "://" {
			return `\://`
		}
		return s[:3] + `\.`
	})
}

// escapeLine is escape for text that begins a line or an item of a list.
func escapeLine(text string) string {
	text = numbers.ReplaceAllString(escape(text), `$1\$2`)
	return leading.ReplaceAllString(text, `\$1`)
}

func escapeAll(texts []string) []string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = escape(t)
	}
	return out
}

func code(text string) string {
	text = strings.NewReplacer("`", "'", "|", "¦").Replace(clean(text))
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
