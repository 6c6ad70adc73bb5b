package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"dive-agent/agent"
	"dive-agent/desired"
	"dive-agent/reconcilers/all"
	"dive-agent/report"
)

func newGraph(g *globals) *cobra.Command {
	var format, dir string
	cmd := &cobra.Command{
		Use: "graph NAME", Short: "An instance's graph with the members of its replica sets, as text, Mermaid or a picture (--output svg)", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			graph, title, err := readGraph(cmd, g, dir, args[0])
			if err != nil {
				return err
			}
			switch {
			case g.output == "json":
				return g.json(graph)
			case g.output == "svg":
				g.printf("%s", graph.SVG(title))
			case format == "mermaid":
				g.printf("%s", graph.Mermaid())
			case format == "text":
				g.printf("%s", graph.Text())
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

// readGraph gives the graph of an instance, with what a picture of it is called.
func readGraph(cmd *cobra.Command, g *globals, dir, name string) (graph report.Graph, title string, err error) {
	if dir == "" {
		c, err := newClient(g)
		if err != nil {
			return nil, "", err
		}
		status, err := c.status(cmd.Context(), name)
		return status.Graph(), status.Headline(), err
	}
	fleet, err := desired.Load(dir, desired.Options{Kinds: all.Registry.Kinds(), Allow: allowAll})
	if err != nil {
		return nil, "", err
	}
	instance := fleet.Instances[name]
	if instance == nil {
		return nil, "", fmt.Errorf("no instance %q in %s", name, dir)
	}
	for _, node := range instance.Graph.Nodes {
		told := report.GraphNode{ID: node.ID}
		for _, edge := range node.Needs {
			told.Needs = append(told.Needs, report.GraphNeed{On: edge.On, Why: edge.Why})
		}
		told.Reads = agent.ReadsOf(instance.ImportsOf(node.ID))
		graph = append(graph, told)
	}
	return graph, name, nil
}
