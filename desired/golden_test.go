package desired_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}

// A repository full of mistakes: each is reported, with its place, in one go.
func TestMistakes(t *testing.T) {
	_, err := desired.Load(filepath.Join("testdata", "mistakes"), desired.Options{Kinds: kinds})
	var problems desired.Problems
	require.True(t, errors.As(err, &problems))
	var text strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&text, "%s\n", p)
	}
	golden(t, "mistakes.golden", text.String())
}
