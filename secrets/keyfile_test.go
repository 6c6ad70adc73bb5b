package secrets_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/secrets"
)

// sharedKey is a secret that servers share as their key.
func sharedKey(name string) desired.SecretSpec {
	spec := generate(name, "mongodb-keyfile")
	spec.Keyfile, spec.File = true, &desired.SecretFile{Path: "mongo-keyfile", Mode: "0400"}
	return spec
}

// keyfile gives the keys of the file that servers are started with, after the agent's look at its secrets.
func keyfile(t *testing.T, s *secrets.Store, dir string, spec desired.SecretSpec) []string {
	t.Helper()
	value := ensure(t, s, spec).Values[spec.Name].Text()
	text, err := os.ReadFile(filepath.Join(dir, spec.File.Path))
	require.NoError(t, err)
	require.Equal(t, value, string(text))
	keys := desired.KeysOf(value)
	require.NoError(t, desired.CheckKeys(keys))
	return keys
}

// inUse says that all that use the secret have its present value, and gives the secrets that have another one now.
func inUse(t *testing.T, s *secrets.Store, spec desired.SecretSpec) []string {
	t.Helper()
	goOn, err := s.Forget(t.Context(), ensure(t, s, spec).Values)
	require.NoError(t, err)
	return goOn
}

func replaced(t *testing.T, s *secrets.Store, name string) string {
	t.Helper()
	list, err := s.List()
	require.NoError(t, err)
	for _, info := range list {
		if info.Name == name {
			return info.Replaced
		}
	}
	t.Fatalf("no secret %s", name)
	return ""
}

// TestAKeyIsReplacedInTwoSteps: any two servers that follow one by one have a key in common at any time.
func TestAKeyIsReplacedInTwoSteps(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), sharedKey("KEY")
	s := open(t, dir, rand.Reader)
	require.ErrorContains(t, s.Rotate(t.Context(), spec), "was not made yet")
	old := keyfile(t, s, dir, spec)
	require.Len(t, old, 1)
	require.Empty(t, inUse(t, s, spec))
	require.Empty(t, replaced(t, s, "KEY"))

	require.NoError(t, s.Rotate(t.Context(), spec))
	both := keyfile(t, s, dir, spec)
	require.Len(t, both, 2)
	require.Equal(t, old[0], both[0])
	require.NotEqual(t, old[0], both[1])
	require.Equal(t, []string{old[0]}, former(t, dir, spec))
	require.Equal(t, "rotated: its servers get the new key beside the former one (1 of 2)", replaced(t, s, "KEY"))
	var rotating *secrets.RotatingError
	refused := func(err error) {
		t.Helper()
		require.ErrorAs(t, err, &rotating)
		require.ErrorContains(t, err, "nothing was changed. See dive-agent status deu")
		for _, key := range append(both, old...) {
			require.NotContains(t, err.Error(), key)
		}
	}
	refused(s.Rotate(t.Context(), spec))
	refused(s.Set(t.Context(), "KEY", []byte("anotherKey")))
	refused(s.Set(t.Context(), "KEY", []byte(both[1])))
	require.Equal(t, both, keyfile(t, s, dir, spec))

	require.Equal(t, []string{"KEY"}, inUse(t, s, spec))
	require.Equal(t, both[1:], keyfile(t, s, dir, spec))
	require.Equal(t, "rotated: its servers lose the former key (2 of 2)", replaced(t, s, "KEY"))
	refused(s.Rotate(t.Context(), spec))
	refused(s.Set(t.Context(), "KEY", []byte(old[0])))

	require.Empty(t, inUse(t, s, spec))
	require.Equal(t, both[1:], keyfile(t, s, dir, spec))
	require.Empty(t, former(t, dir, spec))
	require.Empty(t, replaced(t, s, "KEY"))
	require.NoError(t, s.Rotate(t.Context(), spec), "the next one")
	require.Equal(t, both[1], keyfile(t, s, dir, spec)[0])

	require.NoError(t, s.Set(t.Context(), "KEY", []byte(both[1])), "back to the key that all of them have")
	require.Equal(t, both[1:], keyfile(t, s, dir, spec))
	require.Empty(t, inUse(t, s, spec))
	require.Empty(t, former(t, dir, spec))
}

// TestAProvidedKeyIsReplacedInTwoSteps: an operator gives one key, which servers would not start with when it is none.
func TestAProvidedKeyIsReplacedInTwoSteps(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), sharedKey("KEY")
	spec.Generate, spec.Provide = nil, true
	s := open(t, dir, rand.Reader)
	require.NoError(t, s.Set(t.Context(), "KEY", []byte("firstKey\n")))
	require.Equal(t, []string{"firstKey"}, keyfile(t, s, dir, spec))
	for text, why := range map[string]string{
		"not/base64!":               "only characters of base64",
		strings.Repeat("a", 1025):   "6 to 1024 characters, not 1025",
		"- aaaaaa\n- bbbbbb\n- ccc": "one key or two, not 3",
		"- firstKey\n- secondKey\n": "give the new key alone",
	} {
		require.ErrorContains(t, s.Set(t.Context(), "KEY", []byte(text)), why)
	}
	require.ErrorContains(t, s.Rotate(t.Context(), spec), "give the new value with dive-agent secrets set deu KEY")
	require.NoError(t, s.Set(t.Context(), "KEY", []byte("second\nKey\n")))
	require.Equal(t, []string{"firstKey", "secondKey"}, keyfile(t, s, dir, spec))
	require.Equal(t, []string{"KEY"}, inUse(t, s, spec))
	require.Equal(t, []string{"secondKey"}, keyfile(t, s, dir, spec))
	require.Empty(t, inUse(t, s, spec))

	// By hand, behind the agent's back: no server would accept another one any more.
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".store", "values", "KEY"), []byte("thirdKey"), 0o600))
	_, err := s.Ensure(t.Context(), []desired.SecretSpec{spec}, secrets.EnsureOptions{})
	var changed *secrets.ChangedError
	require.ErrorAs(t, err, &changed)
}

// TestTheRotationOfAKeyGoesOnAfterACrash: between any two of its writes.
func TestTheRotationOfAKeyGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), sharedKey("KEY")
	s := open(t, dir, rand.Reader)
	old := keyfile(t, s, dir, spec)
	files := []string{"former/KEY", "manifest.json", "values/KEY", "manifest.json"} // in the order in which they are written
	step := func(do func()) []map[string]string {
		t.Helper()
		before := snapshot(t, dir)
		do()
		after := snapshot(t, dir)
		require.NotEqual(t, before["values/KEY"], after["values/KEY"])
		stages := []map[string]string{before}
		for i, file := range files {
			stage := map[string]string{}
			for name, text := range stages[i] {
				stage[name] = text
			}
			stage[file] = after[file]
			if i == 1 {
				stage[file] = announced(t, before[file], after[file])
			}
			stages = append(stages, stage)
		}
		return stages
	}
	first := step(func() { require.NoError(t, s.Rotate(t.Context(), spec)) })
	both := keyfile(t, s, dir, spec)
	second := step(func() { require.Equal(t, []string{"KEY"}, inUse(t, s, spec)) })
	for i, stage := range first {
		restore(t, dir, stage)
		keys := keyfile(t, s, dir, spec)
		if i < 3 {
			require.Equal(t, old, keys, "stage %d", i)
			require.Empty(t, replaced(t, s, "KEY"))
			require.NoError(t, s.Rotate(t.Context(), spec), "it was not begun: stage %d", i)
			require.Len(t, keyfile(t, s, dir, spec), 2)
			continue
		}
		require.Equal(t, both, keys, "stage %d", i)
		require.Equal(t, []string{"KEY"}, inUse(t, s, spec))
		require.Equal(t, both[1:], keyfile(t, s, dir, spec))
	}
	for i, stage := range second {
		restore(t, dir, stage)
		if i < 3 {
			require.Equal(t, both, keyfile(t, s, dir, spec), "stage %d", i)
			require.Equal(t, []string{"KEY"}, inUse(t, s, spec), "stage %d", i)
		}
		require.Equal(t, both[1:], keyfile(t, s, dir, spec), "stage %d", i)
		require.Empty(t, inUse(t, s, spec), "stage %d", i)
		require.Empty(t, former(t, dir, spec))
	}
}

// snapshot reads what is kept of the secrets.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range []string{"former/KEY", "manifest.json", "values/KEY"} {
		text, err := os.ReadFile(filepath.Join(dir, ".store", name))
		if !os.IsNotExist(err) {
			require.NoError(t, err)
		}
		out[name] = string(text)
	}
	return out
}

func restore(t *testing.T, dir string, stage map[string]string) {
	t.Helper()
	for name, text := range stage {
		path := filepath.Join(dir, ".store", name)
		if text == "" {
			require.NoError(t, os.RemoveAll(path))
			continue
		}
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
}

// announced is the manifest before the new value is written: it knows both.
func announced(t *testing.T, before, after string) string {
	t.Helper()
	type manifest struct {
		Version int                       `json:"version"`
		Secrets map[string]map[string]any `json:"secrets"`
	}
	var was, is manifest
	require.NoError(t, json.Unmarshal([]byte(before), &was))
	require.NoError(t, json.Unmarshal([]byte(after), &is))
	was.Secrets["KEY"]["next"] = is.Secrets["KEY"]["fingerprint"]
	text, err := json.Marshal(was)
	require.NoError(t, err)
	return string(text)
}

// TestBothKeysOfAFileAreHidden: each of them alone, too.
func TestBothKeysOfAFileAreHidden(t *testing.T) {
	t.Parallel()
	r := secrets.NewRedactor(desired.KeyfileOf("0123456789abcdefABCDEF", "fedcba9876543210fedcba"))
	for _, key := range []string{"0123456789abcdefABCDEF", "fedcba9876543210fedcba"} {
		require.Equal(t, "key (secret).", r.String(fmt.Sprintf("key %s.", key)))
	}
}
