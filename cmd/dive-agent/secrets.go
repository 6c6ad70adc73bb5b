package main

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dive-agent/config"
	"dive-agent/desired"
	"dive-agent/reconcilers/all"
	"dive-agent/secrets"
)

func newSecrets(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "secrets", Short: "Secrets of this host's instances: names and ages, never values"}
	cmd.AddCommand(newSecretsList(g), newSecretsSet(g), newSecretsRotate(g))
	return cmd
}

func newSecretsList(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "list [NAME]", Short: "Names and ages of the secrets of an instance, or of all", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := config.Load(g.config)
			if err != nil {
				return err
			}
			names, err := instancesOf(c)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if !slices.Contains(names, args[0]) {
					return fmt.Errorf("no secrets of instance %q on this host (has: %s)", args[0], cmp.Or(strings.Join(names, ", "), "none"))
				}
				names = args
			}
			all := map[string][]secrets.Info{}
			for _, name := range names {
				store, err := openSecrets(c, name)
				if err != nil {
					return err
				}
				if all[name], err = store.List(); err != nil {
					return err
				}
			}
			return writeSecrets(g, names, all)
		},
	}
}

func writeSecrets(g *globals, names []string, all map[string][]secrets.Info) error {
	if g.output == "json" {
		return g.json(all)
	}
	for _, name := range names {
		g.printf("%s\n", name)
		for _, info := range all[name] {
			more := ""
			if !info.Ends.IsZero() {
				more = "   valid until " + info.Ends.Format(time.DateTime)
			}
			if info.Replaced != "" {
				more += "   " + info.Replaced
			}
			if !info.Failing.IsZero() {
				more += "   the last value, since " + info.Failing.Format(time.DateTime) + ": " + info.Why
			}
			if !info.Present {
				more = "   MISSING"
			}
			g.printf("  %-28s %-16s generation %-3d made %s%s\n", info.Name, info.Kind, info.Generation, info.Made.Format(time.DateTime), more)
		}
	}
	return nil
}

func newSecretsSet(g *globals) *cobra.Command {
	var replace, force bool
	cmd := &cobra.Command{
		Use: "set INSTANCE NAME", Short: "Keep a secret that an operator provides; the value is read from standard input",
		Long: `Keeps a secret that the manifest wants provided, or puts back one that was lost. The value is read from standard input;
a line break that ends a single line is no part of it. A secret that the agent made, and that is there, is replaced only
with --replace: what was set up with the former value (a realm, a database) must know the new one first. Passwords of a
MongoReplicaSet need no first step: the agent sets the new one in the server, proving the former one; nor does the key file
that its members share, which they get beside the former one first (see rotate). A name that the
revision in force does not declare for an instance of this host is taken only with --force: for a merge that is to come.`,
		Example: "  dive-agent secrets set usa HUB_TLS_KEY < key.pem",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.Load(g.config)
			if err != nil {
				return err
			}
			if !force {
				if err := maySet(g, c, args[0], args[1]); err != nil {
					return err
				}
			}
			value, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
			if err != nil {
				return fmt.Errorf("cannot read the value from standard input: %w", err)
			}
			store, err := openSecrets(c, args[0])
			if err != nil {
				return err
			}
			if err := mayReplace(store, args[0], args[1], replace); err != nil {
				return err
			}
			if err := store.Set(cmd.Context(), args[1], value); err != nil {
				return err
			}
			g.printf("%s of %s is kept. The agent uses it from its next look on: dive-agent sync %[2]s\n", args[1], args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "replace a secret that the agent made")
	cmd.Flags().BoolVar(&force, "force", false, "take a name that no manifest declares yet")
	return cmd
}

// maySet refuses a name that the revision in force does not declare: nothing would ever use what is kept under it; and one
// whose value comes from elsewhere: what is set would be replaced at the next look. On a
// host that has taken no revision yet, or cannot read it, every name is taken.
func maySet(g *globals, c *config.Config, instance, name string) error {
	revision, fleet := inForce(g, c)
	if fleet == nil {
		return nil
	}
	if err := declaredIn(fleet, revision, c.Host, instance, name, "; if a merge that is to come declares it, say --force"); err != nil {
		return err
	}
	if from := fleet.Instances[instance].Secret(name).Source; from != nil {
		return fmt.Errorf("%s of %s comes from %s: change it there, or merge provide: true in its place", name, instance, from)
	}
	return nil
}

// inForce loads the revision in force; nil when there is none, or it cannot be read, of which the agent tells.
func inForce(g *globals, c *config.Config) (revision string, fleet *desired.Fleet) {
	h := &host{config: c, log: newLogger(g.streams, c.LogLevel, secrets.NewRedactor())}
	defer h.close()
	if h.openSource() != nil {
		return "", nil // how Git is reached is no matter of these commands
	}
	current, ok := h.source.Current()
	if !ok {
		return "", nil
	}
	fleet, err := desired.Load(current.Dir, desired.Options{Kinds: all.Registry.Kinds(), Allow: allowAll})
	if err != nil {
		return "", nil
	}
	return current.Short(), fleet
}

// declaredIn refuses an instance that is not bound to this host, and a secret that it does not declare. way is added.
func declaredIn(fleet *desired.Fleet, revision, host, instance, name, way string) error {
	var here []string
	for _, one := range fleet.Instances {
		if one.Host == host {
			here = append(here, one.Name)
		}
	}
	if !slices.Contains(here, instance) {
		return fmt.Errorf("%s binds no instance %q to this host%s%s", revision, instance, desired.HintOr(instance, here), way)
	}
	var names []string
	for _, spec := range fleet.Instances[instance].Secrets {
		names = append(names, spec.Name)
	}
	if !slices.Contains(names, name) {
		return fmt.Errorf("%s declares no secret %q of %s%s%s", revision, name, instance, desired.HintOr(name, names), way)
	}
	return nil
}

// mayReplace keeps a slip from destroying the only copy of a secret that data was made with.
func mayReplace(store *secrets.Store, instance, name string, replace bool) error {
	all, err := store.List()
	if err != nil || replace {
		return err
	}
	for _, info := range all {
		if info.Name == name && info.Present && info.Kind != "provided" {
			return fmt.Errorf("%s of %s was made by the agent and is there: what was set up with it would not open with another value. "+
				"Change it there first (a MongoReplicaSet's users and key file need no such step), then set it with --replace", name, instance)
		}
	}
	return nil
}

func openSecrets(c *config.Config, instance string) (*secrets.Store, error) {
	if filepath.Base(instance) != instance || instance == "." || instance == ".." || instance == "" {
		return nil, &exitError{exitUsage, fmt.Errorf("%q is no name of an instance", instance)}
	}
	dir := filepath.Join(c.StateDir, "instances", instance, "secrets")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the secrets folder: %w", err)
	}
	return secrets.Open(secrets.Options{Instance: instance, Dir: dir, Random: rand.Reader, Now: time.Now, Keys: hostKey(c)})
}

func instancesOf(c *config.Config) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(c.StateDir, "instances"))
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("cannot read the state folder: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}
