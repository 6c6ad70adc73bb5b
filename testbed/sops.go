package testbed

import (
	"context"
	"testing"
	"time"
)

const (
	sopsVersion = "v3.13.3"
	sopsLimit   = 20 * time.Minute
)

// SOPS returns the program `sops`, built from the Go module when the cache lacks it: a minute or two.
func SOPS(tb testing.TB) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), sopsLimit)
	defer cancel()
	path, err := goInstall(ctx, logProgress(tb), "github.com/getsops/sops/v3/cmd/sops", sopsVersion, "sops")
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	return path
}

// GPG returns the program `gpg`, which is installed when it is not there.
func GPG(tb testing.TB) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), engineLimit)
	defer cancel()
	if err := install(ctx, logProgress(tb), needProgram{"gpg", "gnupg"}); err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	return lookPath("gpg")
}
