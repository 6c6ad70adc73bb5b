// Command dive-agent keeps the instances of one host in the state that a Git repository of manifests declares.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"dive-agent/config"
	"dive-agent/desired"
)

// Exit codes of all commands.
const (
	exitDone    = 0
	exitFailed  = 1
	exitPending = 2  // plan: there are changes
	exitBlocked = 3  // a person must do something
	exitUsage   = 64 // bad usage
	exitData    = 65 // bad manifest
)

// exitError ends the program with a code. A nil err means that all was said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// version is set by the linker.
var version = "dev"

func versionText() string {
	if version != "dev" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return version
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], streams{os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// execute runs one command line and gives its exit code.
func execute(ctx context.Context, args []string, out streams) int {
	root := newRoot(out)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			say(out.err, exit.err)
		}
		return exit.code
	}
	say(out.err, err)
	var problems desired.Problems
	if errors.As(err, &problems) {
		return exitData
	}
	return exitFailed
}

func say(w interface{ Write([]byte) (int, error) }, err error) {
	_, _ = fmt.Fprintln(w, "dive-agent: "+printable(err.Error())) // nobody to tell when standard error is gone
}

// globals are the flags of all commands.
type globals struct {
	streams
	config string
	output string
}

func newRoot(out streams) *cobra.Command {
	g := &globals{streams: out}
	root := &cobra.Command{
		Use:           "dive-agent",
		Short:         "Keeps the instances of this host in the state that a Git repository declares",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       versionText(),
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if g.output != "text" && g.output != "json" && g.output != "markdown" && g.output != "svg" {
				return &exitError{exitUsage, fmt.Errorf("--output %q is none of text, json, markdown, svg", g.output)}
			}
			return nil
		},
	}
	root.SetOut(out.out)
	root.SetErr(out.err)
	root.PersistentFlags().StringVar(&g.config, "config", config.DefaultPath, "the host's configuration")
	root.PersistentFlags().StringVarP(&g.output, "output", "o", "text", "text or json; markdown for plan, svg for graph")
	root.AddCommand(
		newRun(g), newOnce(g), newPlan(g), newValidate(g), newGraph(g),
		newStatus(g), newHistory(g), newEvents(g), newSync(g), newVerify(g), newRestore(g), newAdopt(g), newRollback(g), newSuspend(g), newResume(g),
		newInit(g), newNew(g), newEnroll(g), newVerifyStatus(g), newDoctor(g), newSchema(g), newSecrets(g), newVersion(g),
	)
	root.InitDefaultCompletionCmd()
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError(cmd, err.Error()) })
	explainUsage(root)
	return root
}

// explainUsage makes a command and those below it end with exitUsage, and say how they are used, when they are given other
// arguments than they take. A misspelt command is never just answered with the help text, which scripts take for success.
func explainUsage(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		explainUsage(sub)
	}
	if cmd.HasSubCommands() {
		cmd.SuggestionsMinimumDistance, cmd.DisableFlagsInUseLine = 2, true
		cmd.RunE = func(*cobra.Command, []string) error { return cmd.Help() }
		cmd.Args = func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			wrong := fmt.Sprintf("no command %q", args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				wrong += fmt.Sprintf(", did you mean %q?", near[0])
			}
			return usageError(cmd, wrong)
		}
		return
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(_ *cobra.Command, args []string) error {
			if check(cmd, args) == nil {
				return nil
			}
			return usageError(cmd, fmt.Sprintf("%d %s given, usage: %s", len(args), plural(len(args), "argument"), cmd.UseLine()))
		}
	}
}

func usageError(cmd *cobra.Command, wrong string) error {
	return &exitError{exitUsage, fmt.Errorf("%s (see %s --help)", wrong, cmd.CommandPath())}
}

func newVersion(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if g.output == "json" {
				return g.json(map[string]string{"version": versionText()})
			}
			_, err := fmt.Fprintln(g.out, "dive-agent "+versionText())
			return err
		},
	}
}
