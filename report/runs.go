package report

import (
	"fmt"
	"strings"
	"time"

	"dive-agent/gitremote"
)

// shownRuns is how many runs a page tells of, shownSpans how many nodes of the
// newest one, barWidth how many characters a bar has.
const (
	shownRuns  = 10
	shownSpans = 20
	barWidth   = 30
)

func (s *Status) pageRuns(b *strings.Builder) {
	if len(s.Runs) == 0 {
		return
	}
	b.WriteString("## Last runs\n\n")
	block(b, runBars(s.Runs))
	for _, r := range s.Runs {
		if len(r.Steps) == 0 {
			continue
		}
		fmt.Fprintf(b, "Where the time went in the run of %s:\n\n", moment(r.Started))
		block(b, nodeBars(r))
		return
	}
}

// runBars is a line for each run: when, revision, outcome, how long, a bar on
// the scale of the longest, and the node that took most of it.
func runBars(runs []Run) []string {
	runs = runs[:min(len(runs), shownRuns)]
	var longest time.Duration
	for _, r := range runs {
		longest = max(longest, r.Duration)
	}
	var out []string
	for _, r := range runs {
		outcome := r.Outcome
		if outcome == "" {
			outcome = "running"
		}
		line := fmt.Sprintf("%s  %-7s  %-9s  %9s  %s", r.Started.UTC().Format("2006-01-02 15:04:05"), gitremote.Short(clean(r.Revision)),
			clean(outcome), lasting(r.Duration), pad(bar(0, r.Duration, longest), barWidth))
		switch spans := spansOf(r); {
		case r.Message != "":
			line += "  " + cut(clean(r.Message), 80)
		case len(spans) > 0:
			most := spans[0]
			for _, s := range spans {
				if s.length() > most.length() {
					most = s
				}
			}
			line += fmt.Sprintf("  most of it: %s %s", most.node, lasting(most.length()))
		}
		out = append(out, strings.TrimRight(line, " "))
	}
	return out
}

// nodeBars is a line for each node of a run, placed on the time of the run.
func nodeBars(r Run) []string {
	spans := spansOf(r)
	more := len(spans) - shownSpans
	spans = spans[:min(len(spans), shownSpans)]
	var names []string
	var end time.Duration
	for _, s := range spans {
		names = append(names, s.node)
		end = max(end, s.to)
	}
	width := widest(names)
	var out []string
	for _, s := range spans {
		out = append(out, fmt.Sprintf("%s  %9s  %s", pad(s.node, width), lasting(s.length()), bar(s.from, s.to, max(end, r.Duration))))
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return out
}

// nodeSpan is the time in which a run worked on a node, from its start.
type nodeSpan struct {
	node     string
	from, to time.Duration
}

func (s nodeSpan) length() time.Duration { return s.to - s.from }

// spansOf joins the steps of each node, in the order in which they began.
func spansOf(r Run) (spans []nodeSpan) {
	index := map[string]int{}
	for _, step := range r.Steps {
		node := clean(step.Node)
		from := max(0, step.Started.Sub(r.Started))
		to := from + max(0, step.Duration)
		at, ok := index[node]
		if !ok {
			index[node] = len(spans)
			spans = append(spans, nodeSpan{node, from, to})
			continue
		}
		spans[at].from, spans[at].to = min(spans[at].from, from), max(spans[at].to, to)
	}
	return spans
}

// bar is a stretch of blocks from one moment to another of a whole; what took
// any time is seen.
func bar(from, to, whole time.Duration) string {
	if whole <= 0 {
		return ""
	}
	at := func(d time.Duration) float64 { return barWidth * min(1, max(0, float64(d)/float64(whole))) }
	start := min(barWidth-1, int(at(from)))
	end := max(start+1, int(at(to)+0.5))
	return strings.Repeat(" ", start) + strings.Repeat("█", end-start)
}
