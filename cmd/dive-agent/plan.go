package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"dive-agent/agent"
)

func newPlan(g *globals) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "plan [DIR or REVISION]",
		Short: "What a folder or revision would change on this host; nothing is changed",
		Long: `Makes the plan of every instance of this host with the live state, as an apply would, and changes nothing.
Without an argument: the followed branch. Exit code 0: in sync, 2: changes pending, 3: something waits for approval or for a secret.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := ""
			if len(args) == 1 {
				what = args[0]
			}
			return g.plan(cmd.Context(), what, name)
		},
	}
	cmd.Flags().StringVar(&name, "instance", "", "only this instance")
	return cmd
}

func (g *globals) plan(ctx context.Context, what, name string) error {
	h, err := openHost(ctx, g, hostOptions{readOnly: true})
	if err != nil {
		return err
	}
	defer h.close()
	revision, cleanup, err := h.revision(ctx, what)
	if err != nil {
		return err
	}
	defer cleanup()
	previews, err := h.agent.Preview(ctx, revision, name)
	if err != nil {
		return err
	}
	switch g.output {
	case "json":
		if err := g.json(previews); err != nil {
			return err
		}
	case "markdown":
		g.printf("%s", planMarkdown(previews, h.config.Host))
	default:
		g.printf("%s", planText(previews, h.config.Host))
	}
	return planExit(previews)
}

func planExit(previews []agent.Preview) error {
	pending := false
	for i := range previews {
		changes, destroys, waiting := previews[i].Counts()
		if waiting > 0 || previews[i].Blocked != "" {
			return &exitError{code: exitBlocked}
		}
		pending = pending || changes+destroys > 0
	}
	if pending {
		return &exitError{code: exitPending}
	}
	return nil
}

// revision finds the tree that is meant: a folder, a revision of the fleet repository, or the followed branch.
func (h *host) revision(ctx context.Context, what string) (agent.Revision, func(), error) {
	nothing := func() {}
	if what == "" {
		what = h.config.Source.Branch
	} else if info, err := os.Stat(what); err == nil && info.IsDir() {
		return agent.Revision{Dir: what, Subject: "folder " + what}, nothing, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	found, remove, err := h.source.Fetch(ctx, what)
	if err != nil {
		return agent.Revision{}, nothing, fmt.Errorf("cannot fetch %q: %w", what, err)
	}
	return found, func() { h.note("remove the temporary snapshot", remove()) }, nil
}
