package sopsfile_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"dive-agent/sopsfile"
	"dive-agent/testbed"
)

// values has each type that a format may have, and what is easily read in two ways.
var plain = map[string]string{
	"a.yaml": `# a comment of the file
password: hunter2-and-more   # beside a value
number: 42
negative: -7
big: 9007199254740993
float: 1.5
small: 0.000001
huge: 1e21
"yes": true
no_: false
nothing: null
empty: ""
day: 2026-11-22
moment: 2026-11-22T14:00:00.5Z
quoted: "0123"
colon:key: "a:b"
dotted.key: literally
text: |
  several
  lines
unicode: "grüße 🗝"
port_unencrypted: 5432
database:
  # inside
  password: deep-secret-1
  hosts: [one, two, {name: three, port: 3}]
list:
  - 1
  - x: y
  - [a, b]
emptymap: {}
emptylist: []
---
second: document
`,
	"b.json": `{"password": "hunter2-and-more", "n": 1, "f": 2.50, "huge": 1e21, "t": true, "null": null, "e": "",
	"nested": {"list": [1, "two", {"three": 3.25}], "q": "a\"b\\c\u00fc\n"}, "html": "<a&b>"}`,
	"c.env": "# comment\nPASSWORD=hunter2-and-more\nEMPTY=\nMULTI=one\\ntwo\nEQUALS=a=b=c\nQUOTED=\"kept as it is\"\nSPACES= x \n",
}

// world is one folder with keys of both kinds and the real program.
type world struct {
	t    *testing.T
	dir  string
	sops string
	env  []string

	ageKey, agePublic    string
	pgpKey, fingerprint  string
	passphrase           string
	otherAge, otherAgePK string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), sops: testbed.SOPS(t)}
	for _, to := range []struct{ private, public *string }{{&w.ageKey, &w.agePublic}, {&w.otherAge, &w.otherAgePK}} {
		identity, err := age.GenerateX25519Identity()
		require.NoError(t, err)
		*to.private, *to.public = identity.String(), identity.Recipient().String()
	}
	w.env = append(os.Environ(), "HOME="+w.dir, "SOPS_AGE_KEY="+w.ageKey)
	return w
}

// gpg makes a key with the real program, locked by a passphrase.
func (w *world) gpg() {
	w.t.Helper()
	program := testbed.GPG(w.t)
	home, err := os.MkdirTemp("", "gpg") // a socket's path is short
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "gpg-agent").Run()
		_ = os.RemoveAll(home)
	})
	w.env = append(w.env, "GNUPGHOME="+home)
	w.passphrase = "open-sesame"
	batch := []string{"--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", w.passphrase}
	gpg := func(args ...string) string {
		out, err := exec.Command(program, append(append([]string{}, batch...), args...)...).Output()
		require.NoError(w.t, err, "gpg %v", args)
		return string(out)
	}
	gpg("--quick-gen-key", "host@example.org", "rsa2048", "encrypt,sign", "never")
	for line := range strings.Lines(gpg("--with-colons", "--list-secret-keys")) {
		if fields := strings.Split(line, ":"); fields[0] == "fpr" && w.fingerprint == "" {
			w.fingerprint = fields[9]
		}
	}
	w.pgpKey = gpg("--armor", "--export-secret-keys")
}

func (w *world) run(args ...string) (string, error) {
	cmd := exec.Command(w.sops, args...)
	cmd.Env, cmd.Dir = w.env, w.dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

// encrypt writes a file and has the real program encrypt it.
func (w *world) encrypt(name, content string, args ...string) []byte {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.WriteFile(path, []byte(content), 0o600))
	_, err := w.run(append(append([]string{"encrypt", "--in-place"}, args...), path)...)
	require.NoError(w.t, err)
	encrypted, err := os.ReadFile(path)
	require.NoError(w.t, err)
	return encrypted
}

// rule writes how files are encrypted where the command does not say it.
func (w *world) rule(text string) {
	w.t.Helper()
	if !strings.Contains(text, "key_groups") {
		text += ", age: '" + w.otherAgePK + "," + w.agePublic + "'"
	}
	require.NoError(w.t, os.WriteFile(filepath.Join(w.dir, ".sops.yaml"), []byte("creation_rules: [{"+text+"}]\n"), 0o600))
}

func (w *world) keys() *sopsfile.Keys {
	keys := &sopsfile.Keys{}
	require.NoError(w.t, keys.AddAge([]byte("# created by hand\n"+w.ageKey+"\n")))
	return keys
}

func open(t *testing.T, name string, content []byte, keys *sopsfile.Keys) (*sopsfile.Opened, error) {
	t.Helper()
	f, err := sopsfile.Parse(name, content)
	require.NoError(t, err)
	return f.Open(keys)
}

// TestOpensWhatTheRealProgramEncrypts goes through all formats and ways of saying what is encrypted, and asks the real
// program for each value.
func TestOpensWhatTheRealProgramEncrypts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ways := map[string][]string{
		"default":           nil,
		"encrypted regex":   {"--encrypted-regex", "^(password|PASSWORD|nested)$"},
		"unencrypted regex": {"--unencrypted-regex", "^(number|n|EMPTY|list)$"},
		"encrypted suffix":  {"--encrypted-suffix", "password"},
		"plain suffix":      {"--unencrypted-suffix", "_"},
		"mac of encrypted":  {"encrypted_regex: ^(password|PASSWORD)$, mac_only_encrypted: true"},
	}
	for how, args := range ways {
		for name, content := range plain {
			to := append([]string{"--age", w.otherAgePK + "," + w.agePublic}, args...)
			if len(args) == 1 {
				w.rule(args[0])
				to = nil
			} else {
				_ = os.Remove(filepath.Join(w.dir, ".sops.yaml")) // the rule of another way
			}
			encrypted := w.encrypt(name, content, to...)
			opened, err := open(t, name, encrypted, w.keys())
			require.NoError(t, err, "%s, %s", name, how)
			w.same(name, opened, how)
		}
	}
}

// same holds values against those of the real program.
func (w *world) same(name string, opened *sopsfile.Opened, how string) {
	w.t.Helper()
	content, err := os.ReadFile(filepath.Join(w.dir, name))
	require.NoError(w.t, err)
	f, err := sopsfile.Parse(name, content)
	require.NoError(w.t, err)
	seen := 0
	for _, key := range f.Keys() {
		if strings.Contains(key, "emptymap") || key == "second" || key == "dotted.key" {
			continue // nothing below it; sops extracts from the first document alone; a key with a dot is tested below
		}
		extract := ""
		for _, step := range strings.Split(key, ".") {
			if strings.Trim(step, "0123456789") == "" {
				extract += "[" + step + "]"
				continue
			}
			quoted, err := json.Marshal(step)
			require.NoError(w.t, err)
			extract += "[" + string(quoted) + "]"
		}
		want, err := w.run("decrypt", "--extract", extract, filepath.Join(w.dir, name))
		value, ours := opened.Value(key)
		if strings.TrimSpace(want) == "null" || err != nil {
			require.Error(w.t, ours, "%s %s, %s", name, key, how)
			continue
		}
		require.NoError(w.t, ours, "%s %s, %s", name, key, how)
		want, value = strings.TrimRight(want, "\n"), strings.TrimRight(value, "\n")
		if number, err := strconv.ParseFloat(want, 64); err == nil && strings.ContainsAny(want, "e") { // written without exponent here
			want = strconv.FormatFloat(number, 'f', -1, 64)
		}
		require.Equal(w.t, want, value, "%s %s, %s", name, key, how)
		seen++
	}
	require.Greater(w.t, seen, 4, "%s, %s", name, how)
}

// TestOpenPGP opens what is encrypted to a key of the real gpg, exported as an operator would.
func TestOpenPGP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.gpg()
	for name, content := range plain {
		encrypted := w.encrypt(name, content, "--pgp", w.fingerprint, "--age", w.otherAgePK)
		keys := &sopsfile.Keys{}
		require.ErrorContains(t, keys.AddPGP([]byte(w.pgpKey), nil), "locked by a passphrase")
		require.ErrorContains(t, keys.AddPGP([]byte(w.pgpKey), []byte("wrong")), "does not open")
		require.NoError(t, keys.AddPGP([]byte(w.pgpKey), []byte(w.passphrase)))
		opened, err := open(t, name, encrypted, keys)
		require.NoError(t, err)
		value, err := opened.Value(map[bool]string{true: "PASSWORD", false: "password"}[name == "c.env"])
		require.NoError(t, err)
		require.Equal(t, "hunter2-and-more", value)

		_, err = open(t, name, encrypted, w.keys())
		require.ErrorContains(t, err, w.fingerprint, "the error names whom the file is for")
		require.ErrorContains(t, err, w.agePublic, "and whom this host is")
	}
	require.ErrorContains(t, (&sopsfile.Keys{}).AddPGP([]byte("no key"), nil), "no OpenPGP private key")
	require.ErrorContains(t, (&sopsfile.Keys{}).AddAge([]byte("AGE-SECRET-KEY-1BROKEN")), "no age identity")
}

// TestAFileChangedByHandIsRefused: a value that was edited, moved, added or taken away, without the words of the file.
func TestAFileChangedByHandIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	encrypted := string(w.encrypt("a.yaml", "one: value-number-one\ntwo: value-number-two\nport_unencrypted: 5432\n", "--age", w.agePublic))
	lines := strings.SplitAfter(encrypted, "\n")
	require.True(t, strings.HasPrefix(lines[0], "one: ENC["))
	for what, c := range map[string]struct{ text, say string }{
		"moved":      {"one" + strings.TrimPrefix(lines[1], "two") + "two" + strings.TrimPrefix(lines[0], "one") + strings.Join(lines[2:], ""), "its own data key"},
		"gone":       {strings.Join(lines[1:], ""), "the mac does not fit"},
		"plain":      {strings.Replace(encrypted, "5432", "5433", 1), "the mac does not fit"},
		"added":      {"three_unencrypted: x\n" + encrypted, "the mac does not fit"},
		"in clear":   {"three: plain-password\n" + encrypted, `"three" is not encrypted`},
		"a number":   {"three: 5\n" + encrypted, `"three" is not encrypted`},
		"broken":     {strings.Replace(encrypted, "data:", "data:AAAA", 1), "its own data key"},
		"no mac":     {strings.Replace(encrypted, "    mac: ENC[", "    mac: XXX[", 1), "its own data key"},
		"other time": {strings.Replace(encrypted, "lastmodified: \"20", "lastmodified: \"19", 1), "its own data key"},
	} {
		require.NotEqual(t, encrypted, c.text, what)
		_, err := open(t, "a.yaml", []byte(c.text), w.keys())
		require.ErrorContains(t, err, c.say, what)
		require.NotContains(t, err.Error(), "plain-password", what)
	}
	opened, err := open(t, "a.yaml", []byte(encrypted), w.keys())
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprintf("%v %+v %s", opened, opened, opened), "value-number")
	_, err = opened.Value("three")
	require.ErrorContains(t, err, `no key "three"`)
}

// TestWhatIsNotReadIsNamed: what SOPS can and this package does not.
func TestWhatIsNotReadIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rule("shamir_threshold: 2, key_groups: [{age: [" + w.agePublic + "]}, {age: [" + w.otherAgePK + "]}]")
	for name, say := range map[string]string{"a.yaml": "key groups", "b.json": "key groups", "c.env": "key groups"} {
		_, err := sopsfile.Parse(name, w.encrypt(name, plain[name]))
		require.ErrorContains(t, err, say)
	}
	w.rule("encrypted_comment_regex: secret")
	comments := w.encrypt("a.yaml", "# secret\npassword: hunter2-and-more\n")
	_, err := sopsfile.Parse("a.yaml", comments)
	require.ErrorContains(t, err, "by comments")
	for name, c := range map[string]struct{ text, say string }{
		"a.yaml":  {"password: plain-password\n", "not encrypted by SOPS"},
		"b.yaml":  {"- plain-password\n", "no map"},
		"c.yaml":  {"a: &a [plain-password]\nb: *a\nsops: {}\n", "alias"},
		"d.yaml":  {"plain-password: [\n", "no YAML"},
		"e.json":  {`{"plain-password": `, "no JSON"},
		"f.env":   {"plain-password", "line 1"},
		"g.ini":   {"", "called .yaml"},
		"h.json":  {`["plain-password"]`, "no map"},
		"i.yaml":  {"a: [" + strings.Repeat("x,", 100_001) + "]", "more than"},
		"j.json":  {"[" + strings.Repeat("1,", 100_001) + "1]", "more than"},
		"k.yaml":  {"", "not encrypted by SOPS"},
		"kms.env": {"sops_kms__list_0__map_enc=x\nsops_mac=x\nsops_lastmodified=2026-11-22T14:00:00Z\n", ""},
	} {
		f, err := sopsfile.Parse(name, []byte(c.text))
		if c.say == "" {
			require.NoError(t, err)
			_, err = f.Open(w.keys())
			require.ErrorContains(t, err, "AWS KMS")
			continue
		}
		require.ErrorContains(t, err, c.say, name)
		require.NotContains(t, err.Error(), "plain-password", name)
	}
}

// TestKeysOfValues: a literal key goes before a way of the same name; lists by number; maps are refused.
func TestKeysOfValues(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	encrypted := w.encrypt("a.yaml", "a.b: literal-value\na:\n  b: other-value\n  list:\n    # one\n    - x\n    # two\n    - y: in-a-list\n", "--age", w.agePublic)
	opened, err := open(t, "a.yaml", encrypted, w.keys())
	require.NoError(t, err)
	for key, want := range map[string]string{"a.b": "literal-value", "a.list.0": "x", "a.list.1.y": "in-a-list"} {
		value, err := opened.Value(key)
		require.NoError(t, err, key)
		require.Equal(t, want, value, key)
	}
	f, err := sopsfile.Parse("a.yaml", encrypted)
	require.NoError(t, err)
	for key, has := range map[string]bool{"a.b": true, "a": false, "a.list": false, "a.list.2": false, "a.list.-1": false, "sops": false, "": false} {
		require.Equal(t, has, f.Has(key), key)
	}
	_, err = opened.Value("a.list")
	require.ErrorContains(t, err, "a map or a list")
}

// FuzzParse looks for bytes that end the program, or are read in a time or with memory out of proportion.
func FuzzParse(f *testing.F) {
	f.Add("a.yaml", []byte("a: ENC[AES256_GCM,data:AAAA,iv:AAAA,tag:AAAA,type:str]\nsops: {mac: x, lastmodified: 2026-11-22T14:00:00Z, age: [{enc: x}]}\n"))
	f.Add("b.json", []byte(`{"a": [{}], "sops": {"mac": "x", "lastmodified": "2026-11-22T14:00:00Z", "pgp": [{"enc": "x", "fp": "y"}]}}`))
	f.Add("c.env", []byte("A=1\nsops_age__list_999__map_enc=x\nsops_mac=x\nsops_lastmodified=2026-11-22T14:00:00Z\n"))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		file, err := sopsfile.Parse(name, content)
		if err != nil {
			return
		}
		file.Keys()
		if _, err := file.Open(&sopsfile.Keys{}); err == nil {
			t.Fatal("opened without a key")
		}
	})
}
