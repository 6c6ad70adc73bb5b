package secrets_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/secrets"
)

var made = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string, random io.Reader) *secrets.Store {
	t.Helper()
	s, err := secrets.Open(secrets.Options{Instance: "deu", Dir: dir, Random: random, Now: func() time.Time { return made }})
	require.NoError(t, err)
	return s
}

func generate(name, kind string) desired.SecretSpec {
	return desired.SecretSpec{Name: name, Generate: &desired.Generate{Kind: kind}}
}

func ensure(t *testing.T, s *secrets.Store, specs ...desired.SecretSpec) secrets.Result {
	t.Helper()
	got, err := s.Ensure(t.Context(), specs, secrets.EnsureOptions{HasData: noData})
	require.NoError(t, err)
	return got
}

func noData(context.Context) ([]string, error) { return nil, nil }

func volumes(context.Context) ([]string, error) { return []string{"volume dive-spoke-deu_mongo"}, nil }

func valuePath(dir, name string) string { return filepath.Join(dir, ".store", "values", name) }

func TestASecretIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	require.NoError(t, os.Mkdir(dir, 0o755), "somebody made it, open to all")
	specs := []desired.SecretSpec{generate("MONGO_PASSWORD", "password"), generate("TOKEN", "token")}
	first := ensure(t, open(t, dir, rand.Reader), specs...)
	require.Equal(t, []string{"MONGO_PASSWORD", "TOKEN"}, first.Made)
	require.Len(t, first.Values, 2)
	for _, v := range first.Values {
		require.True(t, v.Secret())
		require.True(t, v.Known())
	}
	// A source of randomness that fails shows that nothing is made again.
	again := ensure(t, open(t, dir, iotest.ErrReader(errors.New("no more"))), specs...)
	require.Empty(t, again.Made)
	require.Equal(t, first.Values["TOKEN"].Text(), again.Values["TOKEN"].Text())

	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		want := os.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		require.Equal(t, want, info.Mode().Perm(), path)
		return err
	}))
	manifest, err := os.ReadFile(filepath.Join(dir, ".store", "manifest.json"))
	require.NoError(t, err)
	for _, v := range first.Values {
		require.NotContains(t, string(manifest), v.Text())
	}
	require.NotContains(t, fmt.Sprintf("%v %+v", first.Values["TOKEN"], first.LogValue()), first.Values["TOKEN"].Text())
}

func TestAnOpenSecretIsClosedAndWhatIsNoFileIsToldOf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	spec := generate("TOKEN", "token")
	first := ensure(t, open(t, dir, rand.Reader), spec)
	path := valuePath(dir, "TOKEN")
	require.NoError(t, os.Chmod(path, 0o644))
	again := ensure(t, open(t, dir, rand.Reader), spec)
	require.Equal(t, first.Values["TOKEN"].Text(), again.Values["TOKEN"].Text())
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	_, err = open(t, dir, rand.Reader).Ensure(t.Context(), []desired.SecretSpec{spec}, secrets.EnsureOptions{HasData: noData})
	require.ErrorContains(t, err, "is no file", "a pipe would be read for ever")
	_, _, err = secrets.Peek(secrets.Options{Instance: "deu", Dir: dir}, []desired.SecretSpec{spec})
	require.ErrorContains(t, err, "is no file")
}

func TestKindsOfSecrets(t *testing.T) {
	specs := []desired.SecretSpec{
		generate("PASSWORD", ""), generate("TOKEN", "token"), generate("KEYFILE", "mongodb-keyfile"),
		generate("RSA", "rsa"), generate("ED", "ed25519"),
		{Name: "LONG", Generate: &desired.Generate{Kind: "password", Length: 64}},
	}
	v := ensure(t, open(t, t.TempDir(), rand.Reader), specs...).Values

	for name, n := range map[string]int{"PASSWORD": 24, "LONG": 64} {
		p := v[name].Text()
		require.Len(t, p, n)
		require.Regexp(t, `^[A-Za-z][A-Za-z0-9._-]+$`, p)
		for _, class := range []string{"[a-z]", "[A-Z]", "[0-9]", "[._-]"} {
			require.Regexp(t, class, p)
		}
	}
	require.Regexp(t, `^[A-Za-z0-9_-]{43}$`, v["TOKEN"].Text())
	require.Len(t, v["KEYFILE"].Text(), 1008)
	raw, err := base64.StdEncoding.DecodeString(v["KEYFILE"].Text())
	require.NoError(t, err)
	require.Len(t, raw, 756)

	for name, check := range map[string]func(private, public any) bool{
		"RSA": func(private, public any) bool {
			k := private.(*rsa.PrivateKey)
			return k.N.BitLen() == 3072 && k.PublicKey.Equal(public.(*rsa.PublicKey))
		},
		"ED": func(private, public any) bool {
			return private.(ed25519.PrivateKey).Public().(ed25519.PublicKey).Equal(public.(ed25519.PublicKey))
		},
	} {
		block, _ := pem.Decode([]byte(v[name].Text()))
		private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		require.NoError(t, err)
		half := v[secrets.PublicName(name)]
		require.False(t, half.Secret())
		block, _ = pem.Decode([]byte(half.Text()))
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		require.NoError(t, err)
		require.True(t, check(private, public), name)
	}
	require.NotContains(t, v, secrets.PublicName("TOKEN"))
}

func TestPasswordsAreSpreadEvenly(t *testing.T) {
	counts := map[rune]int{}
	var specs []desired.SecretSpec
	for i := range 20 {
		specs = append(specs, desired.SecretSpec{Name: fmt.Sprintf("P%d", i), Generate: &desired.Generate{Length: 1024}})
	}
	for _, v := range ensure(t, open(t, t.TempDir(), rand.Reader), specs...).Values {
		for _, c := range v.Text() {
			counts[c]++
		}
	}
	require.Len(t, counts, 65)
	for c, n := range counts { // 315 expected each, deviation about 18
		require.InDelta(t, 20*1024/65, n, 110, "%q", c)
	}
}

func TestLostSecretsAreNeverMadeAgain(t *testing.T) {
	specs := []desired.SecretSpec{generate("A_PASSWORD", ""), generate("B_PASSWORD", "")}
	t.Run("the manifest knows it", func(t *testing.T) {
		dir := t.TempDir()
		before := ensure(t, open(t, dir, rand.Reader), specs...)
		for _, lose := range []func(string) error{os.Remove, func(p string) error { return os.Truncate(p, 0) }} {
			kept, err := os.ReadFile(valuePath(dir, "A_PASSWORD"))
			require.NoError(t, err)
			require.NoError(t, lose(valuePath(dir, "A_PASSWORD")))
			_, err = open(t, dir, rand.Reader).Ensure(t.Context(), specs, secrets.EnsureOptions{HasData: noData})
			var lost *secrets.LostError
			require.ErrorAs(t, err, &lost)
			require.True(t, lost.Known)
			require.Equal(t, "A_PASSWORD", lost.Name)
			require.Contains(t, lost.Do(), "dive-agent secrets set deu A_PASSWORD")
			require.Contains(t, lost.Do(), valuePath(dir, "A_PASSWORD"))

			require.NoError(t, os.WriteFile(valuePath(dir, "A_PASSWORD"), kept, 0o600))
			require.Equal(t, before.Values["A_PASSWORD"].Text(), ensure(t, open(t, dir, rand.Reader), specs...).Values["A_PASSWORD"].Text())
		}
	})
	t.Run("volumes know it", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir, rand.Reader)
		_, err := s.Ensure(t.Context(), specs, secrets.EnsureOptions{HasData: volumes})
		var lost *secrets.LostError
		require.ErrorAs(t, err, &lost)
		require.False(t, lost.Known)
		require.ErrorContains(t, err, "volume dive-spoke-deu_mongo")
		require.ErrorContains(t, err, "A_PASSWORD")
		require.ErrorContains(t, err, "B_PASSWORD", "all of them are named")
		files, err := os.ReadDir(filepath.Join(dir, ".store", "values"))
		require.NoError(t, err)
		require.Empty(t, files)

		// Put back one by one; the first does not make the second a new one.
		require.NoError(t, s.Set(t.Context(), "A_PASSWORD", []byte("the old one")))
		_, err = s.Ensure(t.Context(), specs, secrets.EnsureOptions{HasData: volumes})
		require.ErrorAs(t, err, &lost)
		require.Equal(t, "B_PASSWORD", lost.Name)
		require.NoError(t, s.Set(t.Context(), "B_PASSWORD", []byte("the other one")))
		got, err := s.Ensure(t.Context(), specs, secrets.EnsureOptions{HasData: volumes})
		require.NoError(t, err)
		require.Empty(t, got.Made)
		require.Equal(t, "the old one", got.Values["A_PASSWORD"].Text())
	})
	t.Run("a new secret beside old data is made", func(t *testing.T) {
		dir := t.TempDir()
		ensure(t, open(t, dir, rand.Reader), specs...)
		got, err := open(t, dir, rand.Reader).Ensure(t.Context(), append(specs, generate("NEW_ONE", "")), secrets.EnsureOptions{HasData: volumes})
		require.NoError(t, err)
		require.Equal(t, []string{"NEW_ONE"}, got.Made)
	})
	t.Run("an engine that does not answer makes nothing", func(t *testing.T) {
		away := errors.New("engine away")
		_, err := open(t, t.TempDir(), rand.Reader).Ensure(t.Context(), specs, secrets.EnsureOptions{
			HasData: func(context.Context) ([]string, error) { return nil, away },
		})
		require.ErrorIs(t, err, away)
		var lost *secrets.LostError
		require.False(t, errors.As(err, &lost))
	})
}

func TestCrashBeforeTheManifestAdoptsTheValue(t *testing.T) {
	dir := t.TempDir()
	specs := []desired.SecretSpec{generate("A_PASSWORD", ""), generate("B_PASSWORD", "")}
	first := ensure(t, open(t, dir, rand.Reader), specs...)
	require.NoError(t, os.Remove(filepath.Join(dir, ".store", "manifest.json")))
	require.NoError(t, os.Remove(valuePath(dir, "B_PASSWORD")))
	second := ensure(t, open(t, dir, rand.Reader), specs...)
	require.Equal(t, []string{"B_PASSWORD"}, second.Made)
	require.Equal(t, first.Values["A_PASSWORD"].Text(), second.Values["A_PASSWORD"].Text())
}

func TestChangedAndProvidedSecrets(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, rand.Reader)
	specs := []desired.SecretSpec{generate("MADE", ""), {Name: "GIVEN", Provide: true}}

	_, err := s.Ensure(t.Context(), specs, secrets.EnsureOptions{})
	var missing *secrets.MissingError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, "Put it there with: dive-agent secrets set deu GIVEN", missing.Do())
	_, err = os.Stat(valuePath(dir, "MADE"))
	require.ErrorIs(t, err, os.ErrNotExist, "nothing is made before everything is there")

	require.ErrorContains(t, s.Set(t.Context(), "GIVEN", []byte("12345")), "too short")
	require.ErrorContains(t, s.Set(t.Context(), "../GIVEN", []byte("1234567")), "no name")
	require.NoError(t, s.Set(t.Context(), "GIVEN", []byte("from the operator")))
	require.Equal(t, "from the operator", ensure(t, s, specs...).Values["GIVEN"].Text())

	require.NoError(t, os.WriteFile(valuePath(dir, "GIVEN"), []byte("rotated by hand"), 0o600))
	require.Equal(t, "rotated by hand", ensure(t, s, specs...).Values["GIVEN"].Text())

	require.NoError(t, os.WriteFile(valuePath(dir, "MADE"), []byte("not what was made"), 0o600))
	_, err = s.Ensure(t.Context(), specs, secrets.EnsureOptions{})
	var changed *secrets.ChangedError
	require.ErrorAs(t, err, &changed)
	require.Contains(t, changed.Do(), "dive-agent secrets set deu MADE")
	require.NotContains(t, err.Error(), "not what was made")
	require.NoError(t, s.Set(t.Context(), "MADE", []byte("not what was made")))
	require.Equal(t, "not what was made", ensure(t, s, specs...).Values["MADE"].Text())

	// Without its key the fingerprints mean nothing: values are taken as they are.
	require.NoError(t, os.Remove(filepath.Join(dir, ".store", "fingerprint.key")))
	require.Equal(t, "not what was made", ensure(t, open(t, dir, rand.Reader), specs...).Values["MADE"].Text())
	require.NoError(t, os.WriteFile(valuePath(dir, "MADE"), []byte("changed again"), 0o600))
	_, err = open(t, dir, rand.Reader).Ensure(t.Context(), specs, secrets.EnsureOptions{})
	require.ErrorAs(t, err, &changed)
}

func TestFilesForContainers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, rand.Reader)
	spec := generate("MONGO_KEYFILE", "mongodb-keyfile")
	spec.File = &desired.SecretFile{Path: "mongo/keyfile"}
	if os.Getuid() == 0 {
		spec.File.Owner, spec.File.Group = 999, 998
	}
	first := ensure(t, s, spec)
	require.Equal(t, []string{"mongo/keyfile"}, first.Files)
	path := filepath.Join(dir, "mongo/keyfile")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, first.Values["MONGO_KEYFILE"].Text(), string(content))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o400), info.Mode(), "the owner alone reads it, unless the manifest says otherwise")
	if os.Getuid() == 0 {
		st := info.Sys().(*syscall.Stat_t)
		require.Equal(t, [2]uint32{999, 998}, [2]uint32{st.Uid, st.Gid})
	}
	require.Empty(t, ensure(t, s, spec).Files, "nothing to do the second time")
	require.NoError(t, os.Remove(path))
	spec.File.Mode = "0440"
	require.Equal(t, []string{"mongo/keyfile"}, ensure(t, s, spec).Files, "a rendered file is made from the value again")
	info, err = os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o440), info.Mode())
	require.Empty(t, ensure(t, s, spec).Made)

	require.NoError(t, os.Symlink(t.TempDir(), filepath.Join(dir, "out")))
	for _, bad := range []string{"../x", "/abs", ".", "a/../../x", ".store/values/MONGO_KEYFILE", "./.store/x", "out/x"} {
		spec.File.Path = bad
		_, err := s.Ensure(t.Context(), []desired.SecretSpec{spec}, secrets.EnsureOptions{})
		require.Error(t, err, bad)
	}
	spec.File.Path, spec.File.Mode = "x", "rw-r--r--"
	_, err = s.Ensure(t.Context(), []desired.SecretSpec{spec}, secrets.EnsureOptions{})
	require.ErrorContains(t, err, "no file mode")
}

func TestBadSpecsAreRefused(t *testing.T) {
	for want, spec := range map[string]desired.SecretSpec{
		"no name":            generate("../X", ""),
		"neither":            {Name: "X"},
		"length of 4":        {Name: "X", Generate: &desired.Generate{Length: 4}},
		"512 bits":           {Name: "X", Generate: &desired.Generate{Kind: "rsa", Bits: 512}},
		`kind "pigeon"`:      generate("X", "pigeon"),
		"length of 9999 cha": {Name: "X", Generate: &desired.Generate{Kind: "token", Length: 9999}},
	} {
		_, err := open(t, t.TempDir(), rand.Reader).Ensure(t.Context(), []desired.SecretSpec{spec}, secrets.EnsureOptions{})
		require.ErrorContains(t, err, want)
	}
	_, err := open(t, t.TempDir(), strings.NewReader(strings.Repeat("k", 32)+"few")).
		Ensure(t.Context(), []desired.SecretSpec{generate("X", "")}, secrets.EnsureOptions{})
	require.ErrorContains(t, err, "randomness")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err = open(t, dir, rand.Reader).Ensure(ctx, []desired.SecretSpec{generate("X", "")}, secrets.EnsureOptions{})
	require.ErrorIs(t, err, context.Canceled)
	_, err = os.Stat(valuePath(dir, "X"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestListNamesAndAges(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, rand.Reader)
	got := ensure(t, s, generate("B_TOKEN", "token"), generate("A_PASSWORD", ""))
	require.NoError(t, s.Set(t.Context(), "GIVEN", []byte("from the operator")))
	require.NoError(t, os.Remove(valuePath(dir, "B_TOKEN")))
	list, err := s.List()
	require.NoError(t, err)
	require.Equal(t, []secrets.Info{
		{Name: "A_PASSWORD", Kind: "password", Made: made, Present: true, Generation: 1},
		{Name: "B_TOKEN", Kind: "token", Made: made, Generation: 1},
		{Name: "GIVEN", Kind: "provided", Made: made, Present: true, Generation: 1},
	}, list)
	require.NotContains(t, fmt.Sprint(list), got.Values["A_PASSWORD"].Text())

	require.NoError(t, os.WriteFile(filepath.Join(dir, ".store", "manifest.json"), []byte("{"), 0o600))
	_, err = s.List()
	require.ErrorContains(t, err, "backup")
	_, err = s.Ensure(t.Context(), nil, secrets.EnsureOptions{})
	require.ErrorContains(t, err, "backup", "a broken manifest is never taken for none")
}

func TestPeekReadsAndMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	specs := []desired.SecretSpec{generate("TOKEN", "token"), generate("KEY", "ed25519")}
	values, missing, err := secrets.Peek(secrets.Options{Instance: "deu", Dir: dir}, append(specs, desired.SecretSpec{Name: "GIVEN", Provide: true}))
	require.NoError(t, err)
	require.Empty(t, values)
	require.Equal(t, secrets.Problems{&secrets.MissingError{Instance: "deu", Name: "GIVEN"}}, missing)
	require.NoDirExists(t, dir)

	s := open(t, dir, rand.Reader)
	got := ensure(t, s, specs...)
	values, missing, err = secrets.Peek(secrets.Options{Instance: "deu", Dir: dir}, specs)
	require.NoError(t, err)
	require.Empty(t, missing)
	require.Len(t, values, 3)
	for name, v := range got.Values {
		require.True(t, v.Equal(values[name]), name)
		require.Equal(t, v.Secret(), values[name].Secret(), name)
	}
	require.NoError(t, s.Set(t.Context(), "KEY", []byte("no key at all")))
	_, _, err = secrets.Peek(secrets.Options{Instance: "deu", Dir: dir}, specs)
	require.ErrorContains(t, err, "cannot be used as a key")
	require.NotContains(t, err.Error(), "no key at all")
	require.NoError(t, os.Remove(valuePath(dir, "TOKEN")))
	_, missing, err = secrets.Peek(secrets.Options{Instance: "deu", Dir: dir}, specs[:1])
	require.NoError(t, err)
	require.ErrorContains(t, missing, "was made on this host")
}

func TestSeveralProblemsAreToldAtOnce(t *testing.T) {
	dir := t.TempDir()
	specs := []desired.SecretSpec{generate("TOKEN", "token"), generate("KEY", "token"), {Name: "GIVEN", Provide: true}}
	ensure(t, open(t, dir, rand.Reader), specs[:2]...)
	require.NoError(t, os.Remove(valuePath(dir, "TOKEN")))
	require.NoError(t, os.WriteFile(valuePath(dir, "KEY"), []byte("something else"), 0o600))
	_, err := open(t, dir, rand.Reader).Ensure(t.Context(), specs, secrets.EnsureOptions{})
	var all secrets.Problems
	require.ErrorAs(t, err, &all)
	require.Len(t, all, 3)
	require.Equal(t, "SecretLost", all.Reason())
	for _, name := range []string{"TOKEN", "KEY", "GIVEN"} {
		require.Contains(t, all.Error(), "secret "+name+" of deu")
		require.Contains(t, all.Do(), "dive-agent secrets set deu "+name)
	}
}

func TestSetTakesALineAsPeopleTypeIt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, rand.Reader)
	for given, kept := range map[string]string{
		"password\n": "password", "password\r\n": "password", "password": "password", "pass word \n": "pass word ",
		"first line\nsecond line\n": "first line\nsecond line\n",
	} {
		require.NoError(t, s.Set(t.Context(), "GIVEN", []byte(given)))
		require.Equal(t, kept, ensure(t, s, desired.SecretSpec{Name: "GIVEN", Provide: true}).Values["GIVEN"].Text())
	}
}

// TestStoresOfOneFolderTakeTurns sets secrets through many stores, as the agent
// and commands do, while a killed one left half a file.
func TestStoresOfOneFolderTakeTurns(t *testing.T) {
	dir := t.TempDir()
	first := generate("FIRST", "token")
	ensure(t, open(t, dir, rand.Reader), first)
	half := filepath.Join(dir, ".store", "values", ".FIRST.writing-1")
	require.NoError(t, os.WriteFile(half, []byte("half"), 0o600))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s := open(t, dir, rand.Reader)
			if err := s.Set(t.Context(), fmt.Sprintf("GIVEN_%d", i), []byte("some value")); err != nil {
				t.Error(err)
			}
			if _, err := s.Ensure(t.Context(), []desired.SecretSpec{first}, secrets.EnsureOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.NoFileExists(t, half)
	list, err := open(t, dir, rand.Reader).List()
	require.NoError(t, err)
	require.Len(t, list, 9, "none of the entries in the manifest was lost")
	for _, info := range list {
		require.True(t, info.Present)
	}
}

// TestAManifestThatIsNotUnderstoodIsLeftAlone: nothing is made beside it.
func TestAManifestThatIsNotUnderstoodIsLeftAlone(t *testing.T) {
	for content, says := range map[string]string{
		`{"version": 2, "secrets": {}}`: "run the newer agent",
		`{"version": 1, "secr`:          "restore it from a backup",
	} {
		dir := t.TempDir()
		s := open(t, dir, rand.Reader)
		path := filepath.Join(dir, ".store", "manifest.json")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := s.Ensure(t.Context(), []desired.SecretSpec{generate("TOKEN", "token")}, secrets.EnsureOptions{})
		require.ErrorContains(t, err, says)
		require.NoFileExists(t, filepath.Join(dir, ".store", "values", "TOKEN"))
		left, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(left))
	}
}
