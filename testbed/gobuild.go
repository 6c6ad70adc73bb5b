package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
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

// goInstall builds a program of another module, once for each version, and returns where it lies.
func goInstall(ctx context.Context, say Progress, pkg, version, program string) (string, error) {
	dir, err := cached(ctx, program+"-"+version, func(ctx context.Context, path string) error {
		say("go install %s@%s", pkg, version)
		begin := time.Now()
		_, err := command{
			dir: os.TempDir(), env: []string{"GOBIN=" + path, "CGO_ENABLED=0", "GOFLAGS="}, name: "go",
			args: []string{"install", "-trimpath", "-ldflags=-s -w", pkg + "@" + version},
		}.run(ctx)
		if err != nil {
			return fmt.Errorf("build %s %s: %w", pkg, version, err)
		}
		say("built %s in %.1f s", program, time.Since(begin).Seconds())
		return nil
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, program), nil
}
