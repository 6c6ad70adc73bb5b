package verify

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// differs says where a value lacks what is expected of it, or "". A map must have the expected fields and may have
// more; a list must be the same; numbers are compared by value.
func differs(path string, saw, expect any) string {
	if want, isMap := expect.(map[string]any); isMap {
		have, ok := saw.(map[string]any)
		if !ok {
			return mismatch(path, saw, expect)
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			at := name
			if path != "" {
				at = path + "." + name
			}
			value, there := have[name]
			if !there {
				return fmt.Sprintf("%s is missing, expected %v", at, want[name])
			}
			if difference := differs(at, value, want[name]); difference != "" {
				return difference
			}
		}
		return ""
	}
	if want, isList := expect.([]any); isList {
		have, ok := saw.([]any)
		if !ok || len(have) != len(want) {
			return mismatch(path, saw, expect)
		}
		for i := range want {
			if difference := differs(fmt.Sprintf("%s[%d]", path, i), have[i], want[i]); difference != "" {
				return difference
			}
		}
		return ""
	}
	if a, err := number(saw); err == nil {
		if b, err := number(expect); err == nil && a == b {
			return ""
		}
		return mismatch(path, saw, expect)
	}
	if saw != expect {
		return mismatch(path, saw, expect)
	}
	return ""
}

func mismatch(path string, saw, expect any) string {
	if path == "" {
		return fmt.Sprintf("%s, expected %v", shown(saw), expect)
	}
	return fmt.Sprintf("%s is %s, expected %v", path, shown(saw), expect)
}

func number(v any) (float64, error) {
	switch n := v.(type) {
	case int:
		return float64(n), nil
	case int32:
		return float64(n), nil
	case int64:
		return float64(n), nil
	case float64:
		return n, nil
	}
	return 0, fmt.Errorf("%v is no number", v)
}

// plain turns a document of the driver into maps, lists and scalars.
func plain(v any) any {
	switch value := v.(type) {
	case bson.M:
		out := make(map[string]any, len(value))
		for name, field := range value {
			out[name] = plain(field)
		}
		return out
	case bson.D:
		out := make(map[string]any, len(value))
		for _, field := range value {
			out[field.Key] = plain(field.Value)
		}
		return out
	case bson.A:
		out := make([]any, len(value))
		for i, item := range value {
			out[i] = plain(item)
		}
		return out
	case bson.ObjectID:
		return value.Hex()
	case bson.DateTime:
		return value.Time().UTC().Format(time.RFC3339Nano)
	}
	return v
}
