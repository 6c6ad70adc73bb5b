package main

import (
	"cmp"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dive-agent/agent"
	"dive-agent/report"
)

func newStatus(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "status [NAME]", Short: "How the instances of this host are", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(g)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				status, err := c.status(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return writeStatus(g, status)
			}
			overview, err := c.overview(cmd.Context())
			if err != nil {
				return err
			}
			if g.output == "json" {
				return g.json(overview)
			}
			writeOverview(g, overview)
			return nil
		},
	}
}

func writeStatus(g *globals, status report.Status) error {
	if g.output == "json" {
		return g.json(status)
	}
	_, err := fmt.Fprint(g.out, status.Text(report.TextOptions{Now: time.Now(), Color: g.colour()}))
	return err
}

func writeOverview(g *globals, o agent.Overview) {
	revision := "no revision yet"
	if o.Revision != nil {
		revision = "at " + o.Revision.Short() + " " + o.Revision.Subject
	}
	g.printf("%s  %s\n\n", o.Host, revision)
	if o.Source.Err != "" {
		g.printf("  git   not followed since %s: %s\n", o.Source.Since.Format(time.DateTime), o.Source.Err)
	}
	if o.Refused != nil {
		g.printf("  git   %s is refused, what was in force stays so:\n%s\n", o.Refused.Revision.Short(), indent(o.Refused.Message, "          "))
	}
	if len(o.Instances) == 0 {
		g.printf("  no instance is bound to this host yet\n")
	}
	for _, status := range o.Instances {
		line := fmt.Sprintf("  %-10s %-12s %s", status.Instance, status.Phase, cmp.Or(status.News, atWork(*status)))
		g.printf("%s\n", strings.TrimRight(line, " "))
		for _, why := range status.Why {
			if why != status.News && !strings.HasPrefix(why, "the fleet repository is not followed") && !told(o.Refused, why) {
				g.printf("%s\n", indent(why, "             "))
			}
		}
	}
}

// atWork is what an instance that is on its way does now.
func atWork(status report.Status) string {
	for _, node := range status.Nodes {
		if node.State == "working" {
			return strings.TrimSuffix(node.ID+": "+node.Message, ": ")
		}
	}
	return ""
}

// told says whether a reason is the refusal that stands above all instances already.
func told(refused *agent.Refusal, why string) bool {
	return refused != nil && strings.HasPrefix(why, refused.Revision.Short()+" is refused")
}

func newHistory(g *globals) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "history NAME", Short: "The last runs of an instance, with where the time went", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(g)
			if err != nil {
				return err
			}
			var runs []report.Run
			path := "/v1/instances/" + url.PathEscape(args[0]) + "/history"
			if err := c.get(cmd.Context(), path, url.Values{"limit": {strconv.Itoa(limit)}}, &runs); err != nil {
				return err
			}
			if g.output == "json" {
				return g.json(runs)
			}
			writeHistory(g, runs)
			return nil
		},
	}
	cmd.Flags().IntVarP(&limit, "limit", "n", 10, "how many runs")
	return cmd
}

func writeHistory(g *globals, runs []report.Run) {
	if len(runs) == 0 {
		g.printf("nothing was changed yet\n")
	}
	for _, run := range runs {
		outcome := run.Outcome
		if outcome == "" {
			outcome = "running"
		}
		line := fmt.Sprintf("%s  %-9s %-8s %7.1f s  %s  %s", run.Started.Format(time.DateTime), run.Revision[:min(7, len(run.Revision))],
			outcome, run.Duration.Seconds(), run.Trigger, run.Message)
		g.printf("%s\n", strings.TrimRight(line, " "))
		for _, step := range run.Steps {
			g.printf("    %7.1f s  %-9s %-26s %s\n", step.Duration.Seconds(), step.Outcome, step.Node, step.Change)
		}
	}
}

func newEvents(g *globals) *cobra.Command {
	var followFlag bool
	cmd := &cobra.Command{
		Use: "events [NAME]", Short: "What happened; -f goes on", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(g)
			if err != nil {
				return err
			}
			query := url.Values{}
			if len(args) == 1 {
				query.Set("instance", args[0])
			}
			if followFlag {
				query.Set("follow", "true")
			}
			err = c.events(cmd.Context(), query, func(e agent.Event) bool {
				writeEvent(g, e)
				return true
			})
			if cmd.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&followFlag, "follow", "f", false, "go on until interrupted")
	return cmd
}

func writeEvent(g *globals, e agent.Event) {
	if g.output == "json" {
		_ = g.streams.jsonLine(e) // a closed pipe ends the program
		return
	}
	if e.Kind == "round" {
		return // for programs, which wait for it
	}
	took := ""
	if e.Duration > 0 {
		took = fmt.Sprintf(" (%.1f s)", e.Duration.Seconds())
	}
	line := fmt.Sprintf("%s %-8s %-9s %-22s %-10s %s%s", e.Time.Format("15:04:05.000"), e.Instance, e.Kind, e.Node, e.State, e.Message, took)
	g.printf("%s\n", strings.TrimRight(line, " "))
}
