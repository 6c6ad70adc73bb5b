package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"dive-agent/config"
	"dive-agent/desired"
	"dive-agent/reconcilers/all"
)

func newValidate(g *globals) *cobra.Command {
	var allow allowed
	cmd := &cobra.Command{
		Use: "validate [DIR]", Short: "Check a fleet repository without a host: schema, references, collisions",
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			if _, err := os.Stat(dir); err != nil {
				return fmt.Errorf("cannot read the fleet repository: %w", err)
			}
			if err := allow.check(); err != nil {
				return err
			}
			fleet, err := desired.Load(dir, desired.Options{Kinds: all.Registry.Kinds(), Allow: allow.by})
			var problems desired.Problems
			if err != nil && !errors.As(err, &problems) {
				return err
			}
			return writeValidation(g, fleet, problems)
		},
	}
	allow.flag(cmd)
	return cmd
}

// allowed is what the hosts allow modules and stacks, for commands that judge a repository without a host.
type allowed []string

func (a *allowed) flag(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar((*[]string)(a), "allow", nil, "what the hosts allow Terraform modules and stacks in terraform.allow and compose.allow of their agent.yaml, a word each")
}

func (a allowed) check() error {
	if problems := config.CheckAllow("--allow", a); len(problems) > 0 {
		return &exitError{code: exitUsage, err: errors.New(strings.Join(problems, "; "))}
	}
	return nil
}

// by is the same for each host.
func (a allowed) by(string) []string { return a }

// allowAll is for commands that read a repository and judge nothing in it.
func allowAll(string) []string { return []string{desired.AllowAll} }

// writeValidation shows all problems; any makes the exit code exitData. JSON has a list also when it is empty.
func writeValidation(g *globals, fleet *desired.Fleet, problems desired.Problems) error {
	if g.output == "json" {
		if problems == nil {
			problems = desired.Problems{}
		}
		if err := g.json(map[string]any{"ok": len(problems) == 0, "problems": problems}); err != nil {
			return err
		}
	} else if len(problems) == 0 {
		g.printf("%d %s on %d %s: no problem found.\n", len(fleet.Instances), plural(len(fleet.Instances), "instance"),
			len(fleet.Hosts), plural(len(fleet.Hosts), "host"))
	}
	if len(problems) == 0 {
		return nil
	}
	if g.output != "json" {
		width, files := 0, map[string]bool{}
		for _, problem := range problems {
			width = max(width, len(problem.Position.String()))
			files[problem.Position.File] = true
		}
		for _, problem := range problems {
			g.printf("%-*s  %s\n", width, problem.Position, problem.Message)
		}
		g.printf("\n%d %s in %d %s. Nothing was changed.\n", len(problems), plural(len(problems), "problem"), len(files), plural(len(files), "file"))
	}
	return &exitError{code: exitData}
}

func newSchema(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the manifests, for editors", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			schema, err := desired.Schema(all.Registry.Kinds())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(g.out, string(schema))
			return err
		},
	}
}
