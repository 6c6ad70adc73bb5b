package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The pages of the program are let go of, and come back when they are needed.
func TestTheProgramsPagesAreLetGoOf(t *testing.T) {
	before := ownFilePages(t)
	require.NoError(t, letGoOfProgram())
	after := ownFilePages(t)
	t.Logf("%d kB of files in memory, %d kB before", after, before)
	require.Less(t, after, before)
	require.NoError(t, letGoOfProgram())
}

// ownFilePages reads what of its files a process has in memory, in kB.
func ownFilePages(t *testing.T) (kB int) {
	text, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(text), "RssFile:")
	require.True(t, ok)
	_, err = fmt.Sscan(rest, &kB)
	require.NoError(t, err)
	return kB
}
