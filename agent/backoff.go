package agent

import (
	"crypto/rand"
	"io"
	"math/big"
	"time"
)

// The limits of retries after failures, by the design: 750 ms doubling to 15 min.
const (
	backoffFirst = 750 * time.Millisecond
	backoffLast  = 15 * time.Minute
)

// backoff gives the waits between retries: doubling, with up to 20 % jitter taken from random.
type backoff struct {
	random io.Reader
	tries  int
}

func (b *backoff) next() time.Duration {
	wait := backoffLast
	if b.tries < 11 {
		wait = min(backoffFirst<<b.tries, backoffLast)
	}
	b.tries++
	jitter, err := rand.Int(b.random, big.NewInt(int64(wait/5)+1))
	if err != nil {
		return wait
	}
	return wait + time.Duration(jitter.Int64())
}

func (b *backoff) reset() { b.tries = 0 }
