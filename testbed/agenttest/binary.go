// Package agenttest runs the agent's real program in tests: a fleet repository behind a real Git server, hosts with agents
// as processes, and the questions that tests ask them.
package agenttest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	buildMu sync.Mutex
	built   = map[string]string{}
	shelf   string
)

// Binary builds the agent with the race detector and the given build tags, once per test program.
func Binary(tb testing.TB, tags ...string) string {
	tb.Helper()
	return build(tb, strings.Join(tags, ","), nil, "-race", "-tags", strings.Join(tags, ","))
}

// Stripped builds the agent as `make build` does, for tests that measure it, once per test program.
func Stripped(tb testing.TB) string {
	tb.Helper()
	return build(tb, "stripped", []string{"CGO_ENABLED=0"}, "-trimpath", "-ldflags", "-s -w")
}

func build(tb testing.TB, key string, env []string, flags ...string) string {
	tb.Helper()
	buildMu.Lock()
	defer buildMu.Unlock()
	if path := built[key]; path != "" {
		return path
	}
	if shelf == "" {
		dir, err := os.MkdirTemp("", "dive-agent-test-")
		if err != nil {
			tb.Fatalf("make a folder for the agent's program: %v", err)
		}
		shelf = dir
	}
	path := filepath.Join(shelf, "dive-agent-"+strings.ReplaceAll(key, ",", "-"))
	cmd := exec.CommandContext(context.Background(), "go", slices.Concat([]string{"build"}, flags, []string{"-o", path, "./cmd/dive-agent"})...)
	cmd.Dir, cmd.Env = moduleRoot(), append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("build the agent: %v\n%s", err, out)
	}
	built[key] = path
	return path
}

// Main runs the tests of a package and removes what Binary built.
func Main(m *testing.M) {
	code := m.Run()
	if shelf != "" {
		_ = os.RemoveAll(shelf) // the system's folder for temporary files is cleaned by others too
	}
	os.Exit(code)
}

func moduleRoot() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}
