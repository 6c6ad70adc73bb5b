package stored_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/secrets"
	"dive-agent/testbed/stored"
)

func TestValuesOfAnEncryptedStore(t *testing.T) {
	state := t.TempDir()
	dir := filepath.Join(state, "instances", "deu", "secrets")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	key := secrets.NewHostKey(secrets.HostKeyOptions{File: filepath.Join(state, "secrets.key"), Random: rand.Reader})
	s, err := secrets.Open(secrets.Options{Instance: "deu", Dir: dir, Random: rand.Reader, Now: time.Now, Keys: key})
	require.NoError(t, err)
	made, err := s.Ensure(t.Context(), []desired.SecretSpec{{Name: "TOKEN", Generate: &desired.Generate{Kind: "token"}}}, secrets.EnsureOptions{})
	require.NoError(t, err)
	require.NoError(t, s.Set(t.Context(), "GIVEN", []byte("value-of-an-operator")))
	values, err := stored.Values(state, "deu")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"TOKEN": made.Values["TOKEN"].Text(), "GIVEN": "value-of-an-operator"}, values)
	require.NoError(t, os.Remove(filepath.Join(state, "secrets.key")))
	_, err = stored.Values(state, "deu")
	require.ErrorContains(t, err, "not on this host")
}
