package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// moduleDir is the root of this module's checkout.
func moduleDir() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if ok && filepath.IsAbs(file) {
		return filepath.Dir(filepath.Dir(file)), nil
	}
	dir, err := os.Getwd() // built with -trimpath
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		raw, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(raw), "module dive-agent\n") {
			return dir, nil
		}
	}
	return "", errors.New("run this inside the checkout: no go.mod of dive-agent here or above")
}

// goBinary builds the main package (a path like ./testbed/services) as a static program and returns where it lies. It
// is the Go tool that knows whether there is something to do.
func goBinary(ctx context.Context, pkg string) (string, error) {
	root, err := moduleDir()
	if err != nil {
		return "", err
	}
	out := filepath.Join(CacheDir(), "bin", digest(root), filepath.Base(pkg))
	unlock, err := lockFile(ctx, out+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	_, err = command{
		dir: root, env: []string{"CGO_ENABLED=0", "GOFLAGS=", "GOOS=linux"}, name: "go",
		args: []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, pkg},
	}.run(ctx)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	return out, nil
}
