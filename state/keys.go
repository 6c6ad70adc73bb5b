package state

import (
	"net/url"
	"strings"
	"time"
)

// Key joins parts to a key for values, such as Key(instance, node, "drift").
// Parts may hold any text, node ids with slashes included: no two lists of
// parts make one key.
func Key(parts ...string) string {
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
	}
	return strings.Join(escaped, "/")
}

// nanos and fromNanos keep the zero time apart from 1970.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
