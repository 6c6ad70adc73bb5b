package hostkeys_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"dive-agent/hostkeys"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func ensure(t *testing.T, dir string) *hostkeys.Keys {
	t.Helper()
	keys, _, err := hostkeys.Ensure(dir, noon)
	require.NoError(t, err)
	return keys
}

func rotate(t *testing.T, dir string) *hostkeys.Keys {
	t.Helper()
	keys, err := hostkeys.Rotate(dir, noon.Add(time.Hour))
	require.NoError(t, err)
	return keys
}

func TestKeysAreMadeOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state", "host")
	_, err := hostkeys.Open(dir)
	require.ErrorIs(t, err, hostkeys.ErrNone)
	require.NoDirExists(t, dir, "Open makes nothing")
	_, err = hostkeys.Rotate(dir, noon)
	require.ErrorIs(t, err, hostkeys.ErrNone, "nothing to rotate")

	keys, made, err := hostkeys.Ensure(dir, noon)
	require.NoError(t, err)
	require.True(t, made)
	again, made, err := hostkeys.Ensure(dir, noon.Add(time.Hour))
	require.NoError(t, err)
	require.False(t, made)
	require.Equal(t, keys.Public(), again.Public())
	require.Len(t, keys.Public(), 1)
	require.Equal(t, noon, keys.Public()[0].Made)

	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		want := os.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		require.Equal(t, want, info.Mode().Perm(), path)
		return nil
	}))
}

// What is made is what the usual tools read, and what it signs and opens fits what is told of it.
func TestHalvesBelongTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	public := ensure(t, dir).Public()[0]
	out, err := exec.Command("ssh-keygen", "-y", "-f", filepath.Join(dir, "0001", "signing-key")).Output()
	require.NoError(t, err)
	require.Equal(t, public.SigningKey, strings.Join(strings.Fields(string(out))[:2], " "))

	keys := ensure(t, dir)
	pem, ok := keys.Signer(nil)
	require.True(t, ok)
	signer, err := ssh.ParsePrivateKey(pem)
	require.NoError(t, err)
	require.Equal(t, public.SigningKey, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))))

	recipient, err := age.ParseX25519Recipient(public.Recipient)
	require.NoError(t, err)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipient)
	require.NoError(t, err)
	_, err = io.WriteString(w, "for the host")
	require.NoError(t, err)
	require.NoError(t, w.Close())
	opened, err := age.Decrypt(&sealed, keys.Identities()...)
	require.NoError(t, err)
	text, err := io.ReadAll(opened)
	require.NoError(t, err)
	require.Equal(t, "for the host", string(text))
}

func TestSignerIsTheNewestThatIsListed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ensure(t, dir)
	keys := rotate(t, dir)
	newer, older := keys.Public()[0], keys.Public()[1]
	require.Len(t, keys.Identities(), 2, "both open")
	for name, c := range map[string]struct {
		listed []string
		want   string
	}{
		"nothing is listed":             {nil, newer.SigningKey},
		"the old one":                   {[]string{older.SigningKey + " deu-01"}, older.SigningKey},
		"both":                          {[]string{older.SigningKey, newer.SigningKey}, newer.SigningKey},
		"the new one, and a stranger's": {[]string{"ssh-ed25519 AAAA", newer.SigningKey}, newer.SigningKey},
		"a stranger's":                  {[]string{"ssh-ed25519 AAAA"}, ""},
	} {
		pem, ok := keys.Signer(c.listed)
		require.Equal(t, c.want != "", ok, name)
		if ok {
			signer, err := ssh.ParsePrivateKey(pem)
			require.NoError(t, err)
			require.Equal(t, c.want, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), name)
		}
	}
}

func TestPruneKeepsWhatIsListedOrNew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		recipients, keys []int // of the pairs 1 to 3
		gone             []int
	}{
		"nothing is listed":                     {nil, nil, nil},
		"the newest is not merged yet":          {[]int{2}, []int{2}, []int{1}},
		"all but the first":                     {[]int{2, 3}, []int{2, 3}, []int{1}},
		"the newest alone":                      {[]int{3}, []int{3}, []int{2, 1}},
		"the oldest alone":                      {[]int{1}, []int{1}, nil},
		"half of the old one":                   {[]int{3, 2}, []int{3}, []int{1}},
		"of the new one, only half":             {[]int{3}, nil, nil},
		"the newest one's halves in two merges": {[]int{1, 3}, []int{1}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			ensure(t, dir)
			rotate(t, dir)
			public := rotate(t, dir).Public()
			of := func(n int) hostkeys.PublicPair { return public[3-n] }
			var recipients, signing []string
			for _, n := range c.recipients {
				recipients = append(recipients, of(n).Recipient)
			}
			for _, n := range c.keys {
				signing = append(signing, of(n).SigningKey)
			}
			var want []hostkeys.PublicPair
			for _, n := range c.gone {
				want = append(want, of(n))
			}
			keys, err := hostkeys.Open(dir)
			require.NoError(t, err)
			current := keys.Current(recipients, signing)
			require.Equal(t, public, keys.Public(), "Current takes nothing away")
			gone, err := hostkeys.Prune(dir, recipients, signing)
			require.NoError(t, err)
			require.Equal(t, want, gone)
			keys, err = hostkeys.Open(dir)
			require.NoError(t, err)
			require.Equal(t, keys.Public(), current)
			for _, n := range []int{1, 2, 3} {
				_, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%04d", n)))
				require.Equal(t, slices.Contains(c.gone, n), os.IsNotExist(err), "pair %d", n)
			}
			gone, err = hostkeys.Prune(dir, recipients, signing)
			require.NoError(t, err)
			require.Empty(t, gone)
			require.NotEqual(t, public[0].Recipient, rotate(t, dir).Public()[0].Recipient, "a number is not given twice")
		})
	}
}

func TestDamageIsNamedAndNothingIsMade(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func(t *testing.T, pair string)
		file   string
		says   string
	}{
		"lost signing key": {func(t *testing.T, pair string) { require.NoError(t, os.Remove(pair+"/signing-key")) }, "signing-key", "is lost"},
		"lost identity":    {func(t *testing.T, pair string) { require.NoError(t, os.Remove(pair+"/identity")) }, "identity", "is lost"},
		"empty":            {func(t *testing.T, pair string) { require.NoError(t, os.Truncate(pair+"/identity", 0)) }, "identity", "no age identity"},
		"cut":              {func(t *testing.T, pair string) { require.NoError(t, os.Truncate(pair+"/signing-key", 100)) }, "signing-key", "no SSH private key"},
		"another's":        {func(t *testing.T, pair string) { copyFile(t, pair+"/identity", pair+"/signing-key") }, "signing-key", "no SSH private key"},
		"cut identity": {func(t *testing.T, pair string) {
			text, err := os.ReadFile(pair + "/identity")
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(pair+"/identity", text[:len(text)-9], 0o600))
		}, "identity", "no age identity"},
		"a link": {func(t *testing.T, pair string) {
			require.NoError(t, os.Rename(pair+"/identity", pair+"/moved"))
			require.NoError(t, os.Symlink("moved", pair+"/identity"))
		}, "identity", "no regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "host")
			former := ensure(t, dir).Public()
			secret := secretsIn(t, dir)
			c.damage(t, filepath.Join(dir, "0001"))
			_, openErr := hostkeys.Open(dir)
			_, _, ensureErr := hostkeys.Ensure(dir, noon)
			_, rotateErr := hostkeys.Rotate(dir, noon)
			_, pruneErr := hostkeys.Prune(dir, []string{former[0].Recipient}, nil)
			for _, err := range []error{openErr, ensureErr, rotateErr, pruneErr} {
				var damaged *hostkeys.DamagedError
				require.ErrorAs(t, err, &damaged)
				require.Equal(t, filepath.Join(dir, "0001", c.file), damaged.Path)
				require.ErrorContains(t, err, c.says)
				require.Contains(t, damaged.Do(), filepath.Join(dir, "0001"))
				require.Contains(t, damaged.Do(), "enroll --anew")
				for _, one := range secret {
					require.NotContains(t, err.Error()+damaged.Do(), one)
				}
			}
			keys, aside, err := hostkeys.Anew(dir, noon)
			require.NoError(t, err)
			require.DirExists(t, filepath.Join(aside, "0001"), "what is left of the old ones is kept")
			require.NotEqual(t, former, keys.Public())
			_, again, err := hostkeys.Anew(dir, noon)
			require.NoError(t, err)
			require.NotEqual(t, aside, again, "within one second, too")
		})
	}
}

// secretsIn gives the words of private halves.
func secretsIn(t *testing.T, dir string) (words []string) {
	t.Helper()
	for _, name := range []string{"signing-key", "identity"} {
		text, err := os.ReadFile(filepath.Join(dir, "0001", name))
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); len(line) > 20 && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "---") {
				words = append(words, line)
			}
		}
	}
	require.NotEmpty(t, words)
	return words
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, text, 0o600))
}

func TestPrintsShowNoKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys := ensure(t, dir)
	public, err := json.Marshal(keys.Public())
	require.NoError(t, err)
	text := fmt.Sprintf("%v %+v %#v %s %s", keys, keys, keys, keys, public)
	for _, one := range secretsIn(t, dir) {
		require.NotContains(t, text, one)
	}
}

func TestWhatAHandOpenedIsClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ensure(t, dir)
	path := filepath.Join(dir, "0001", "identity")
	require.NoError(t, os.Chmod(path, 0o644))
	_, err := hostkeys.Open(dir)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

// What a crash leaves half made or half deleted is no key and goes.
func TestLeftoversOfACrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{".making-1", ".deleting-0001"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name, "signing-key"), []byte("half"), 0o600))
	}
	_, err := hostkeys.Open(dir)
	require.ErrorIs(t, err, hostkeys.ErrNone)
	ensure(t, dir)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.Equal(t, []string{".lock", "0001"}, names)
}

func TestMadeOnceByMany(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "host")
	var all sync.WaitGroup
	found := make([]string, 8)
	for i := range found {
		all.Go(func() {
			keys, _, err := hostkeys.Ensure(dir, noon)
			if err != nil {
				t.Error(err)
				return
			}
			found[i] = keys.Public()[0].Recipient
		})
	}
	all.Wait()
	for _, one := range found {
		require.Equal(t, found[0], one)
	}
}

// TestKilledMaker kills a process that rotates and prunes as fast as it can: whatever was told as made is there, and each
// pair that is there is whole.
func TestKilledMaker(t *testing.T) {
	if dir := os.Getenv("HOSTKEYS_TEST_DIR"); dir != "" {
		keys := ensure(t, dir)
		for {
			fmt.Println(keys.Public()[0].Recipient)
			keys = rotate(t, dir)
			newest := keys.Public()[0]
			if _, err := hostkeys.Prune(dir, []string{newest.Recipient}, []string{newest.SigningKey}); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Parallel()
	for round := range 6 {
		dir := filepath.Join(t.TempDir(), "host")
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledMaker$")
		cmd.Env = append(os.Environ(), "HOSTKEYS_TEST_DIR="+dir)
		told := &lines{most: 3 + 2*round, enough: func() { _ = cmd.Process.Kill() }}
		cmd.Stdout = told
		require.Error(t, cmd.Run())
		require.GreaterOrEqual(t, len(told.all), told.most)
		keys, made, err := hostkeys.Ensure(dir, noon)
		require.NoError(t, err, "no pair is half there")
		require.False(t, made)
		require.LessOrEqual(t, len(keys.Public()), 2)
		newest, err := filepath.Glob(filepath.Join(dir, "[0-9]*"))
		require.NoError(t, err)
		number, err := strconv.Atoi(filepath.Base(newest[len(newest)-1]))
		require.NoError(t, err)
		require.GreaterOrEqual(t, number, len(told.all), "what was told as made is there, or a newer one is")
	}
}

type lines struct {
	part   string
	all    []string
	most   int
	enough func()
}

func (l *lines) Write(p []byte) (int, error) {
	l.part += string(p)
	for {
		line, rest, ok := strings.Cut(l.part, "\n")
		if !ok {
			break
		}
		l.all, l.part = append(l.all, line), rest
	}
	if len(l.all) >= l.most {
		l.enough()
	}
	return len(p), nil
}
