package testbed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The provider that the examples' Terraform modules name.
const (
	providerAddress = "registry.terraform.io/keycloak/keycloak"
	tofuAddress     = "registry.opentofu.org/keycloak/keycloak" // what OpenTofu makes of the same short name
	providerVersion = "5.6.0"
	providerPackage = "./testbed/provider"
)

// Mirror is a Terraform filesystem mirror.
type Mirror struct {
	// Dir is the mirror's folder: the argument of `terraform init -plugin-dir`, or the path of a filesystem_mirror block.
	Dir string
	// ConfigFile is a Terraform CLI configuration that takes every provider from Dir and none from the network: the
	// value of TF_CLI_CONFIG_FILE.
	ConfigFile string
}

// ProviderMirror returns a filesystem mirror with the provider keycloak/keycloak: the folder that TESTBED_PROVIDER_MIRROR
// names, for which someone has the real provider, else one with the test bed's own, built from this checkout.
func ProviderMirror(tb testing.TB) Mirror {
	tb.Helper()
	m, err := EnsureProviderMirror(tb.Context())
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	return m
}

// EnsureProviderMirror is [ProviderMirror] for programs.
func EnsureProviderMirror(ctx context.Context) (Mirror, error) {
	if dir := os.Getenv("TESTBED_PROVIDER_MIRROR"); dir != "" {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return Mirror{}, err
		}
		if _, err := os.Stat(filepath.Join(dir, providerAddress)); err != nil {
			return Mirror{}, fmt.Errorf("TESTBED_PROVIDER_MIRROR=%s is no mirror of %s (`terraform providers mirror` makes one): %w",
				dir, providerAddress, err)
		}
		return withConfigFile(ctx, dir)
	}
	program, err := goBinary(ctx, providerPackage)
	if err != nil {
		return Mirror{}, err
	}
	sum, err := digestFiles(program)
	if err != nil {
		return Mirror{}, err
	}
	// Named by content: a Terraform that runs keeps its program while another checkout builds a new one.
	dir, err := cached(ctx, "provider-mirror-"+sum+"-2", func(_ context.Context, path string) error {
		raw, err := os.ReadFile(program)
		if err != nil {
			return err
		}
		for _, address := range []string{providerAddress, tofuAddress} {
			at := filepath.Join(path, address, providerVersion, runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-keycloak_v"+providerVersion)
			if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(at, raw, 0o755); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Mirror{}, fmt.Errorf("make the provider mirror: %w", err)
	}
	return withConfigFile(ctx, dir)
}

// withConfigFile writes the Terraform CLI configuration for the mirror into the cache.
func withConfigFile(ctx context.Context, dir string) (Mirror, error) {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(dir)
	text := "provider_installation {\n  filesystem_mirror {\n    path = \"" + quoted + "\"\n  }\n}\n\ndisable_checkpoint = true\n"
	file, err := cached(ctx, "terraform-"+digest(text)+".tfrc", func(_ context.Context, path string) error {
		return os.WriteFile(path, []byte(text), 0o644)
	})
	if err != nil {
		return Mirror{}, fmt.Errorf("write the Terraform configuration: %w", err)
	}
	return Mirror{Dir: dir, ConfigFile: file}, nil
}
