package testbed

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// limits of what a test may make the test bed do for it.
const (
	engineLimit = 5 * time.Minute
	imageLimit  = 15 * time.Minute
)

// Engine returns a client of a running engine, which is started when none answers. The client is closed with the test.
func Engine(tb testing.TB) *client.Client {
	tb.Helper()
	cli, err := Connect(Host(tb))
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	tb.Cleanup(func() { _ = cli.Close() })
	return cli
}

// Host returns the address (a DOCKER_HOST value) of a running engine, which is started when none answers.
func Host(tb testing.TB) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), engineLimit)
	defer cancel()
	host, _, err := EnsureEngine(ctx, logProgress(tb))
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	return host
}

// Image returns the reference of the image, which is made when the engine lacks it. Making the first one takes a
// minute, Keycloak's two; `make testbed` makes all ahead of time.
func Image(tb testing.TB, name ImageName) string {
	tb.Helper()
	host := Host(tb)
	ctx, cancel := context.WithTimeout(tb.Context(), imageLimit)
	defer cancel()
	if err := EnsureImages(ctx, host, logProgress(tb), name); err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	return string(name)
}

// Pinned is Image for a test that looks at one image for long: see PinnedImage.
func Pinned(tb testing.TB, name ImageName) string {
	tb.Helper()
	host := Host(tb)
	ctx, cancel := context.WithTimeout(tb.Context(), imageLimit)
	defer cancel()
	image, err := PinnedImage(ctx, host, logProgress(tb), name)
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	return image
}

// Prefix returns a name that no other test has, fit for containers, networks, volumes, Compose projects and realms: the
// start of the test's name, in lower case, and eight random digits.
func Prefix(tb testing.TB) string {
	tb.Helper()
	raw := make([]byte, 4)
	_, _ = rand.Read(raw)
	var name strings.Builder
	for _, r := range strings.ToLower(strings.TrimPrefix(tb.Name(), "Test")) {
		if name.Len() == 20 {
			break
		}
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			name.WriteRune(r)
		}
	}
	return "t" + name.String() + "-" + hex.EncodeToString(raw)
}

// FreePort returns a TCP port that nothing listens on, on any address, at the time of the call.
func FreePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		tb.Fatalf("test bed: find a free port: %v", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// GoBinary builds a main package of this module, named like ./cmd/dive-agent, as a static program and returns where it
// lies. Building what did not change takes a moment.
func GoBinary(tb testing.TB, pkg string) string {
	tb.Helper()
	path, err := goBinary(tb.Context(), pkg)
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	return path
}

// Checkout returns the root folder of this module's checkout.
func Checkout(tb testing.TB) string {
	tb.Helper()
	dir, err := moduleDir()
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	return dir
}

// logProgress writes to standard error: what takes minutes should be seen while it does.
func logProgress(tb testing.TB) Progress {
	line := LineProgress(os.Stderr)
	return func(format string, args ...any) { line("%s: "+format, append([]any{tb.Name()}, args...)...) }
}
