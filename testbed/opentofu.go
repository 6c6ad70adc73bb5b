package testbed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const (
	tofuVersion = "1.12.6"
	tofuLimit   = 40 * time.Minute
	// tofuModule builds OpenTofu, whose own replaced module keeps `go install` from doing so.
	tofuModule = `module build

go 1.26

require github.com/opentofu/opentofu v` + tofuVersion + `

replace github.com/hashicorp/hcl/v2 v2.20.1 => github.com/opentofu/hcl/v2 v2.20.2-0.20251021132045-587d123c2828

tool github.com/opentofu/opentofu/cmd/tofu
`
)

// OpenTofu returns the program `tofu`, built from the Go module when the cache lacks it: some minutes.
func OpenTofu(tb testing.TB) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), tofuLimit)
	defer cancel()
	dir, err := cached(ctx, "opentofu-"+tofuVersion, func(ctx context.Context, path string) error {
		source, err := os.MkdirTemp("", "opentofu-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(source) }()
		if err := os.WriteFile(filepath.Join(source, "go.mod"), []byte(tofuModule), 0o600); err != nil {
			return err
		}
		_, err = command{
			dir: source, env: []string{"CGO_ENABLED=0", "GOFLAGS=-mod=mod"}, name: "go",
			args: []string{"build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(path, "tofu"), "github.com/opentofu/opentofu/cmd/tofu"},
		}.run(ctx)
		if err != nil {
			return fmt.Errorf("build OpenTofu %s: %w", tofuVersion, err)
		}
		return nil
	})
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	return filepath.Join(dir, "tofu")
}
