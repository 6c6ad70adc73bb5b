package secrets_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/secrets"
)

func TestHostTeachesTheRedactorBeforeItHandsOut(t *testing.T) {
	redactor := secrets.NewRedactor()
	host := &secrets.Host{Random: rand.Reader, Now: func() time.Time { return made }, Redactor: redactor,
		Blocked: func(r secrets.Resolvable) error { return fmt.Errorf("blocked %s: %w. %s", r.Reason(), r, r.Do()) }}
	instance := &desired.Instance{Name: "deu", Secrets: []desired.SecretSpec{generate("TOKEN", "token"), generate("KEY", "ed25519")}}
	dir := filepath.Join(t.TempDir(), "secrets")

	require.NoError(t, os.MkdirAll(dir, 0o700))
	half := filepath.Join(dir, ".keyfile.writing-1")
	require.NoError(t, os.WriteFile(half, []byte("half"), 0o600))
	peeked, err := host.Peek(t.Context(), instance, dir)
	require.NoError(t, err)
	require.NoFileExists(t, half)
	require.Len(t, peeked, 3)
	require.True(t, peeked["TOKEN"].Secret())
	require.False(t, peeked["TOKEN"].Known())
	require.False(t, peeked["KEY_PUBLIC"].Secret())
	require.False(t, peeked["KEY_PUBLIC"].Known())

	values, names, err := host.Ensure(t.Context(), instance, dir, noData)
	require.NoError(t, err)
	require.Equal(t, []string{"TOKEN", "KEY"}, names)
	require.Equal(t, "Bearer (secret)", redactor.Redact("Bearer "+values["TOKEN"].Text()))
	require.Equal(t, values["KEY_PUBLIC"].Text(), redactor.Redact(values["KEY_PUBLIC"].Text()))

	peeked, err = host.Peek(t.Context(), instance, dir)
	require.NoError(t, err)
	require.True(t, peeked["TOKEN"].Equal(values["TOKEN"]))
	require.True(t, peeked["KEY_PUBLIC"].Equal(values["KEY_PUBLIC"]))

	require.NoError(t, os.Remove(valuePath(dir, "TOKEN")))
	require.NoError(t, os.WriteFile(valuePath(dir, "KEY"), []byte("something else"), 0o600))
	_, _, err = host.Ensure(t.Context(), instance, dir, noData)
	var lost *secrets.LostError
	var changed *secrets.ChangedError
	require.ErrorAs(t, err, &lost)
	require.ErrorAs(t, err, &changed)
	require.ErrorContains(t, err, "blocked SecretLost: secret TOKEN of deu")
	require.ErrorContains(t, err, "secrets set deu KEY")
	_, err = host.Peek(t.Context(), instance, dir)
	require.ErrorContains(t, err, "cannot be used as a key")
}
