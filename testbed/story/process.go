package story

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dive-agent/testbed"
)

// process is a program that the demo started.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs a program in the background, its output in <name>.log and its identity in <name>.pid.
func (w *world) start(name, program string, args ...string) error {
	log, err := os.OpenFile(w.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), w.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", name, err)
	}
	started, err := startTime(cmd.Process.Pid)
	if err != nil {
		return err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.done) }() // how it ended is in its log
	if w.processes == nil {
		w.processes = map[string]*process{}
	}
	w.processes[name] = p
	return os.WriteFile(w.path(name+".pid"), fmt.Appendf(nil, "%d %s", cmd.Process.Pid, started), 0o600)
}

// stop sends a signal to a process and waits for its end.
func (w *world) stop(ctx context.Context, name string, signal syscall.Signal) error {
	p := w.processes[name]
	if err := p.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("cannot stop %s: %w", name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not stop: %w", name, ctx.Err())
	}
}

// startTime tells two processes of one number apart: field 22 of /proc/PID/stat.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", fmt.Errorf("cannot read /proc/%d/stat", pid)
	}
	return fields[19], nil
}

// endProcess ends the process that a pid file names, if it is still that one.
func endProcess(ctx context.Context, file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	number, started, _ := strings.Cut(string(content), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", file, err)
	}
	same := func() bool {
		now, err := startTime(pid)
		return err == nil && now == started && !isZombie(pid)
	}
	if !same() {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	err = testbed.Until(ctx, 20*time.Second, often, filepath.Base(file), func() error {
		if same() {
			return errors.New("still runs")
		}
		return nil
	})
	if err != nil && same() {
		return syscall.Kill(pid, syscall.SIGKILL)
	}
	return nil
}

func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && strings.HasPrefix(rest, "Z")
}

// command runs a program to its end and gives its output.
func (w *world) command(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.org", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.org",
		"GIT_CONFIG_GLOBAL=/dev/null")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(errs.String()+out.String()))
	}
	return out.String(), nil
}

// show runs a program with its output where the demo's is, so that it can draw on a terminal.
func (w *world) show(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	return cmd.Run()
}

// exitCode is the code a command ended with, -1 when it did not run.
func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err == nil {
		return 0
	}
	return -1
}
