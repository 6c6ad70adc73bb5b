package main

import (
	"fmt"
	"strings"
	"time"

	"dive-agent/gitremote"
	"dive-agent/report"
)

// progressView shows a graph at work: in place on a terminal, a line for each change elsewhere.
type progressView struct {
	streams
	lines int               // drawn in place last time
	told  map[string]string // instance and node -> what was told of it
}

func newProgressView(s streams) *progressView {
	return &progressView{streams: s, told: map[string]string{}}
}

var nodeSigns = map[string]string{
	"done": "✓", "working": "⠼", "waiting": "…", "pending": "·", "blocked": "!", "failed": "✗", "rejected": "✗",
}

// draw shows the nodes of all statuses that are watched.
func (v *progressView) draw(all ...report.Status) {
	if !v.terminal() {
		for _, status := range all {
			v.tell(status)
		}
		return
	}
	var b strings.Builder
	if v.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.lines)
	}
	v.lines = 0
	for _, status := range all {
		fmt.Fprintf(&b, "\x1b[K%s  %s\n", status.Instance, gitremote.Short(status.Attempted))
		for _, node := range status.Nodes {
			fmt.Fprintf(&b, "\x1b[K  %s\n", cut(printable(nodeLine(node)), 100))
		}
		v.lines += len(status.Nodes) + 1
	}
	_, _ = fmt.Fprint(v.out, b.String()) // a closed pipe ends the program by SIGPIPE
}

// tell writes a line for each node that is not as it was told last.
func (v *progressView) tell(status report.Status) {
	for _, node := range status.Nodes {
		id, now := status.Instance+" "+node.ID, node.State+node.Message
		if v.told[id] != now && node.State != "pending" {
			v.told[id] = now
			line := strings.Replace(nodeLine(node), nodeSigns["working"]+" ", "> ", 1) // a spinner that stands still says nothing
			v.printf("%s %s\n", status.Instance, strings.TrimRight(line, " "))
		}
	}
}

// end leaves the picture as it is.
func (v *progressView) end() { v.lines = 0 }

func nodeLine(node report.Node) string {
	took := ""
	if node.Duration >= 50*time.Millisecond {
		took = fmt.Sprintf("%.1f s", node.Duration.Seconds())
	}
	sign := nodeSigns[node.State]
	if sign == "" {
		sign = "?"
	}
	return fmt.Sprintf("%s %-26s %8s   %s", sign, node.ID, took, node.Message)
}

func cut(s string, width int) string {
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	return string(runes[:width-1]) + "…"
}
