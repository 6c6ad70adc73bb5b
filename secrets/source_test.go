package secrets_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/secrets"
	"dive-agent/testbed"
)

// host is one host with what it lets secrets be taken from, and its store.
type host struct {
	*testing.T
	dir     string // of the store
	files   string // the instance's source folder, and what else lies about
	options secrets.SourceOptions
	sources *secrets.Sources
	env     map[string]string
	clock   time.Time
	redact  *secrets.Redactor
}

func newHost(t *testing.T) *host {
	h := &host{T: t, dir: t.TempDir(), files: t.TempDir(), clock: made, env: map[string]string{}, redact: secrets.NewRedactor()}
	h.options = secrets.SourceOptions{
		Files: []string{filepath.Join(h.files, "allowed"), filepath.Join(h.files, "single")}, Env: []string{"TOKEN", "UNSET"},
		Now: func() time.Time { return h.clock }, Redactor: h.redact,
		Getenv: func(name string) (string, bool) { value, ok := h.env[name]; return value, ok },
	}
	require.NoError(t, os.MkdirAll(filepath.Join(h.files, "allowed"), 0o700))
	h.restart()
	return h
}

// restart forgets what the agent's memory has.
func (h *host) restart() { h.sources = secrets.NewSources(h.options) }

func (h *host) write(name, content string) string {
	h.Helper()
	path := filepath.Join(h.files, name)
	require.NoError(h, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(h, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func (h *host) store() *secrets.Store {
	s, err := secrets.Open(secrets.Options{Instance: "deu", Dir: h.dir, Random: rand.Reader, Now: func() time.Time { return h.clock }})
	require.NoError(h, err)
	return s
}

// look is what the agent does at each look at an instance.
func (h *host) look(specs ...desired.SecretSpec) (secrets.Result, error) {
	s := h.store()
	missing := func(name string) bool { return !s.Has(name) }
	looked := h.sources.Look(h.Context(), specs, secrets.LookOptions{Instance: "deu", Dir: h.files, Missing: missing})
	return s.Ensure(h.Context(), specs, secrets.EnsureOptions{Looked: looked})
}

func (h *host) info(name string) secrets.Info {
	h.Helper()
	list, err := h.store().List()
	require.NoError(h, err)
	for _, info := range list {
		if info.Name == name {
			return info
		}
	}
	h.Fatalf("%s is not listed", name)
	return secrets.Info{}
}

func sourced(name string, s desired.SecretSource) desired.SecretSpec {
	if s.Interval == 0 {
		s.Interval = 5 * time.Minute
	}
	return desired.SecretSpec{Name: name, Source: &s}
}

func hostFile(name, path string) desired.SecretSpec {
	return sourced(name, desired.SecretSource{Kind: desired.HostFileSource, File: path})
}

func sops(name, file, key string) desired.SecretSpec {
	return sourced(name, desired.SecretSource{Kind: desired.SopsSource, File: file, Key: key})
}

// TestOnlyWhatTheHostAllows: a manifest reads neither other files nor other variables, by no way.
func TestOnlyWhatTheHostAllows(t *testing.T) {
	h := newHost(t)
	h.env["TOKEN"], h.env["HOME"] = "token-of-the-host", "/home/dive-agent"
	outside := h.write("outside", "not-for-manifests")
	require.NoError(t, os.Symlink(outside, filepath.Join(h.files, "allowed", "link")))
	require.NoError(t, os.Symlink("inner", filepath.Join(h.files, "allowed", "inside")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(h.files, "allowed", "pipe"), 0o600))
	h.write("allowed/inner", "value-of-a-file\n")
	h.write("allowed/deep/pem", "line one\nline two\n")
	h.write("allowed/short", "abc\n")
	h.write("single", "the-only-one")
	file := func(name string) desired.SecretSpec { return hostFile("X", filepath.Join(h.files, name)) }
	variable := func(name string) desired.SecretSpec {
		return sourced("X", desired.SecretSource{Kind: desired.HostEnvSource, Variable: name})
	}
	for what, c := range map[string]struct {
		spec      desired.SecretSpec
		want, say string
	}{
		"a file of an allowed folder": {file("allowed/inner"), "value-of-a-file", ""},
		"one of several lines":        {file("allowed/deep/pem"), "line one\nline two\n", ""},
		"a link inside":               {file("allowed/inside"), "value-of-a-file", ""},
		"an allowed file":             {file("single"), "the-only-one", ""},
		"a link that leads out":       {file("allowed/link"), "", "escapes"},
		"another file":                {file("outside"), "", "does not let manifests read it"},
		"a name that begins alike":    {file("allowed-not/x"), "", "does not let manifests read it"},
		"a folder":                    {file("allowed/deep"), "", "is no file"},
		"a pipe":                      {file("allowed/pipe"), "", "is no file"},
		"none":                        {file("allowed/none"), "", "no such file"},
		"too short":                   {file("allowed/short"), "", "too few to be kept out of logs"},
		"a variable":                  {variable("TOKEN"), "token-of-the-host", ""},
		"another variable":            {variable("HOME"), "", "does not let manifests read it"},
		"one that is not set":         {variable("UNSET"), "", "it is not set"},
	} {
		h.dir = t.TempDir()
		h.restart()
		found, err := h.look(c.spec)
		if c.say == "" {
			require.NoError(t, err, what)
			require.Equal(t, c.want, found.Values["X"].Text(), what)
			require.True(t, found.Values["X"].Secret(), what)
			continue
		}
		var source *secrets.SourceError
		require.ErrorAs(t, err, &source, what)
		require.ErrorContains(t, err, c.say, what)
		require.NotContains(t, err.Error()+source.Do(), "not-for-manifests", what)
		require.NotEmpty(t, source.Do(), what)
	}
}

// TestAllThatIsMissingIsNamedAtOnce: nothing is made before all of it is there.
func TestAllThatIsMissingIsNamedAtOnce(t *testing.T) {
	h := newHost(t)
	_, err := h.look(
		hostFile("ONE", filepath.Join(h.files, "allowed", "one")), sops("TWO", "none.yaml", "x"), desired.SecretSpec{Name: "THREE", Provide: true},
		generate("FOUR", ""),
	)
	for _, name := range []string{"ONE", "TWO", "THREE"} {
		require.ErrorContains(t, err, "secret "+name+" of deu")
	}
	require.False(t, h.store().Has("FOUR"))
}

// TestTheLastValueStaysInUse: when a source fails, since when and why is told, over restarts too; a new value is a new
// generation, and the former one is kept until the new one is in use.
func TestTheLastValueStaysInUse(t *testing.T) {
	h := newHost(t)
	path := h.write("allowed/license", "first-value")
	spec := hostFile("LICENSE", path)
	found, err := h.look(spec)
	require.NoError(t, err)
	require.Equal(t, []string{"LICENSE"}, found.Made)
	require.Equal(t, 1, h.info("LICENSE").Generation)

	h.clock = h.clock.Add(time.Minute)
	h.write("allowed/license", "second-value")
	found, err = h.look(spec)
	require.NoError(t, err)
	require.Equal(t, []string{"LICENSE"}, found.Renewed)
	require.Equal(t, "second-value", found.Values["LICENSE"].Text())
	require.Equal(t, 2, h.info("LICENSE").Generation)
	former, err := secrets.Former(secrets.Options{Instance: "deu", Dir: h.dir}, []desired.SecretSpec{spec})
	require.NoError(t, err)
	require.Equal(t, "first-value", former["LICENSE"][0].Text())

	h.clock = h.clock.Add(time.Minute)
	require.NoError(t, os.Remove(path))
	since := h.clock
	for range 3 { // the agent is started anew between
		found, err = h.look(spec)
		require.NoError(t, err)
		require.Empty(t, found.Renewed)
		require.Equal(t, "second-value", found.Values["LICENSE"].Text())
		require.Len(t, found.Troubles, 1)
		require.Equal(t, since, found.Troubles[0].Since)
		require.Equal(t, 2, found.Troubles[0].Generation)
		require.Contains(t, found.Troubles[0].Why, "no such file")
		require.Equal(t, since, h.info("LICENSE").Failing)
		h.clock = h.clock.Add(10 * time.Minute)
		h.restart()
	}
	h.write("allowed/license", "second-value")
	found, err = h.look(spec)
	require.NoError(t, err)
	require.Empty(t, found.Troubles)
	require.Equal(t, 2, h.info("LICENSE").Generation, "the same value is no new generation")
	for n := range 12 { // more than former values are kept, and nothing took one into use
		h.clock = h.clock.Add(time.Hour)
		h.write("allowed/license", fmt.Sprintf("value-%07d", n))
		found, err = h.look(spec)
		require.NoError(t, err, "it does not stop the rest")
	}
	require.Contains(t, found.Troubles[0].Why, "no value was taken into use")
}

// TestALookIsDue: at its interval, when the file or a key was written anew, when a person asks, and when the value is gone.
func TestALookIsDue(t *testing.T) {
	h := newHost(t)
	asked := 0
	h.options.Getenv = func(string) (string, bool) { asked++; return "value-of-it", true }
	h.restart()
	spec := sourced("TOKEN", desired.SecretSource{Kind: desired.HostEnvSource, Variable: "TOKEN", Interval: time.Minute})
	looks := func(want int, why string) {
		t.Helper()
		_, err := h.look(spec)
		require.NoError(t, err)
		require.Equal(t, want, asked, why)
	}
	looks(1, "never looked at")
	looks(1, "not due")
	h.clock = h.clock.Add(time.Minute)
	looks(2, "interval")
	require.NoError(t, os.Remove(filepath.Join(h.dir, ".store", "values", "TOKEN")))
	looks(3, "gone")
	h.sources.Look(t.Context(), []desired.SecretSpec{spec}, secrets.LookOptions{Instance: "deu", Missing: func(string) bool { return false }, All: true})
	require.Equal(t, 4, asked, "a person asked")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	found := h.sources.Look(ctx, []desired.SecretSpec{spec}, secrets.LookOptions{Instance: "deu", Missing: func(string) bool { return true }})
	require.Empty(t, found, "an agent that ends tells of no failure")
}

// TestSecretsOfSops goes through the life of a file of the real SOPS: first value, another key, a wrong key, a file broken
// by hand, a new value.
func TestSecretsOfSops(t *testing.T) {
	t.Parallel()
	program := testbed.SOPS(t)
	h := newHost(t)
	var keys, recipients []string
	for range 2 {
		identity, err := age.GenerateX25519Identity()
		require.NoError(t, err)
		keys, recipients = append(keys, identity.String()), append(recipients, identity.Recipient().String())
	}
	h.options.AgeKeyFiles = []string{h.write("age.key", "# public key: x\n"+keys[0]+"\n")}
	h.restart()
	encrypt := func(recipient, content string) {
		t.Helper()
		path := h.write("secrets.enc.yaml", content)
		out, err := exec.Command(program, "encrypt", "--in-place", "--age", recipient, path).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	specs := []desired.SecretSpec{sops("OPAL", "secrets.enc.yaml", "opal"), sops("DB", "secrets.enc.yaml", "db.password")}
	encrypt(recipients[0], "opal: first-opal-value\ndb: {password: first-db-value}\n")
	found, err := h.look(specs...)
	require.NoError(t, err)
	require.Equal(t, "first-opal-value", found.Values["OPAL"].Text())
	require.Equal(t, "first-db-value", found.Values["DB"].Text())

	encrypt(recipients[0], "opal: second-opal-value\ndb: {password: first-db-value}\n")
	found, err = h.look(specs...)
	require.NoError(t, err)
	require.Equal(t, []string{"OPAL"}, found.Renewed, "a file that was written anew is read before its interval is over")
	require.Equal(t, 1, h.info("DB").Generation)

	encrypt(recipients[1], "opal: third-opal-value\ndb: {password: third-db-value}\n")
	found, err = h.look(specs...)
	require.NoError(t, err)
	require.Equal(t, "second-opal-value", found.Values["OPAL"].Text())
	require.Len(t, found.Troubles, 2)
	require.Contains(t, found.Troubles[0].Why, recipients[1])
	require.Contains(t, found.Troubles[0].Why, recipients[0])
	require.Contains(t, found.Troubles[0].Do, "sops updatekeys")
	h.hidden(fmt.Sprint(found.Troubles), "third-opal-value", "second-opal-value", keys[0])

	path := filepath.Join(h.files, "secrets.enc.yaml")
	encrypted, err := os.ReadFile(path)
	require.NoError(t, err)
	h.write("age.key", keys[0]+"\n"+keys[1]+"\n")
	require.NoError(t, os.WriteFile(path, []byte("added_unencrypted: x\n"+string(encrypted)), 0o600))
	found, err = h.look(specs...)
	require.NoError(t, err)
	require.Contains(t, found.Troubles[0].Why, "the mac does not fit")
	require.NoError(t, os.WriteFile(path, encrypted, 0o600))
	found, err = h.look(specs...)
	require.NoError(t, err)
	require.Empty(t, found.Troubles)
	require.Equal(t, "third-opal-value", found.Values["OPAL"].Text(), "a key that was added is seen before the interval is over")
	require.Equal(t, 3, h.info("OPAL").Generation)

	h.write("age.key", "no key at all")
	h.clock = h.clock.Add(time.Hour)
	found, err = h.look(specs...)
	require.NoError(t, err)
	require.Contains(t, found.Troubles[0].Why, "age.key: it holds no age identity")
}

// hidden holds a text to be free of values.
func (h *host) hidden(text string, values ...string) {
	h.Helper()
	for _, value := range values {
		require.NotContains(h, text, value)
	}
}

// TestWhatComesFromElsewhereIsChangedThere: neither rotated nor lost here.
func TestWhatComesFromElsewhereIsChangedThere(t *testing.T) {
	h := newHost(t)
	spec := hostFile("LICENSE", h.write("allowed/license", "value-of-the-file"))
	_, err := h.look(spec)
	require.NoError(t, err)
	require.ErrorContains(t, h.store().Rotate(t.Context(), spec), "change it there")
	require.NoError(t, os.WriteFile(filepath.Join(h.dir, ".store", "values", "LICENSE"), []byte("changed-by-hand"), 0o600))
	h.clock = h.clock.Add(time.Hour)
	found, err := h.look(spec)
	require.NoError(t, err)
	require.Equal(t, "value-of-the-file", found.Values["LICENSE"].Text())
	values, missing, err := secrets.Peek(secrets.Options{Instance: "deu", Dir: h.dir}, []desired.SecretSpec{spec, hostFile("NEW", "/x")})
	require.NoError(t, err)
	require.Empty(t, missing, "a plan does not ask for it")
	require.Len(t, values, 1)
	// From there to a generated one: the value stays, as it may be in use.
	found, err = h.look(generate("LICENSE", "password"))
	require.NoError(t, err)
	require.Equal(t, "value-of-the-file", found.Values["LICENSE"].Text())
	require.Equal(t, "password", h.info("LICENSE").Kind)
	var lost *secrets.LostError
	require.NoError(t, os.Remove(filepath.Join(h.dir, ".store", "values", "LICENSE")))
	_, err = h.look(generate("LICENSE", "password"))
	require.True(t, errors.As(err, &lost))
	require.False(t, strings.Contains(err.Error(), "value-of-the-file"))
}
