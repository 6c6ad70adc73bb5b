package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"dive-agent/desired"
	"dive-agent/reconcilers/all"
)

func newGraph(g *globals) *cobra.Command {
	var format, dir string
	cmd := &cobra.Command{
		Use: "graph NAME", Short: "An instance's graph, as text or Mermaid", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := graphNodes(cmd, g, dir, args[0])
			if err != nil {
				return err
			}
			switch {
			case g.output == "json":
				return g.json(nodes)
			case format == "mermaid":
				g.printf("%s", mermaid(nodes))
			case format == "text":
				g.printf("%s", graphText(nodes))
			default:
				return &exitError{exitUsage, fmt.Errorf("--format %q is none of text, mermaid", format)}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or mermaid")
	cmd.Flags().StringVar(&dir, "dir", "", "read a fleet repository instead of asking the running agent")
	return cmd
}

// graphNode is a node with what it needs.
type graphNode struct {
	ID    string      `json:"id"`
	State string      `json:"state,omitempty"`
	Took  string      `json:"took,omitempty"`
	Needs []graphNeed `json:"needs,omitempty"`
}

type graphNeed struct {
	On  string `json:"on"`
	Why string `json:"why,omitempty"`
}

func graphNodes(cmd *cobra.Command, g *globals, dir, name string) ([]graphNode, error) {
	if dir == "" {
		return liveGraph(cmd, g, name)
	}
	fleet, err := desired.Load(dir, desired.Options{Kinds: all.Registry.Kinds()})
	if err != nil {
		return nil, err
	}
	instance := fleet.Instances[name]
	if instance == nil {
		return nil, fmt.Errorf("no instance %q in %s", name, dir)
	}
	var nodes []graphNode
	for _, node := range instance.Graph.Nodes {
		told := graphNode{ID: node.ID}
		for _, edge := range node.Needs {
			told.Needs = append(told.Needs, graphNeed{edge.On, edge.Why})
		}
		nodes = append(nodes, told)
	}
	return nodes, nil
}

func liveGraph(cmd *cobra.Command, g *globals, name string) ([]graphNode, error) {
	c, err := newClient(g)
	if err != nil {
		return nil, err
	}
	status, err := c.status(cmd.Context(), name)
	if err != nil {
		return nil, err
	}
	var nodes []graphNode
	for _, node := range status.Nodes {
		told := graphNode{ID: node.ID, State: node.State}
		if node.Duration > 0 {
			told.Took = fmt.Sprintf("%.1f s", node.Duration.Seconds())
		}
		for _, need := range node.Needs {
			told.Needs = append(told.Needs, graphNeed{On: need})
		}
		nodes = append(nodes, told)
	}
	return nodes, nil
}

func graphText(nodes []graphNode) string {
	var b strings.Builder
	for _, node := range nodes {
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace(fmt.Sprintf("%s %-28s %s", nodeSigns[node.State], node.ID, node.Took)))
		for _, need := range node.Needs {
			fmt.Fprintf(&b, "    needs %s\n", strings.TrimSpace(fmt.Sprintf("%-24s %s", need.On, need.Why)))
		}
	}
	return b.String()
}

func mermaid(nodes []graphNode) string {
	var b strings.Builder
	b.WriteString("graph LR\n")
	id := func(s string) string {
		return strings.NewReplacer("/", "_", "-", "_", "@", "_").Replace(s)
	}
	for _, node := range nodes {
		fmt.Fprintf(&b, "  %s[\"%s\"]\n", id(node.ID), strings.TrimSpace(node.ID+" "+node.Took))
		for _, need := range node.Needs {
			fmt.Fprintf(&b, "  %s --> %s\n", id(need.On), id(node.ID))
		}
	}
	return b.String()
}
