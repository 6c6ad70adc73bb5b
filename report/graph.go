package report

import (
	"fmt"
	"strings"
)

func (s *Status) pageGraph(b *strings.Builder) {
	if len(s.Nodes) == 0 {
		return
	}
	fmt.Fprintf(b, "## Graph\n\n```mermaid\n%s```\n\n", s.Mermaid())
}

// Mermaid is the instance's graph as forges draw it: an arrow from what is
// needed to what needs it, each node with its state and how long it took.
func (s *Status) Mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	ids := map[string]string{}
	for i, n := range s.Nodes {
		ids[n.ID] = fmt.Sprintf("n%d", i)
		label := mermaidText(n.ID)
		if n.Duration > 0 {
			label += "<br>" + lasting(n.Duration)
		}
		fmt.Fprintf(&b, "  n%d[\"%s\"]:::%s\n", i, label, mermaidClass(n.State))
	}
	for i, n := range s.Nodes {
		for _, need := range n.Needs {
			if from, ok := ids[need]; ok {
				fmt.Fprintf(&b, "  %s --> n%d\n", from, i)
			}
		}
	}
	b.WriteString("  classDef done fill:#d7f0dd,stroke:#2b7a3f,color:#123\n")
	b.WriteString("  classDef working fill:#dbe9fb,stroke:#2a62a8,color:#123\n")
	b.WriteString("  classDef waiting fill:#f2f2f2,stroke:#888,color:#333\n")
	b.WriteString("  classDef failed fill:#fbdcdc,stroke:#a82a2a,color:#311\n")
	return b.String()
}

func mermaidClass(state string) string {
	switch state {
	case "done", "working":
		return state
	case "failed", "rejected", "blocked":
		return "failed"
	}
	return "waiting"
}

// mermaidText keeps a label inside of its quotes; anything but what names are
// made of becomes an entity.
func mermaidText(text string) string {
	var b strings.Builder
	for _, r := range cut(clean(text), 80) {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" ./-_:", r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	return b.String()
}
