package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"dive-agent/agent"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/all"
	"dive-agent/secrets"
)

// planFlags are what plan was asked for.
type planFlags struct {
	instance string
	offline  string
	base     string
	allow    allowed
}

func newPlan(g *globals) *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan [DIR or REVISION]",
		Short: "What a folder or revision would change on this host; nothing is changed",
		Long: `Makes the plan of every instance of this host with the live state, as an apply would, and changes nothing.
Without an argument: the followed branch. With --offline, by the manifests alone, for a forge's CI: no host, no engine, no
state and no secret; with --base, what is different from another folder. Exit code 0: in sync, 1: nothing to change, and not
all could be looked at or is well, 2: changes pending, 3: something waits for approval or for a secret, 65: bad manifests.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := ""
			if len(args) == 1 {
				what = args[0]
			}
			switch {
			case f.offline != "" && what != "":
				return usageError(cmd, "--offline names the folder; give no other")
			case f.offline != "":
				return g.planOffline(cmd.Context(), f)
			case f.base != "":
				return usageError(cmd, "--base goes with --offline; on a host the base is what runs")
			case len(f.allow) > 0:
				return usageError(cmd, "--allow goes with --offline; a host's own agent.yaml says what it allows")
			}
			return g.plan(cmd.Context(), what, f.instance)
		},
	}
	cmd.Flags().StringVar(&f.instance, "instance", "", "only this instance")
	cmd.Flags().StringVar(&f.offline, "offline", "", "folder to plan by its manifests alone")
	cmd.Flags().StringVar(&f.base, "base", "", "folder to compare with, such as a worktree of the branch that is merged into")
	f.allow.flag(cmd)
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
	return g.tellPlan(previews, noInstance(h.config.Host))
}

// planOffline plans without a host: Terraform or OpenTofu, where it is in PATH, takes its configuration from TF_CLI_CONFIG_FILE.
func (g *globals) planOffline(ctx context.Context, f planFlags) error {
	if err := f.allow.check(); err != nil {
		return err
	}
	h := &host{log: newLogger(g.streams, "warn", secrets.NewRedactor())}
	defer h.close()
	tool := reconcilers.Terraform{CLIConfig: os.Getenv("TF_CLI_CONFIG_FILE"), Allow: f.allow}
	engines, err := h.makeReconcilers(reconcilers.Deps{
		Clock: reconcilers.SystemClock{}, Rand: rand.Reader, Log: h.log, Redact: func(text string) string { return text },
		Terraform: tool, OpenTofu: tool, Compose: reconcilers.Compose{Allow: f.allow},
	})
	if err != nil {
		return err
	}
	previews, unchanged, err := agent.Offline(ctx, f.offline, f.base, agent.OfflineOptions{
		Kinds: all.Registry.Kinds(), Reconcilers: engines, Log: h.log, Instance: f.instance, Allow: f.allow.by,
	})
	if err != nil {
		return err
	}
	return g.tellPlan(previews, fmt.Sprintf("Nothing changes: %d %s, the same as in the base.\n", unchanged, plural(unchanged, "instance")))
}

// tellPlan prints a plan, or that there is none, and gives the exit code.
func (g *globals) tellPlan(previews []agent.Preview, none string) error {
	switch g.output {
	case "json":
		if previews == nil {
			previews = []agent.Preview{}
		}
		if err := g.json(previews); err != nil {
			return err
		}
	case "markdown":
		g.printf("%s", planMarkdown(previews, none))
	default:
		g.printf("%s", planText(previews, none))
	}
	return planExit(previews)
}

func planExit(previews []agent.Preview) error {
	pending, unseen := false, false
	for i := range previews {
		changes, destroys, waiting := previews[i].Counts()
		if waiting > 0 || previews[i].Blocked != "" {
			return &exitError{code: exitBlocked}
		}
		pending = pending || changes+destroys > 0
		unseen = unseen || !previews[i].Offline && len(previews[i].Unseen()) > 0
	}
	switch {
	case pending:
		return &exitError{code: exitPending}
	case unseen:
		return &exitError{code: exitFailed}
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
