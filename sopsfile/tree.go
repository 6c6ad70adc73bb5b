package sopsfile

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// maxNodes is how many keys and values a file may have.
const maxNodes = 100_000

// branch is a map in the order of the file, on which the mac depends. A value is a string, int, float64, bool, time.Time,
// nil, []any or branch.
type branch []item

type item struct {
	key   string
	value any
}

// Formats are the endings of names of files that can be read.
var formats = map[string]func([]byte) ([]branch, error){
	".yaml": parseYAML, ".yml": parseYAML, ".json": parseJSON, ".env": parseDotenv,
}

// CheckName says whether a file's name tells a format that can be read, as SOPS tells it: by its ending.
func CheckName(name string) error {
	if formats[path.Ext(name)] == nil {
		return fmt.Errorf("%s: a SOPS file is called .yaml, .yml, .json or .env", name)
	}
	return nil
}

func (b branch) get(key string) (any, bool) {
	for _, i := range b {
		if i.key == key {
			return i.value, true
		}
	}
	return nil, false
}

// find gives what stands under a key: an entry of that very name, else the way there, its parts separated by dots and
// entries of lists given by their number from 0.
func find(branches []branch, key string) (any, bool) {
	for _, b := range branches {
		if v, ok := b.get(key); ok {
			return v, true
		}
	}
	for _, b := range branches {
		if v, ok := descend(b, strings.Split(key, ".")); ok {
			return v, true
		}
	}
	return nil, false
}

func descend(v any, steps []string) (any, bool) {
	for _, step := range steps {
		var ok bool
		switch in := v.(type) {
		case branch:
			if v, ok = in.get(step); !ok {
				return nil, false
			}
		case []any:
			n, err := strconv.Atoi(step)
			if err != nil || n < 0 || n >= len(in) {
				return nil, false
			}
			v = in[n]
		default:
			return nil, false
		}
	}
	return v, true
}

// leaves gives the ways to all values, in order.
func leaves(v any, prefix string) (keys []string) {
	join := func(step string) string {
		if prefix == "" {
			return step
		}
		return prefix + "." + step
	}
	switch in := v.(type) {
	case branch:
		for _, i := range in {
			keys = append(keys, leaves(i.value, join(i.key))...)
		}
	case []any:
		for n, value := range in {
			keys = append(keys, leaves(value, join(strconv.Itoa(n)))...)
		}
	default:
		return []string{prefix}
	}
	return keys
}

// withoutComments takes out the entries of lists that were comments before the file was encrypted. They are no values, no part
// of the mac, and are not counted.
func withoutComments(v any) any {
	switch in := v.(type) {
	case branch:
		out := make(branch, 0, len(in))
		for _, i := range in {
			out = append(out, item{i.key, withoutComments(i.value)})
		}
		return out
	case []any:
		out := make([]any, 0, len(in))
		for _, value := range in {
			if text, ok := value.(string); !ok || !encryptedComment.MatchString(text) {
				out = append(out, withoutComments(value))
			}
		}
		return out
	}
	return v
}
