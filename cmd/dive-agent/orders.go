package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dive-agent/agent"
	"dive-agent/report"
)

func newSync(g *globals) *cobra.Command {
	var (
		retry, wait bool
		limit       time.Duration
	)
	cmd := &cobra.Command{
		Use: "sync NAME", Short: "Look at the fleet repository and the instance now", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(g)
			if err != nil {
				return err
			}
			query := url.Values{}
			if retry {
				query.Set("retry", "true")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			last, err := c.lastSeq(ctx)
			if err != nil {
				return err
			}
			accepted, err := c.order(ctx, args[0], "sync", query)
			if err != nil {
				return err
			}
			if accepted.Source != "" {
				_, _ = fmt.Fprintln(g.err, "the fleet repository could not be asked: "+accepted.Source)
			}
			if !wait {
				return g.tellSynced(ctx, c, args[0])
			}
			return follow(ctx, g, c, args[0], last, accepted.After)
		},
	}
	cmd.Flags().BoolVar(&retry, "retry", false, "try a rejected revision again")
	cmd.Flags().BoolVar(&wait, "wait", false, "show the work until it ends")
	cmd.Flags().DurationVar(&limit, "timeout", 15*time.Minute, "how long to wait at most")
	return cmd
}

// tellSynced says what an order to look at an instance brings about, when nobody waits for it.
func (g *globals) tellSynced(ctx context.Context, c *socketClient, name string) error {
	status, err := c.status(ctx, name)
	switch {
	case err != nil:
		return err
	case status.Phase == report.Suspended || status.Phase == report.Removing || status.Phase == report.Removed:
		g.printf("%s is not looked at: %s\n%s\n", name, status.News, strings.Join(status.Next, "\n"))
	default:
		g.printf("%s is looked at now. See: dive-agent status %[1]s\n", name)
	}
	return nil
}

// follow shows an instance's work until a round with a number above after ended in something else than Progressing.
func follow(ctx context.Context, g *globals, c *socketClient, name string, seq, after int64) error {
	show := newProgressView(g.streams)
	query := url.Values{"instance": {name}, "follow": {"true"}, "after": {strconv.FormatInt(seq, 10)}}
	var (
		last    report.Status
		settled bool
		failure error
	)
	err := c.events(ctx, query, func(e agent.Event) bool {
		if e.Kind != "node" && e.Kind != "run" && e.Kind != "round" {
			return true
		}
		if last, failure = c.status(ctx, name); failure != nil {
			return false
		}
		if last.Seen.IsZero() {
			show.draw(last)
		}
		settled = e.Kind == "round" && e.Round > after && last.Phase != report.Progressing && last.Phase != report.Pending
		return !settled
	})
	show.end()
	switch {
	case failure != nil:
		return failure
	case err != nil:
		return fmt.Errorf("%s has not settled: %w", name, err)
	case !settled:
		return fmt.Errorf("the agent stopped before %s settled", name)
	}
	if err := writeStatus(g, last); err != nil {
		return err
	}
	return phaseExit(last.Phase)
}

// lastSeq is the number of the newest event.
func (c *socketClient) lastSeq(ctx context.Context) (last int64, err error) {
	err = c.events(ctx, nil, func(e agent.Event) bool { last = e.Seq; return true })
	return last, err
}

// phaseExit is the exit code that tells an instance's phase.
func phaseExit(phase report.Phase) error {
	switch phase {
	case report.Ready, report.Suspended, report.Removing, report.Removed: // nothing failed
		return nil
	case report.Blocked:
		return &exitError{code: exitBlocked}
	}
	return &exitError{code: exitFailed}
}

func newRollback(g *globals) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "rollback NAME", Short: "Go back to the revision under which the instance was ready before",
		Long: "Bring back each service of the instance as it was in the revision before: image, configuration, environment. What is declared is not tried again until\n" +
			"something new is merged, or by `sync --retry NAME`. Volumes, realms, replica sets and secrets stay as they are.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(g)
			if err != nil {
				return err
			}
			accepted, err := c.order(cmd.Context(), args[0], "rollback", url.Values{"by": {whoAmI()}, "reason": {reason}})
			if err != nil {
				return err
			}
			from, to := agent.Revision{Commit: accepted.From}, agent.Revision{Commit: accepted.To}
			g.printf("%s goes back to %s; %s is not tried again until something new is merged, or: dive-agent sync --retry %[1]s\nSee: dive-agent status %[1]s\n", args[0], to.Short(), from.Short())
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who read the status")
	return cmd
}

func newSuspend(g *globals) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "suspend NAME", Short: "Pause the work on an instance; what runs keeps running", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.order(cmd, args[0], "suspend", url.Values{"by": {whoAmI()}, "reason": {reason}},
				"%s is suspended, also over restarts. Go on with: dive-agent resume %[1]s\n")
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who read the status")
	return cmd
}

func newResume(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "resume NAME", Short: "Go on with a suspended instance", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.order(cmd, args[0], "resume", nil, "%s goes on.\n")
		},
	}
}

func (g *globals) order(cmd *cobra.Command, name, order string, query url.Values, done string) error {
	c, err := newClient(g)
	if err != nil {
		return err
	}
	if _, err := c.order(cmd.Context(), name, order, query); err != nil {
		return err
	}
	g.printf(done, name)
	return nil
}

// whoAmI is the person at the keyboard, also behind sudo.
func whoAmI() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}
