package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Key joins parts to a key for values, such as Key(instance, node, "drift").
// Parts may hold any text, node ids with slashes included. A last part that is
// empty makes a prefix: Key("deu", "") is the start of all keys of "deu" and
// of no other instance.
func Key(parts ...string) string {
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
	}
	return strings.Join(escaped, "/")
}

// PutTime writes a time under a key, for schedules and drift checks.
func PutTime(tx Tx, key string, t time.Time) error {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(nanos(t)))
	return tx.PutValue(key, b[:])
}

// Time reads a time that PutTime wrote; the zero time when there is none.
func Time(r Reader, key string) (time.Time, error) {
	b, err := r.Value(key)
	if errors.Is(err, ErrNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	if len(b) != 8 {
		return time.Time{}, fmt.Errorf("state value %q is not a time", key)
	}
	return fromNanos(int64(binary.BigEndian.Uint64(b))), nil
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
