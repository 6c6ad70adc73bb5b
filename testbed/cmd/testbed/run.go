package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"dive-agent/testbed"
)

// runOn brings the test bed up, runs the command, and stops the engine again if this run started it. -keep leaves it
// running. The command's exit code becomes ours.
func runOn(ctx context.Context, say testbed.Progress, args []string) error {
	keep := false
	if len(args) > 0 && args[0] == "-keep" {
		keep, args = true, args[1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("run needs a command: testbed run [-keep] -- COMMAND")
	}
	wasThere := testbed.RunningEngine(ctx) != ""
	err := up(ctx, say)
	if err == nil {
		err = runCommand(args)
	}
	if wasThere || keep {
		return err
	}
	downCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	_, downErr := testbed.StopEngine(downCtx, say)
	return errors.Join(err, downErr)
}

// commandError carries the exit code of the command.
type commandError struct {
	name string
	code int
}

func (e commandError) Error() string { return fmt.Sprintf("%s: exit status %d", e.name, e.code) }

// runCommand waits for the command to its end, however long that takes: it has limits of its own. An interrupt from the
// terminal reaches the command by itself, a termination is passed on; each time its end is waited for.
func runCommand(args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", args[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGTERM {
				_ = cmd.Process.Signal(s)
			}
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return commandError{name: args[0], code: max(exit.ExitCode(), 1)}
			}
			return err
		}
	}
}
