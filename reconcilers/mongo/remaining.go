package mongo

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// remainLimit bounds the wait for those that remain; the next run goes on waiting.
const remainLimit = time.Minute

// waitRemaining waits, before host leaves or loses its vote, until a majority of the voters that remain has what the primary
// had when it was first asked. The server does not ask for that: it loses nothing, but every write that asks for a majority
// would wait until they have caught up, and a primary without a majority that answers steps down. When host itself is behind
// or away, nobody waits for the others less with it than without.
func (s *session) waitRemaining(ctx context.Context, host string, progress reconcilers.Progress) error {
	limited, cancel := context.WithTimeout(ctx, remainLimit)
	defer cancel()
	var c config
	err := s.onPrimary(limited, func(client *driver.Client) (err error) {
		c, _, err = getConfig(limited, client, false)
		return err
	})
	if err != nil {
		return err
	}
	if at, there := c.member(host); !there || c.Members[at].Votes == 0 || c.Members[at].Arbiter {
		return nil
	}
	var goal bson.Timestamp
	told := s.r.deps.Clock.Now()
	for {
		if goal.IsZero() {
			if primary, err := s.primary(limited); err == nil {
				goal = s.ask(limited, primary).hello.LastWrite.Optime.Time
			}
		}
		var behind []string
		if !goal.IsZero() {
			var enough bool
			if behind, enough = s.remaining(limited, c, host, goal); enough {
				return nil
			}
		}
		missed := strings.Join(behind, ", ") + " to catch up before " + host + " loses its vote"
		if now := s.r.deps.Clock.Now(); len(behind) > 0 && now.Sub(told) > syncSlice {
			progress.Say("wait for %s", missed)
			told = now
		}
		if pause(limited, retryEvery) != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return &reconcilers.WaitError{For: missed, Again: syncSlice}
		}
	}
}

// remaining asks the voters. Enough are level when host is not, or when a majority of the others is, or all that have data.
func (s *session) remaining(ctx context.Context, c config, host string, goal bson.Timestamp) (behind []string, enough bool) {
	limited, cancel := context.WithTimeout(ctx, ownLimit)
	defer cancel()
	has := make([]bool, len(c.Members))
	var all sync.WaitGroup
	for i, m := range c.Members {
		if m.Votes == 0 || m.Arbiter {
			continue
		}
		all.Go(func() {
			one, wanted := s.want.member(m.Host)
			var err error
			if !wanted {
				one, err = s.memberAt(m.Host)
			}
			if err == nil {
				seen := s.ask(limited, one)
				has[i] = seen.answers() && seen.hello.serves(s.want.set) &&
					(seen.hello.IsWritablePrimary || isLevel(seen.hello.LastWrite.Optime.Time, goal, m.shape().delay))
			}
		})
	}
	all.Wait()
	voters, writable, level := 0, 0, 0
	for i, m := range c.Members {
		switch {
		case m.Host == host && !has[i]:
			return nil, true
		case m.Host == host || m.Votes == 0:
			continue
		}
		voters++
		if m.Arbiter {
			continue
		}
		writable++
		if has[i] {
			level++
		} else {
			behind = append(behind, m.Host)
		}
	}
	return behind, level >= min(voters/2+1, writable)
}

// isLevel says whether a member has what was written up to a time, but for what its delay in seconds explains.
func isLevel(has, goal bson.Timestamp, delay int) bool {
	behind := int64(goal.T) - int64(has.T) - int64(delay)
	return behind < 0 || behind == 0 && has.I >= goal.I
}
