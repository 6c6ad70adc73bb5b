package testbed

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPrefixIsFitForNamesAndUnique(t *testing.T) {
	a, b := Prefix(t), Prefix(t)
	assert.NotEqual(t, a, b)
	assert.Regexp(t, `^t[a-z0-9]{1,20}-[0-9a-f]{8}$`, a)
	t.Run("with: odd/signs Ü", func(t *testing.T) { assert.Regexp(t, `^t[a-z0-9]{1,20}-[0-9a-f]{8}$`, Prefix(t)) })
}

func TestUntilGivesTheLastAnswer(t *testing.T) {
	n := 0
	err := Until(t.Context(), 100*time.Millisecond, 10*time.Millisecond, "the tide", func() error {
		n++
		return errors.New("not yet")
	})
	require.EqualError(t, err, "the tide: not within 100ms: not yet")
	assert.Greater(t, n, 1)
	require.NoError(t, Until(t.Context(), time.Second, time.Millisecond, "the tide", func() error {
		if n--; n > 0 {
			return errors.New("soon")
		}
		return nil
	}))
}

func TestUnknownImageNamesWhatThereIs(t *testing.T) {
	_, err := findRecipe("dive-testbed/mongod:3.6")
	require.ErrorContains(t, err, string(Mongod605))
}

func TestImageIsMovedBackWithoutBeingMade(t *testing.T) {
	cli := Engine(t)
	Image(t, Redis7)
	info, err := cli.ImageInspect(t.Context(), string(Redis7))
	require.NoError(t, err)
	begin := time.Now()
	Image(t, Redis7)
	assert.Less(t, time.Since(begin), 10*time.Second, "what is there is found, not made")
	again, err := cli.ImageInspect(t.Context(), string(Redis7))
	require.NoError(t, err)
	assert.Equal(t, info.ID, again.ID)
}

func TestProviderMirrorServesTerraform(t *testing.T) {
	m := ProviderMirror(t)
	dir := t.TempDir()
	module := `terraform {
  required_providers {
    keycloak = { source = "keycloak/keycloak", version = "~> 5.6" }
  }
}
`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.tf"), []byte(module), 0o600))
	cmd := exec.CommandContext(t.Context(), "terraform", "init", "-input=false", "-no-color")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+m.ConfigFile, "CHECKPOINT_DISABLE=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "keycloak/keycloak v5.")
}

func TestProviderMirrorOfSomebodyElse(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TESTBED_PROVIDER_MIRROR", dir)
	_, err := EnsureProviderMirror(t.Context())
	require.ErrorContains(t, err, "is no mirror of "+providerAddress)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, providerAddress), 0o755))
	m, err := EnsureProviderMirror(t.Context())
	require.NoError(t, err)
	assert.Equal(t, dir, m.Dir)
	raw, err := os.ReadFile(m.ConfigFile)
	require.NoError(t, err)
	assert.True(t, strings.Contains(string(raw), dir))
}
