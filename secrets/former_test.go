package secrets_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/secrets"
)

func former(t *testing.T, dir string, spec desired.SecretSpec) []string {
	t.Helper()
	values, err := secrets.Former(secrets.Options{Instance: "deu", Dir: dir}, []desired.SecretSpec{spec})
	require.NoError(t, err)
	var texts []string
	for _, v := range values[spec.Name] {
		require.True(t, v.Secret())
		texts = append(texts, v.Text())
	}
	return texts
}

// forget forgets values of which none has more to come.
func forget(t *testing.T, s *secrets.Store, inUse map[string]desired.Value) {
	t.Helper()
	goOn, err := s.Forget(t.Context(), inUse)
	require.NoError(t, err)
	require.Empty(t, goOn)
}

// TestFormerValuesAreKeptUntilThePresentOneIsInUse: also when it is replaced again meanwhile.
func TestFormerValuesAreKeptUntilThePresentOneIsInUse(t *testing.T) {
	dir, spec := t.TempDir(), generate("PASSWORD", "password")
	s := open(t, dir, rand.Reader)
	first := ensure(t, s, spec).Values
	require.Empty(t, former(t, dir, spec))

	require.NoError(t, s.Set(t.Context(), "PASSWORD", []byte("second-value-2")))
	second := ensure(t, s, spec).Values
	require.Equal(t, []string{first["PASSWORD"].Text()}, former(t, dir, spec))
	path := filepath.Join(dir, ".store", "former", "PASSWORD")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	require.NoError(t, s.Set(t.Context(), "PASSWORD", []byte("third-value-3")))
	require.NoError(t, s.Set(t.Context(), "PASSWORD", []byte("third-value-3")))
	require.Equal(t, []string{"second-value-2", first["PASSWORD"].Text()}, former(t, dir, spec), "the same again is no new value")

	forget(t, s, second)
	require.Len(t, former(t, dir, spec), 2, "what was taken into use is not the present value any more")
	forget(t, s, ensure(t, s, spec).Values)
	require.Empty(t, former(t, dir, spec))
	require.NoFileExists(t, path)
	forget(t, s, ensure(t, s, spec).Values)

	for i := range 8 {
		require.NoError(t, s.Set(t.Context(), "PASSWORD", fmt.Appendf(nil, "one-of-many-%d", i)))
	}
	err = s.Set(t.Context(), "PASSWORD", []byte("one-too-many"))
	require.ErrorContains(t, err, "see dive-agent status deu")
	require.Equal(t, "one-of-many-7", ensure(t, s, spec).Values["PASSWORD"].Text(), "what is refused changes nothing")
}
