package desired

import (
	"fmt"
	"strings"
)

// Limits of one key of a MongoDB key file (manual, "Keyfile Security"), and of a file: more keys end the server at its start.
const (
	minKey  = 6
	maxKey  = 1024
	maxKeys = 2
)

const base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="

// KeysOf reads the content of a MongoDB key file: one key, or, since 4.2, a YAML list of at most two. The server ignores
// white space within a key. What is no key file gives something that CheckKeys refuses.
func KeysOf(text string) []string {
	var keys []string
	plain := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if rest, item := strings.CutPrefix(line, "-"); item {
			keys = append(keys, strings.Trim(strings.Join(strings.Fields(rest), ""), `"'`))
			continue
		}
		plain += strings.Join(strings.Fields(line), "")
	}
	if len(keys) == 0 && plain != "" {
		keys = []string{plain}
	}
	return keys
}

// KeyfileOf is the content of a key file with these keys, of which the server takes any: members that share one of them
// accept each other.
func KeyfileOf(keys ...string) string {
	if len(keys) == 1 {
		return keys[0]
	}
	var list strings.Builder
	for _, key := range keys {
		list.WriteString("- " + key + "\n")
	}
	return list.String()
}

// CheckKeys says why a server would not start with these keys, without telling any of them.
func CheckKeys(keys []string) error {
	if len(keys) == 0 || len(keys) > maxKeys {
		return fmt.Errorf("a key file holds one key or two, not %d", len(keys))
	}
	for _, key := range keys {
		if len(key) < minKey || len(key) > maxKey {
			return fmt.Errorf("a key has %d to %d characters, not %d", minKey, maxKey, len(key))
		}
		if strings.Trim(key, base64Digits) != "" {
			return fmt.Errorf("a key has only characters of base64: letters, digits, +, / and =")
		}
	}
	return nil
}
