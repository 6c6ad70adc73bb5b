package verify

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDiffers: maps may hold more than is expected, lists may not.
func TestDiffers(t *testing.T) {
	saw := map[string]any{"ok": 1.0, "hosts": []any{"a", "b"}, "primary": true, "set": map[string]any{"name": "rs0", "version": int32(3)}}
	for difference, expect := range map[string]any{
		"":                                       map[string]any{"ok": 1, "hosts": []any{"a", "b"}, "set": map[string]any{"version": 3}},
		"hosts is a list of 2, expected [a]":     map[string]any{"hosts": []any{"a"}},
		"hosts is a list of 2, expected [a b c]": map[string]any{"hosts": []any{"a", "b", "c"}},
		"hosts[1] is a text of 1 character, expected c": map[string]any{"hosts": []any{"a", "c"}},
		"set.version is 3, expected 4":                  map[string]any{"set": map[string]any{"version": 4}},
		"set.size is missing, expected 1":               map[string]any{"set": map[string]any{"size": 1}},
		"primary is true, expected 1":                   map[string]any{"primary": 1},
		"primary is true, expected true":                map[string]any{"primary": "true"},
		"ok is 1, expected map[is:not scalar]":          map[string]any{"ok": map[string]any{"is": "not scalar"}},
	} {
		require.Equal(t, difference, differs("", saw, expect))
	}
}
