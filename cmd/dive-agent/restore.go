package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"dive-agent/reconcilers"
)

func newRestore(g *globals) *cobra.Command {
	var (
		backup    reconcilers.BackupFile
		component string
		yes       bool
	)
	cmd := &cobra.Command{
		Use: "restore INSTANCE FILE", Short: "Bring a backup back into a running replica set, after saying what it overwrites",
		Long: `Reads the whole backup, says which collections it would overwrite with how many documents, asks, and restores.
Collections of the backup replace those of the same name as a whole; what the backup does not hold stays. A damaged
file is refused before anything is touched. Users and roles are not in a backup: the manifest has them.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			backup.Path = path
			return g.restore(cmd.Context(), cmd.InOrStdin(), args[0], component, backup, yes)
		},
	}
	cmd.Flags().StringSliceVar(&backup.Databases, "database", nil, "only this database of the backup; may be given again")
	cmd.Flags().StringVar(&backup.Identity, "identity", "", "file with the age identity of an encrypted backup")
	cmd.Flags().StringVar(&backup.From, "from", "", "name of the replica set that the backup was made of, when it is another one")
	cmd.Flags().StringVar(&component, "component", "", "which component, when the instance has several")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (g *globals) restore(ctx context.Context, in io.Reader, instance, component string, backup reconcilers.BackupFile, yes bool) error {
	h, err := openHost(ctx, g, hostOptions{readOnly: true})
	if err != nil {
		return err
	}
	defer h.close()
	revision, err := h.followed()
	if err != nil {
		return err
	}
	restorer, target, err := h.agent.Restorer(ctx, revision, instance, component)
	if err != nil {
		return err
	}
	list, err := restorer.Overwrites(ctx, target, backup)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("%s holds no collections: there is nothing to restore", backup.Path)
	}
	if g.output != "json" {
		g.printf("Into %s of %s, from the backup of %s:\n", target.Component.Name, instance, list[0].Taken.Local().Format("2006-01-02 15:04:05"))
		for _, o := range list {
			if o.Type == "view" {
				g.printf("  %s.%s: the view is made anew\n", printable(o.Database), printable(o.Collection))
				continue
			}
			g.printf("  %s.%s: %d documents there now are replaced by %d\n", printable(o.Database), printable(o.Collection), o.Now, o.Backup)
		}
	}
	if !yes && !g.confirmed(in) {
		return &exitError{exitBlocked, errors.New("nothing was restored: it was not confirmed, by yes on a terminal or by --yes")}
	}
	release, err := h.agent.Reserve(ctx, instance, func() {
		_, _ = fmt.Fprintf(g.err, "Waiting for the agent to end its work on %s\n", instance)
	})
	if err != nil {
		return err
	}
	defer release()
	if err := restorer.Restore(ctx, target, backup); err != nil {
		return err
	}
	if g.output == "json" {
		return g.json(map[string]any{"instance": instance, "component": target.Component.Name, "file": backup.Path, "restored": list})
	}
	g.printf("Restored %d collections.\n", len(list))
	return nil
}
