package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dive-agent/agent"
)

func newAdopt(g *globals) *cobra.Command {
	var component string
	cmd := &cobra.Command{
		Use: "adopt INSTANCE", Short: "How a realm that is there and not in its state can be taken over; nothing is changed",
		Long: `Looks in the live realm for all that the module would make, and prints an import block for each thing that is there already,
with the rest as comments: what cannot be imported, what would be changed, and what to merge to have it done. The text
can be redirected into a file. It works on a copy of the component's folder, beside a running agent.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if g.output != "text" && g.output != "json" {
				return usageError(cmd, "--output is text or json here")
			}
			return g.adopt(cmd.Context(), args[0], component)
		},
	}
	cmd.Flags().StringVar(&component, "component", "", "which component, when the instance has several")
	return cmd
}

func (g *globals) adopt(ctx context.Context, instance, component string) error {
	h, err := openHost(ctx, g, hostOptions{readOnly: true})
	if err != nil {
		return err
	}
	defer h.close()
	revision, err := h.followed()
	if err != nil {
		return err
	}
	told, err := h.agent.Adoption(ctx, revision, instance, component)
	if err != nil {
		return fmt.Errorf("cannot tell what of %s could be taken over: %w", instance, err)
	}
	if g.output == "json" {
		return g.json(told)
	}
	g.printf("%s", adoptText(&told))
	return nil
}

// adoptText is HCL: import blocks, and all else as comments.
func adoptText(a *agent.Adoption) string {
	var b strings.Builder
	say := func(format string, args ...any) { b.WriteString(indent(fmt.Sprintf(format, args...), "# ") + "\n") }
	say("%s of %s: the state is %s.", a.Component, a.Instance, a.State)
	if len(a.Imports) == 0 {
		say("Nothing that the module would make was found in the realm.")
	} else {
		say("%d of %d that the module would make are in the realm, found in %.1f s:", len(a.Imports), len(a.Imports)+len(a.Creates), a.Took.Round(100*time.Millisecond).Seconds())
		b.WriteString("\n" + a.Blocks + "\n")
	}
	var changed, over, fresh []string
	for _, one := range a.Imports {
		if len(one.Changes) > 0 {
			changed = append(changed, fmt.Sprintf("  %s  %s", one.Address, strings.Join(one.Changes, ", ")))
		}
	}
	for _, one := range a.Creates {
		if one.Over {
			over = append(over, "  "+one.Address)
		} else {
			fresh = append(fresh, "  "+one.Address)
		}
	}
	for _, part := range []struct {
		title string
		lines []string
	}{
		{"Taken over and changed, since the realm has it otherwise than the module:", changed},
		{"Cannot be imported, and is made over what is there:", over},
		{"Made, since nothing of that name was found:", fresh},
	} {
		if len(part.lines) > 0 {
			say("%s\n%s", part.title, strings.Join(part.lines, "\n"))
		}
	}
	if a.Merge != "" {
		say("To have it taken over as it is, merge into %s:\n  %s", a.File, a.Merge)
		say("The blocks themselves belong into a module that only this instance uses. Nothing was changed.")
	}
	return b.String()
}
