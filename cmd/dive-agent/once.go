package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"dive-agent/agent"
	"dive-agent/desired"
	"dive-agent/report"
	"dive-agent/source"
)

func newOnce(g *globals) *cobra.Command {
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "once", Short: "One pass over this host's instances, then exit; the same code as run",
		Long: `Polls the fleet repository, brings every instance of this host to the declared state, reports, and exits.
Exit code 0: all are Ready, 1: failed, 3: blocked, 65: the revision is refused.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			return runOnce(ctx, g)
		},
	}
	cmd.Flags().DurationVar(&limit, "timeout", 30*time.Minute, "how long it may take at most")
	return cmd
}

// runOnce polls, brings what is declared about and reports it. A Git that is away or a refused revision keeps it from
// nothing: it goes on with the revision in force, and the exit code tells. What has begun is finished, whatever ends ctx.
func runOnce(ctx context.Context, g *globals) error {
	lifetime, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	h, err := openHost(ctx, g, hostOptions{lifetime: lifetime, failpoint: failpointFromEnvironment()})
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.agent.Recover(ctx); err != nil {
		return err
	}
	revision, changed, err := h.source.Poll(ctx)
	refused := h.handle(ctx, source.Outcome{Revision: revision, Changed: changed, Err: err, State: h.source.State()})
	if refused != nil || !changed {
		h.takeCurrent()
	}
	stop := h.keepReadingStatuses(ctx)
	unsettled := h.settle(ctx, g)
	stop()
	if unsettled != nil {
		stopAtOnce(h)
	}
	drain, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	if err := errors.Join(unsettled, h.agent.Drain(drain)); err != nil {
		return err
	}
	if err := h.deliverAll(drain); err != nil {
		h.log.Warn("not all reports were delivered; the next run delivers them", "error", err)
	}
	return h.sum(ctx, g, refused)
}

// settle waits until no instance is on its way any more.
func (h *host) settle(ctx context.Context, g *globals) error {
	view := newProgressView(streams{out: g.err, err: g.err})
	defer view.end()
	after, looked := int64(0), map[string]bool{}
	for {
		events, more := h.agent.EventsAfter(after)
		for _, e := range events {
			after = e.Seq
			looked[e.Instance] = looked[e.Instance] || e.Kind == "round"
		}
		overview, err := h.agent.Overview(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		settled, all := true, make([]report.Status, 0, len(overview.Instances))
		for _, status := range overview.Instances {
			all = append(all, *status)
			settled = settled && looked[status.Instance] && status.Phase != report.Progressing && status.Phase != report.Pending
		}
		view.draw(all...)
		if settled {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("not all instances were ready before the end (%w); what has begun is finished, and the next run goes on there", context.Cause(ctx))
		}
	}
}

// sum tells how the instances are and gives the exit code of the worst.
func (h *host) sum(ctx context.Context, g *globals, refused error) error {
	overview, err := h.agent.Overview(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	if g.output == "json" {
		if err := g.json(overview); err != nil {
			return err
		}
	} else {
		writeOverview(g, *overview)
	}
	var problems desired.Problems
	if errors.As(refused, &problems) {
		return &exitError{code: exitData}
	}
	return worstExit(overview, refused)
}

func worstExit(overview *agent.Overview, failure error) error {
	code := exitDone
	if failure != nil {
		code = exitFailed
	}
	for _, status := range overview.Instances {
		var exit *exitError
		if errors.As(phaseExit(status.Phase), &exit) && code != exitFailed {
			code = exit.code
		}
	}
	if code == exitDone {
		return nil
	}
	return &exitError{code: code, err: failure}
}
