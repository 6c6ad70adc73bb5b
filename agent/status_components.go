package agent

import (
	"fmt"

	"dive-agent/reconcilers"
	"dive-agent/report"
)

// components fills components, services, members, checks and the graph from the nodes.
func (s situation) components(st *report.Status) {
	index := map[string]int{}
	for _, n := range s.nodes {
		st.Nodes = append(st.Nodes, report.Node{
			ID: n.ID, Title: n.Title, State: string(n.State), Message: n.Message, Duration: n.Duration, Needs: needIDs(n), Reads: ReadsOf(n.Imports),
		})
		at, ok := index[n.Component]
		if !ok {
			at = len(st.Components)
			index[n.Component] = at
			st.Components = append(st.Components, report.Component{Name: n.Component, Kind: n.Kind, State: string(NodeDone)})
		}
		if n.State == NodePending {
			n.Facts = reconcilers.Facts{Service: n.Facts.Service} // nothing was made yet that they could tell of
		}
		merge(&st.Components[at], n)
		s.fillFacts(st, n)
	}
	s.fillCertificates(st)
	for i := range st.Components {
		if summary := serviceSummary(s.nodes, st.Components[i].Name); summary != "" {
			st.Components[i].Summary = summary
		}
	}
}

func needIDs(n Node) (ids []string) {
	for _, edge := range n.Needs {
		ids = add(ids, edge.On)
	}
	return ids
}

func merge(c *report.Component, n Node) {
	if n.State.worseThan(NodeState(c.State)) {
		c.State, c.Message = string(n.State), n.Message
	}
	if n.Part == "" {
		c.Summary = n.Facts.Summary
	}
	for name, value := range n.Facts.Values {
		if c.Values == nil {
			c.Values = map[string]any{}
		}
		c.Values[name] = value
	}
	c.Notes = append(c.Notes, n.Facts.Notes...)
	if n.Changed == 0 && n.State != NodeDone {
		for _, change := range n.Plan {
			c.Plan = append(c.Plan, changeLine(change))
		}
	}
}

// serviceSummary is "9/9 services" for a component that runs services.
func serviceSummary(nodes []Node, component string) string {
	good, all := 0, 0
	for _, n := range nodes {
		if n.Component != component || n.Facts.Service == nil {
			continue
		}
		all++
		if f := n.Facts.Service; n.State == NodeDone && (f.State == "running" || f.State == "exited" && f.ExitCode == 0) && f.Health != "unhealthy" {
			good++
		}
	}
	if all == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d services", good, all)
}
