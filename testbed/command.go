package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Progress receives one line for each step of the test bed's work. It must be safe for concurrent use.
type Progress func(format string, args ...any)

// LineProgress writes each step as one line with the seconds since the start.
func LineProgress(w io.Writer) Progress {
	var mu sync.Mutex
	begin := time.Now()
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintf(w, "testbed %6.1fs  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
}

// command is a program to run to its end.
type command struct {
	dir  string
	env  []string // added to the process's own
	name string
	args []string
}

// run runs the program and returns what it printed. The error carries its last lines. No input is given, and its
// whole process group is ended when the context is.
func (c command) run(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, c.name, c.args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	cmd.WaitDelay = 5 * time.Second
	endGroup(cmd)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return out.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(c.name), firstWords(c.args, 4), err, lastLines(out.String(), 25))
	}
	return out.String(), nil
}

func firstWords(args []string, n int) string {
	if len(args) > n {
		return strings.Join(args[:n], " ") + " ..."
	}
	return strings.Join(args, " ")
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return "    " + strings.Join(lines, "\n    ")
}

var (
	aptMu      sync.Mutex
	aptUpdated bool
)

// needProgram is a program and the Debian package that brings it.
type needProgram struct{ program, pkg string }

// install makes sure that every program is there, by installing the packages of those that are not.
func install(ctx context.Context, say Progress, needs ...needProgram) error {
	aptMu.Lock()
	defer aptMu.Unlock()
	var missing []string
	for _, n := range needs {
		if lookPath(n.program) == "" {
			missing = append(missing, n.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	names := strings.Join(missing, " ")
	if lookPath("apt-get") == "" {
		return fmt.Errorf("these Debian packages are needed and apt-get is not here: %s", names)
	}
	if u, err := user.Current(); err == nil && u.Uid != "0" {
		return fmt.Errorf("these Debian packages are needed: install them as root with `apt-get install %s`", names)
	}
	begin := time.Now()
	unlock, err := lockFile(ctx, filepath.Join(CacheDir(), "apt.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	if !aptUpdated {
		say("apt-get update")
		if _, err := (command{name: "apt-get", args: []string{"update", "-q"}, env: env}).run(ctx); err != nil {
			return fmt.Errorf("refresh Debian's package lists: %w", err)
		}
		aptUpdated = true
	}
	say("apt-get install %s", names)
	args := append([]string{"-o", "DPkg::Lock::Timeout=120", "install", "-y", "-q", "--no-install-recommends"}, missing...)
	if _, err := (command{name: "apt-get", args: args, env: env}).run(ctx); err != nil {
		return fmt.Errorf("install %s: %w", names, err)
	}
	say("installed %s in %.1f s", names, time.Since(begin).Seconds())
	return nil
}

// lookPath finds a program in PATH or in the folders for administrators, which a plain user's PATH lacks.
func lookPath(program string) string {
	if path, err := exec.LookPath(program); err == nil || errors.Is(err, exec.ErrDot) {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}
