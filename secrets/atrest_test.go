package secrets_test

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/secrets"
)

// room is a state folder with the stores of two instances, as a host has it.
type room struct {
	*testing.T
	state   string
	options secrets.HostKeyOptions
}

func newRoom(t *testing.T) *room {
	r := &room{T: t, state: t.TempDir()}
	r.options = secrets.HostKeyOptions{
		File: filepath.Join(r.state, "secrets.key"), Random: rand.Reader, Kept: filepath.Join(r.state, "instances", "*", "secrets", ".store", "*", "*"),
	}
	return r
}

// at are the options of an instance's store; the key is read anew, as by another process.
func (r *room) at(instance string, encrypted bool) secrets.Options {
	dir := filepath.Join(r.state, "instances", instance, "secrets")
	require.NoError(r, os.MkdirAll(dir, 0o700))
	o := secrets.Options{Instance: instance, Dir: dir, Random: rand.Reader, Now: func() time.Time { return made }}
	if encrypted {
		o.Keys = secrets.NewHostKey(r.options)
	}
	return o
}

func (r *room) open(instance string, encrypted bool) *secrets.Store {
	s, err := secrets.Open(r.at(instance, encrypted))
	require.NoError(r, err)
	return s
}

func (r *room) kept(instance, folder, name string) string {
	text, err := os.ReadFile(filepath.Join(r.state, "instances", instance, "secrets", ".store", folder, name))
	require.NoError(r, err)
	return string(text)
}

// TestSecretsAreEncryptedAtRest: present and former values, not what containers bind; and everything of the store works.
func TestSecretsAreEncryptedAtRest(t *testing.T) {
	r := newRoom(t)
	spec := generate("PASSWORD", "password")
	spec.File = &desired.SecretFile{Path: "password"}
	first := ensure(t, r.open("deu", true), spec, generate("TOKEN", "token")).Values["PASSWORD"].Text()
	info, err := os.Stat(r.options.File)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoError(t, r.open("deu", true).Set(t.Context(), "PASSWORD", []byte("second-password")))
	for _, folder := range []string{"values", "former"} {
		text := r.kept("deu", folder, "PASSWORD")
		require.NotContains(t, text, first)
		require.NotContains(t, text, "second-password")
		require.True(t, strings.HasPrefix(text, "dive-agent sealed 1 "), text)
	}
	again := ensure(t, r.open("deu", true), spec, generate("TOKEN", "token"))
	require.Empty(t, again.Made)
	require.Equal(t, "second-password", again.Values["PASSWORD"].Text())
	bound, err := os.ReadFile(filepath.Join(r.at("deu", true).Dir, "password"))
	require.NoError(t, err)
	require.Equal(t, "second-password", string(bound))
	former, err := secrets.Former(r.at("deu", true), []desired.SecretSpec{spec})
	require.NoError(t, err)
	require.Equal(t, first, former["PASSWORD"][0].Text())
	values, missing, err := secrets.Peek(r.at("deu", true), []desired.SecretSpec{spec})
	require.NoError(t, err)
	require.Empty(t, missing)
	require.Equal(t, "second-password", values["PASSWORD"].Text())
	_, err = r.open("deu", true).Forget(t.Context(), values)
	require.NoError(t, err)
	before := r.kept("deu", "values", "TOKEN")
	ensure(t, r.open("deu", true), spec, generate("TOKEN", "token"))
	require.Equal(t, before, r.kept("deu", "values", "TOKEN"), "a look writes nothing")

	// In another place, or changed, it does not open, and nothing is made in its stead.
	value := filepath.Join(r.at("deu", true).Dir, ".store", "values", "PASSWORD")
	for what, text := range map[string]string{
		"another name":     r.kept("deu", "values", "TOKEN"),
		"changed":          strings.Replace(r.kept("deu", "values", "PASSWORD"), " ", " ", 1)[:60] + "AAAA" + r.kept("deu", "values", "PASSWORD")[64:],
		"another instance": r.sealedElsewhere("fra", "PASSWORD"),
		"cut off":          r.kept("deu", "values", "PASSWORD")[:40],
	} {
		require.NoError(t, os.WriteFile(value, []byte(text), 0o600))
		_, err := r.open("deu", true).Ensure(t.Context(), []desired.SecretSpec{spec}, secrets.EnsureOptions{})
		require.ErrorContains(t, err, "restore the file from a backup", what)
		require.Equal(t, text, r.kept("deu", "values", "PASSWORD"), what)
	}
}

// sealedElsewhere is a secret of another instance of the host, as it is kept.
func (r *room) sealedElsewhere(instance, name string) string {
	ensure(r.T, r.open(instance, true), generate(name, ""))
	return r.kept(instance, "values", name)
}

// TestAPlainStoreIsEncrypted, that of an agent before this, and one of which some files are encrypted already: what a crash leaves.
// Whatever fails in between, all values are there.
func TestAPlainStoreIsEncrypted(t *testing.T) {
	r := newRoom(t)
	specs := []desired.SecretSpec{generate("A_PASSWORD", ""), generate("B_TOKEN", "token"), generate("C_KEY", "ed25519")}
	plain := ensure(t, r.open("deu", false), specs...)
	require.NoError(t, r.open("deu", false).Set(t.Context(), "A_PASSWORD", []byte("second-password")))
	require.NoError(t, r.open("deu", false).Set(t.Context(), "NOT_DECLARED", []byte("for-a-merge-to-come")))
	same := func(got secrets.Result, what string) {
		t.Helper()
		require.Empty(t, got.Made, what)
		require.Equal(t, "second-password", got.Values["A_PASSWORD"].Text(), what)
		require.Equal(t, plain.Values["B_TOKEN"].Text(), got.Values["B_TOKEN"].Text(), what)
		require.Equal(t, plain.Values["C_KEY"].Text(), got.Values["C_KEY"].Text(), what)
	}
	good := r.options.Random
	for n := range 8 { // randomness ends after ever more files: what was encrypted is, the rest is plain
		r.options.Random = &ending{left: n * 12}
		if n > 0 {
			r.options.Random = &ending{left: 32 + (n-1)*12}
		}
		got, err := r.open("deu", true).Ensure(t.Context(), specs, secrets.EnsureOptions{})
		if err == nil {
			same(got, fmt.Sprint(n))
		}
		r.options.Random = good
		values, missing, err := secrets.Peek(r.at("deu", true), specs)
		require.NoError(t, err)
		require.Empty(t, missing)
		same(secrets.Result{Values: values}, fmt.Sprint(n))
		former, err := secrets.Former(r.at("deu", true), specs)
		require.NoError(t, err)
		require.Equal(t, plain.Values["A_PASSWORD"].Text(), former["A_PASSWORD"][0].Text())
	}
	same(ensure(t, r.open("deu", true), specs...), "at the end")
	for _, name := range []string{"A_PASSWORD", "B_TOKEN", "C_KEY", "NOT_DECLARED"} {
		require.True(t, strings.HasPrefix(r.kept("deu", "values", name), "dive-agent sealed 1 "), name)
	}
	require.True(t, strings.HasPrefix(r.kept("deu", "former", "A_PASSWORD"), "dive-agent sealed 1 "))
}

// ending is randomness that ends after some bytes.
type ending struct{ left int }

func (e *ending) Read(p []byte) (int, error) {
	if e.left < len(p) {
		return 0, errors.New("no more")
	}
	e.left -= len(p)
	return rand.Read(p)
}

// TestALostKeyIsNotMadeAgain: neither key nor secrets are made beside what it encrypted, of any instance; with the key put back
// all goes on.
func TestALostKeyIsNotMadeAgain(t *testing.T) {
	r := newRoom(t)
	first := ensure(t, r.open("deu", true), generate("PASSWORD", ""))
	key, err := os.ReadFile(r.options.File)
	require.NoError(t, err)
	require.NoError(t, os.Remove(r.options.File))
	var sealed *secrets.SealedError
	for _, instance := range []string{"deu", "fra"} {
		_, err = r.open(instance, true).Ensure(t.Context(), []desired.SecretSpec{generate("PASSWORD", ""), generate("NEW", "")}, secrets.EnsureOptions{})
		require.ErrorAs(t, err, &sealed, instance)
		require.Equal(t, "SecretSealed", sealed.Reason())
		require.NoFileExists(t, r.options.File)
		require.False(t, r.open(instance, true).Has("NEW"))
	}
	_, missing, err := secrets.Peek(r.at("deu", true), []desired.SecretSpec{generate("PASSWORD", "")})
	require.NoError(t, err)
	require.Len(t, missing, 1, "a plan tells of it")
	list, err := r.open("deu", true).List()
	require.NoError(t, err)
	require.Equal(t, "PASSWORD", list[0].Name)
	_, err = r.open("deu", false).Ensure(t.Context(), []desired.SecretSpec{generate("PASSWORD", "")}, secrets.EnsureOptions{})
	require.ErrorAs(t, err, &sealed, "an agent without keys takes no encrypted text for a value")

	require.NoError(t, os.WriteFile(r.options.File, []byte("short"), 0o600))
	_, err = r.open("deu", true).Ensure(t.Context(), []desired.SecretSpec{generate("PASSWORD", "")}, secrets.EnsureOptions{})
	require.ErrorContains(t, err, "at least 32")
	require.NoError(t, os.WriteFile(r.options.File, key, 0o644))
	again := ensure(t, r.open("deu", true), generate("PASSWORD", ""))
	require.Equal(t, first.Values["PASSWORD"].Text(), again.Values["PASSWORD"].Text())
	info, err := os.Stat(r.options.File)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "a key that was put back is closed to others")
}

// TestACredentialGoesBeforeTheFile: what the file's key encrypted is encrypted anew with the credential's, and back.
func TestACredentialGoesBeforeTheFile(t *testing.T) {
	r := newRoom(t)
	first := ensure(t, r.open("deu", true), generate("PASSWORD", ""))
	byFile := r.kept("deu", "values", "PASSWORD")
	credential := filepath.Join(t.TempDir(), "dive-agent-secrets")
	secret := make([]byte, 32)
	_, err := rand.Read(secret)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(credential, []byte(hex.EncodeToString(secret)), 0o400))
	r.options.Credentials = []string{filepath.Join(t.TempDir(), "none"), credential}
	again := ensure(t, r.open("deu", true), generate("PASSWORD", ""))
	require.Equal(t, first.Values["PASSWORD"].Text(), again.Values["PASSWORD"].Text())
	byCredential := r.kept("deu", "values", "PASSWORD")
	require.NotEqual(t, byFile[:29], byCredential[:29], "another key's id")
	require.NoError(t, os.Remove(r.options.File))
	again = ensure(t, r.open("deu", true), generate("PASSWORD", ""))
	require.Equal(t, first.Values["PASSWORD"].Text(), again.Values["PASSWORD"].Text(), "the file is not needed any more")
	require.NoFileExists(t, r.options.File)
	info, err := os.Stat(credential)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o400), info.Mode().Perm(), "a credential is systemd's")

	// A credential that is gone, without the file: nothing is made.
	r.options.Credentials, r.options.Random = nil, iotest.ErrReader(errors.New("no more"))
	_, err = r.open("deu", true).Ensure(t.Context(), []desired.SecretSpec{generate("PASSWORD", "")}, secrets.EnsureOptions{})
	var sealed *secrets.SealedError
	require.ErrorAs(t, err, &sealed)
}
