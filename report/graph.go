package report

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Graph is an instance's graph as it is drawn. What a node needs stands before it.
type Graph []GraphNode

// GraphNode is one node with what it needs; one that looks after a replica set has its members.
type GraphNode struct {
	ID      string      `json:"id"`
	State   string      `json:"state,omitempty"`
	Took    string      `json:"took,omitempty"`
	Needs   []GraphNeed `json:"needs,omitempty"`
	Members []Member    `json:"members,omitempty"`
	Reads   []Read      `json:"reads,omitempty"` // of other instances

	elsewhere bool // it stands for a component of another instance
}

// GraphNeed is an edge, and why there is one where that is known.
type GraphNeed struct {
	On  string `json:"on"`
	Why string `json:"why,omitempty"`
}

// Graph is the status's graph.
func (s *Status) Graph() (g Graph) {
	for _, n := range s.Nodes {
		drawn := GraphNode{ID: n.ID, State: n.State, Reads: n.Reads}
		if n.Duration > 0 {
			drawn.Took = lasting(n.Duration)
		}
		for _, need := range n.Needs {
			drawn.Needs = append(drawn.Needs, GraphNeed{On: need})
		}
		for _, m := range s.Members {
			if m.Component == n.ID {
				drawn.Members = append(drawn.Members, m)
			}
		}
		g = append(g, drawn)
	}
	return g
}

// words are what a graph tells of a member beside its name.
func (m Member) words() string {
	parts := []string{m.StateWord()}
	if !m.Arbiter {
		parts = append(parts, fmt.Sprintf("priority %v", m.Priority))
	}
	if m.Votes == 0 {
		parts = append(parts, "no vote")
	} else {
		parts = append(parts, fmt.Sprintf("%d vote", m.Votes))
	}
	parts = append(parts, m.Traits()...)
	if m.Health && m.Lag >= 10*time.Second {
		parts = append(parts, age(m.Lag)+" behind")
	}
	return strings.Join(parts, ", ")
}

// drawnState is the state of a node that a member is drawn like.
func (m Member) drawnState() string {
	switch {
	case m.Serves():
		return "done"
	case m.Health:
		return "working"
	}
	return "failed"
}

// Text is the graph in lines, each node with what it needs and its members.
func (g Graph) Text() string {
	var b strings.Builder
	for _, n := range g {
		mark := ""
		if n.State != "" {
			mark = sign(n.State)
		}
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace(fmt.Sprintf("%s %-28s %s", mark, clean(n.ID), n.Took)))
		for _, need := range n.Needs {
			fmt.Fprintf(&b, "    needs %s\n", strings.TrimSpace(fmt.Sprintf("%-24s %s", clean(need.On), clean(need.Why))))
		}
		for _, read := range n.Reads {
			fmt.Fprintf(&b, "    reads %s\n", strings.TrimSpace(fmt.Sprintf("%-24s %s", clean(read.source()), clean(read.Output))))
		}
		for _, m := range n.Members {
			fmt.Fprintf(&b, "    %s %-26s %s\n", sign(m.drawnState()), clean(m.Host), m.words())
		}
	}
	return b.String()
}

func (s *Status) pageGraph(b *strings.Builder) {
	if len(s.Nodes) == 0 {
		return
	}
	fmt.Fprintf(b, "## Graph\n\n```mermaid\n%s```\n\n", s.Graph().Mermaid())
}

// source names what stands for a component of another instance in a drawing.
func (r Read) source() string { return r.From + ": " + r.Component }

// withSources is the graph with a node for each component of another instance that is read from, in front.
func (g Graph) withSources() Graph {
	var sources, nodes Graph
	for _, n := range g {
		for _, read := range n.Reads {
			if !slices.ContainsFunc(sources, func(s GraphNode) bool { return s.ID == read.source() }) {
				sources = append(sources, GraphNode{ID: read.source(), elsewhere: true})
			}
			if at := slices.IndexFunc(n.Needs, func(need GraphNeed) bool { return need.On == read.source() }); at < 0 {
				n.Needs = append(n.Needs[:len(n.Needs):len(n.Needs)], GraphNeed{On: read.source(), Why: read.Output})
			} else {
				n.Needs = slices.Clone(n.Needs)
				n.Needs[at].Why += ", " + read.Output
			}
		}
		nodes = append(nodes, n)
	}
	return append(sources, nodes...)
}

// Mermaid is the graph as forges draw it: an arrow from what is needed to what needs it, each node with its state and
// how long it took; members hang on their node by a dotted line, and what another instance publishes comes in by a dotted
// arrow with its name.
func (g Graph) Mermaid() string {
	g = g.withSources()
	elsewhere := map[string]bool{}
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	ids := map[string]string{}
	for i, n := range g {
		ids[n.ID], elsewhere[n.ID] = fmt.Sprintf("n%d", i), n.elsewhere
		label := mermaidText(n.ID)
		if n.Took != "" {
			label += "<br>" + n.Took
		}
		fmt.Fprintf(&b, "  n%d[\"%s\"]:::%s\n", i, label, stateClass(n.State))
		if n.elsewhere {
			fmt.Fprintf(&b, "  style n%d stroke-dasharray:5 4\n", i)
		}
		for j, m := range n.Members {
			fmt.Fprintf(&b, "  n%d -.- n%dm%d([\"%s<br>%s\"]):::%s\n", i, i, j, mermaidText(m.Host), mermaidText(m.words()), stateClass(m.drawnState()))
		}
	}
	for i, n := range g {
		for _, need := range n.Needs {
			switch from, ok := ids[need.On]; {
			case !ok:
			case elsewhere[need.On]:
				fmt.Fprintf(&b, "  %s -. \"%s\" .-> n%d\n", from, mermaidText(need.Why), i)
			default:
				fmt.Fprintf(&b, "  %s --> n%d\n", from, i)
			}
		}
	}
	for _, c := range stateColours {
		fmt.Fprintf(&b, "  classDef %s fill:%s,stroke:%s,color:%s\n", c.class, c.fill, c.stroke, c.text)
	}
	return b.String()
}

// stateColours are readable on a light and on a dark page: each brings its own ground.
var stateColours = []struct{ class, fill, stroke, text string }{
	{"done", "#d7f0dd", "#2b7a3f", "#123"},
	{"working", "#dbe9fb", "#2a62a8", "#123"},
	{"waiting", "#f2f2f2", "#888", "#333"},
	{"failed", "#fbdcdc", "#a82a2a", "#311"},
}

func stateClass(state string) string {
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
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" ,./-_:", r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	return b.String()
}
