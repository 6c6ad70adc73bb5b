package state

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// IDs makes identifiers of runs: 26 characters of Crockford's base 32 (the
// layout of a ULID: 48 bits of milliseconds, 80 of randomness), so that they
// sort by time. Within one IDs they are strictly growing, also when the clock
// stands still or goes back. Safe for concurrent use.
type IDs struct {
	now    func() time.Time
	random io.Reader

	mu   sync.Mutex
	last [16]byte
}

// NewIDs returns a maker of identifiers that takes time and randomness from
// what it is given.
func NewIDs(now func() time.Time, random io.Reader) *IDs {
	return &IDs{now: now, random: random}
}

// New returns the next identifier. It fails only when the randomness does.
func (g *IDs) New() (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var id [16]byte
	ms := uint64(g.now().UnixMilli())
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i)))
	}
	if string(id[:6]) <= string(g.last[:6]) && g.last != [16]byte{} {
		id = g.last
		increment(&id)
	} else if _, err := io.ReadFull(g.random, id[6:]); err != nil {
		return "", fmt.Errorf("read randomness for a run id: %w", err)
	}
	g.last = id
	return encode(id), nil
}

func increment(id *[16]byte) {
	for i := len(id) - 1; i >= 0; i-- {
		id[i]++
		if id[i] != 0 {
			return
		}
	}
}

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// encode writes 128 bits as 26 digits of 5 bits; the first holds 3.
func encode(id [16]byte) string {
	var out [26]byte
	var acc uint
	bits := 2 // two zero bits in front make 130 = 26 * 5
	n := 0
	for _, b := range id {
		acc = acc<<8 | uint(b)
		bits += 8
		for bits >= 5 {
			bits -= 5
			out[n] = crockford[acc>>bits&31]
			n++
		}
		acc &= 1<<bits - 1
	}
	return string(out[:])
}
