package keycloak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// A Terraform that is killed in the middle of an apply leaves an empty state in one of four cases, and terraform-exec
// has the kernel kill it when the agent dies. So an apply is started through this shim: the program's own executable,
// which starts Terraform in a session of its own with its output in a file, and copies that file to its own output. When
// the agent is killed the shim dies with it; Terraform finishes what it does, and the next agent waits for it and reads
// the file.

// The shim's orders are in its environment; Terraform does not get them.
const (
	shimTool   = "DIVE_AGENT_TERRAFORM"
	shimOutput = "DIVE_AGENT_TERRAFORM_OUTPUT"
)

func init() {
	if tool := os.Getenv(shimTool); tool != "" {
		os.Exit(shim(tool, os.Getenv(shimOutput), os.Args[1:]))
	}
}

// shim runs Terraform and returns its exit code. All but an apply needs no shelter and simply takes its place.
func shim(tool, output string, args []string) int {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, shimTool) {
			env = append(env, entry)
		}
	}
	syscall.Umask(0o077)
	if len(args) == 0 || args[0] != "apply" {
		fmt.Fprintln(os.Stderr, syscall.Exec(tool, append([]string{tool}, args...), env))
		return 127
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)

	written, err := os.OpenFile(output, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	if err := reserve(written, outputRoom); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	read, err := os.Open(output)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	cmd := exec.Command(tool, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, written, written
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return follow(cmd.Process, read, signals, ended)
}

// follow copies what is written until the process ends, and hands interrupts on to it.
func follow(process *os.Process, read io.Reader, signals <-chan os.Signal, ended <-chan error) int {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.Copy(os.Stdout, read); err != nil {
			// Nobody listens any more; Terraform goes on and its output stays in the file.
			_ = process.Release()
			return 0
		}
		select {
		case <-signals:
			_ = process.Signal(os.Interrupt)
		case <-tick.C:
		case err := <-ended:
			_, _ = io.Copy(os.Stdout, read)
			var exit *exec.ExitError
			switch {
			case err == nil:
				return 0
			case errors.As(err, &exit) && exit.ExitCode() >= 0:
				return exit.ExitCode()
			default:
				fmt.Fprintln(os.Stderr, "it was ended from outside:", err)
				return 1
			}
		}
	}
}

// terminated tells whether an error of terraform-exec says that the process was made to stop from outside. Such an error is
// not to be asked for its text: for a process that ended well at that moment it has none, and panics.
func terminated(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
