package story

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-isatty"

	"dive-agent/report"
)

// result is one promise and what was seen of it.
type result struct {
	what, promised, seen string
	kept                 bool
}

func (w *world) saw(what, promised string, bar, took time.Duration) {
	w.results = append(w.results, result{what, promised, fmt.Sprintf("%.1f s", took.Seconds()), took <= bar})
}

func (w *world) sawText(what, promised, seen string) {
	w.results = append(w.results, result{what, promised, seen, true})
}

// sawNode reads how long a node's first change took from the recorded runs.
func (w *world) sawNode(s *report.Status, node, what, promised string, bar time.Duration) {
	var from, to time.Time
	for _, run := range s.Runs {
		for _, step := range run.Steps {
			if step.Node != node {
				continue
			}
			if end := step.Started.Add(step.Duration); end.After(to) {
				to = end
			}
			if from.IsZero() || step.Started.Before(from) {
				from = step.Started
			}
		}
	}
	if from.IsZero() {
		w.results = append(w.results, result{what, promised, "no step recorded", false})
		return
	}
	w.saw(what, promised, bar, to.Sub(from))
}

// table prints what was promised and seen; a promise that was not kept fails the demo.
func (w *world) table() error {
	heading("Promised and seen")
	broken := 0
	fmt.Printf("  %s %s %s\n", pad("what", 62), pad("promised", 30), "seen")
	for _, r := range w.results {
		sign := "✓"
		if !r.kept {
			sign = "✗"
			broken++
		}
		fmt.Printf("%s %s %s %s\n", sign, pad(r.what, 62), pad(r.promised, 30), r.seen)
	}
	if broken > 0 {
		return fmt.Errorf("%d of %d promises were not kept", broken, len(w.results))
	}
	return nil
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func heading(text string) {
	if isatty.IsTerminal(os.Stdout.Fd()) && os.Getenv("NO_COLOR") == "" {
		fmt.Printf("\n\x1b[1m%s\x1b[0m\n\n", text)
		return
	}
	fmt.Printf("\n== %s\n\n", text)
}

func note(format string, args ...any) {
	fmt.Printf("  %s\n", fmt.Sprintf(format, args...))
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ") + "\n"
}
