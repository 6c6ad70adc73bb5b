package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dive-agent/agent"
	"dive-agent/report"
)

func newVerify(g *globals) *cobra.Command {
	var (
		limit time.Duration
		junit string
	)
	cmd := &cobra.Command{
		Use: "verify [NAME]", Short: "Make all checks now, also those with a schedule; nothing is changed",
		Long: `Makes every declared check of an instance (of all of this host, without a name) and shows what each saw. The running agent
makes them in a round of its own, and they stand in the status; where none runs, they are made here, at the revision that
was followed last. Exit code 0: all passed, or warn; 1: a check of severity fail failed, or none was made.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			all, err := g.verify(ctx, name)
			if err != nil {
				return err
			}
			if junit != "" {
				if err := writeJUnit(junit, all); err != nil {
					return err
				}
			}
			return g.tellVerified(all)
		},
	}
	cmd.Flags().DurationVar(&limit, "timeout", 5*time.Minute, "how long it may take at most")
	cmd.Flags().StringVar(&junit, "junit", "", "file for the results as JUnit XML, for a CI")
	return cmd
}

// verify has the running agent make the checks, and makes them itself where none runs.
func (g *globals) verify(ctx context.Context, name string) ([]agent.Verification, error) {
	c, err := newClient(g)
	if err != nil {
		return nil, err
	}
	names := []string{name}
	if name == "" {
		overview, err := c.overview(ctx)
		if errors.Is(err, errNoAgent) {
			return g.verifyHere(ctx, "")
		}
		if err != nil {
			return nil, err
		}
		names = nil
		for _, status := range overview.Instances {
			names = append(names, status.Instance)
		}
	}
	var all []agent.Verification
	for _, name := range names {
		status, err := c.verify(ctx, name)
		if errors.Is(err, errNoAgent) && len(all) == 0 {
			return g.verifyHere(ctx, name)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, agent.Verified(status))
	}
	return all, nil
}

// verify gives the status after a round in which every check was made.
func (c *socketClient) verify(ctx context.Context, name string) (status report.Status, err error) {
	last, err := c.lastSeq(ctx)
	if err != nil {
		return status, err
	}
	asked := time.Now()
	accepted, err := c.order(ctx, name, "verify", nil)
	if err != nil {
		return status, err
	}
	query := url.Values{"instance": {name}, "follow": {"true"}, "after": {strconv.FormatInt(last, 10)}}
	looked := false
	err = c.events(ctx, query, func(e agent.Event) bool {
		looked = e.Kind == "round" && e.Round > accepted.After
		return !looked
	})
	switch {
	case err != nil:
		return status, fmt.Errorf("the checks of %s were not made in time: %w", name, err)
	case !looked:
		return status, fmt.Errorf("the agent stopped before the checks of %s were made", name)
	}
	if status, err = c.status(ctx, name); err != nil {
		return status, err
	}
	made := []report.Check{}
	for _, check := range status.Checks {
		if !check.At.Before(asked) {
			made = append(made, check)
		}
	}
	status.Checks = made
	return status, nil
}

// verifyHere makes the checks in this process.
func (g *globals) verifyHere(ctx context.Context, name string) ([]agent.Verification, error) {
	h, err := openHost(ctx, g, hostOptions{readOnly: true})
	if err != nil {
		return nil, err
	}
	defer h.close()
	revision, err := h.followed()
	if err != nil {
		return nil, err
	}
	return h.agent.VerifyHere(ctx, revision, name)
}

// tellVerified shows what the checks saw, and gives the exit code.
func (g *globals) tellVerified(all []agent.Verification) error {
	if all == nil {
		all = []agent.Verification{}
	}
	if g.output == "json" {
		if err := g.json(all); err != nil {
			return err
		}
	} else {
		for i, one := range all {
			if i > 0 {
				g.printf("\n")
			}
			g.printf("%s", verifiedText(one, g.text()))
		}
	}
	good := len(all) > 0
	for _, one := range all {
		_, failed, _ := tally(one.Checks)
		good = good && failed == 0 && len(one.Checks) > 0
	}
	if len(all) == 0 && g.output != "json" {
		g.printf("no instance is bound to this host yet\n")
	}
	if !good {
		return &exitError{code: exitFailed}
	}
	return nil
}

// tally counts checks by their verdict.
func tally(checks []report.Check) (passed, failed, warned int) {
	for _, c := range checks {
		switch {
		case c.Passed:
			passed++
		case c.Warns():
			warned++
		default:
			failed++
		}
	}
	return passed, failed, warned
}

// verifiedText is the table of an instance's checks: failures first, then warnings, then what passed.
func verifiedText(v agent.Verification, o report.TextOptions) string {
	var b strings.Builder
	passed, failed, warned := tally(v.Checks)
	fmt.Fprintf(&b, "%s  %d %s: %d passed", v.Instance, len(v.Checks), plural(len(v.Checks), "check"), passed)
	if failed > 0 {
		fmt.Fprintf(&b, ", %d failed", failed)
	}
	if warned > 0 {
		fmt.Fprintf(&b, ", %d %s", warned, plural(warned, "warning"))
	}
	if v.Revision != "" {
		fmt.Fprintf(&b, "   at %s", agent.Revision{Commit: v.Revision}.Short())
	}
	fmt.Fprintf(&b, "   host %s\n\n", v.Host)
	if len(v.Checks) == 0 {
		b.WriteString("  no check was made\n")
		for _, line := range v.Why {
			fmt.Fprintf(&b, "  why   %s\n", printable(line))
		}
		return b.String()
	}
	width := 0
	for _, c := range v.Checks {
		width = max(width, len([]rune(c.Name)))
	}
	for _, verdict := range []string{"failed", "warning", "passed"} {
		for _, c := range v.Checks {
			if mark, word := c.Verdict(); word == verdict {
				b.WriteString(checkLine(c, mark, width, o))
			}
		}
	}
	return b.String()
}

// checkLine is one check: its verdict, its name, how long it took, what it saw, and since when it fails.
func checkLine(c report.Check, mark string, width int, o report.TextOptions) string {
	line := fmt.Sprintf("  %s %-*s %7.2f s  %s", mark, width, printable(c.Name), c.Took.Seconds(), printable(c.Saw))
	if !c.Passed && !c.Since.IsZero() && o.Now.Sub(c.Since) > time.Minute {
		line += " (since " + c.Since.UTC().Format("2006-01-02 15:04 UTC") + ")"
	}
	return strings.TrimRight(line, " ") + "\n"
}
