package compose

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The cause stands where it can be read, however long the line is, and whatever came after it.
func TestWordsThatTellTheCause(t *testing.T) {
	t.Parallel()
	require.Empty(t, quoted(nil))
	require.Equal(t, `; its last words: "bye"`, quoted([]string{"hello", "bye"}))
	require.Equal(t, `; its last words: "write: No space left on device"`, quoted([]string{"write: No space left on device", "Frame", "Frame"}))

	long := cutLine(strings.Repeat("x", 5000) + "error_str: No space left on device" + strings.Repeat("y", 5000))
	require.Contains(t, long, "No space left on device")
	require.LessOrEqual(t, len(long), lineLength+6)
	require.Equal(t, strings.Repeat("x", lineLength)+"...", cutLine(strings.Repeat("x", 5000)))
	early := "No space left on device" + strings.Repeat("y", 5000)
	require.Equal(t, early[:lineLength]+"...", cutLine(early))
}
