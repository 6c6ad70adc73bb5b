package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"dive-agent/config"
)

func newEnroll(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "enroll", Short: "Print this host's file for the fleet repository, hosts/<name>.yaml", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := config.Load(g.config)
			if err != nil {
				return err
			}
			id := machineID(c)
			if id == "" {
				return fmt.Errorf("this host has no machine id: make one with systemd-machine-id-setup, or set machineID in %s", g.config)
			}
			if g.output == "json" {
				return g.json(map[string]string{"name": c.Host, "machineID": id})
			}
			g.printf("# Merge this as hosts/%s.yaml. Instances with host: %[1]s then run on this machine and on no other.\n", c.Host)
			g.printf("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: %s}\nspec: {machineID: %q}\n", c.Host, id)
			return nil
		},
	}
}
