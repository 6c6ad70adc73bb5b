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
	"dive-agent/gitremote"
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
	_, err := fmt.Fprint(g.out, status.Text(g.text()))
	return err
}

// text says how a status is shown here.
func (g *globals) text() report.TextOptions {
	return report.TextOptions{Now: time.Now(), Color: g.colour(), Width: g.width()}
}

func writeOverview(g *globals, o agent.Overview) {
	revision := "no revision yet"
	if o.Revision != nil {
		revision = "at " + o.Revision.Short() + " " + o.Revision.Subject
	}
	g.printf("%s  %s\n\n", o.Host, revision)
	if o.Source.Err != "" {
		g.printf("  git   not followed since %s: %s\n\n", o.Source.Since.Local().Format(time.DateTime), o.Source.Err)
	}
	if o.Refused != nil {
		g.printf("  git   %s is refused since %s, what was in force stays so:\n%s\n\n", o.Refused.Revision.Short(),
			o.Refused.Since.Local().Format(time.DateTime), indent(o.Refused.Message, "        "))
	}
	if len(o.Instances) == 0 {
		g.printf("  no instance is bound to this host yet\n")
	}
	for _, status := range o.Instances {
		line := fmt.Sprintf("  %-10s %-12s %-11s", status.Instance, status.Phase, status.Lasting(time.Now()))
		if !status.Phase.Failing() && status.Phase != report.Suspended {
			line += " " + cmp.Or(status.News, atWork(*status))
		}
		g.printf("%s\n", strings.TrimRight(line, " "))
		if own := ownCauses(o, *status); len(own.Why) > 0 {
			g.printf("%s\n\n", indent(own.Causes(g.text()), "  "))
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

// ownCauses leaves out what holds for all instances and was told above them.
func ownCauses(o agent.Overview, status report.Status) report.Status {
	var why []string
	for _, line := range status.Why {
		shared := strings.HasPrefix(line, "the fleet repository is not followed") || strings.Contains(line, " is refused as a whole, ")
		if !shared && (o.Refused == nil || !strings.Contains(o.Refused.Message, line)) {
			why = append(why, line)
		}
	}
	status.Why, status.Logs = why, status.Logs[max(0, len(status.Logs)-2):]
	return status
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
		g.printf("%s  %-9s %-8s %7.1f s  %s\n", run.Started.Local().Format(time.DateTime), gitremote.Short(run.Revision),
			outcome, run.Duration.Seconds(), run.Trigger)
		if run.Message != "" {
			g.printf("    %s\n", run.Message)
		}
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
	line := fmt.Sprintf("%s %-8s %-8s %-22s %-10s %s%s", e.Time.Local().Format("01-02 15:04:05"), e.Instance, e.Kind, e.Node, e.State, e.Message, took)
	g.printf("%s\n", strings.TrimRight(line, " "))
}
