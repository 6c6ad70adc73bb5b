package mongo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// How members are waited for. Only a port that does not answer yet is asked again and again; from then on the server
// tells of its changes by itself.
const (
	knockEvery = 25 * time.Millisecond
	findEvery  = 500 * time.Millisecond
	tellWithin = 10 * time.Second
	stragglers = 500 * time.Millisecond
)

// session is one call's view of one replica set.
type session struct {
	r         *Reconciler
	target    reconcilers.Target
	want      want
	memory    *memory
	component string // of which instance: names the clients in the pool
}

// sighting is what one member said to anyone who asks.
type sighting struct {
	member wantMember
	place  place
	found  bool // its service runs; it answers, where that is on another host
	hello  hello
	err    error

	version string        // of its server
	tls     bool          // it was spoken to by TLS
	ahead   time.Duration // its clock, of this host's
	trip    time.Duration // of the question and its answer
}

func (s sighting) answers() bool { return s.err == nil }

// identity tells one start of the member's server from another.
func (s sighting) identity() string {
	if !s.member.local() && s.hello.Version != nil {
		return s.hello.Version.Process.Hex()
	}
	return s.place.identity()
}

func (r *Reconciler) open(t reconcilers.Target) (*session, error) {
	w, err := resolve(t)
	if err != nil {
		return nil, err
	}
	m, err := recall(t.Dir)
	if err != nil {
		return nil, err
	}
	name := t.Component.Name
	if t.Instance != nil {
		name = t.Instance.Name + "/" + name
	}
	return &session{r: r, target: t, want: w, memory: m, component: name}, nil
}

// spec is the target's, which resolve has found to be one.
func (s *session) spec() *Spec { return s.target.Component.Spec.(*Spec) }

// look asks every member once, all at the same time. When the primary has answered the others get little more time: a
// frozen member must not hold up the rest.
func (s *session) look(ctx context.Context) []sighting {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seen := make([]sighting, len(s.want.members))
	var all sync.WaitGroup
	for i, m := range s.want.members {
		all.Go(func() {
			seen[i] = s.ask(ctx, m)
			if seen[i].hello.IsWritablePrimary {
				time.AfterFunc(stragglers, cancel)
			}
		})
	}
	all.Wait()
	return seen
}

func (s *session) ask(ctx context.Context, m wantMember) sighting {
	at, err := find(ctx, s.target.Services, m)
	if err != nil {
		return sighting{member: m, err: err}
	}
	seen := sighting{member: m, place: at, found: m.local()}
	p, err := s.openProbe(ctx, m, at)
	if err != nil {
		seen.err = err
		return seen
	}
	defer p.close()
	asked := s.r.deps.Clock.Now()
	if seen.hello, seen.err = p.hello(ctx, nil, 0); seen.err != nil {
		seen.err = s.explainSilence(ctx, m, at, p, seen.err)
	} else {
		seen.found = true
		seen.trip = s.r.deps.Clock.Now().Sub(asked)
		seen.ahead = seen.hello.LocalTime.Sub(asked.Add(seen.trip / 2))
		seen.version = s.r.versionOf(s.component+"/"+m.host, seen.identity(), func() string { return p.version(ctx) })
		if _, seen.tls = p.conn.(*tls.Conn); !seen.tls && s.want.tls != nil && m.local() {
			s.r.hear(s.component+"/"+m.host, speech{container: at.identity()})
		}
	}
	return seen
}

// await waits until one of the members says what is hoped for, and gives its word. When the limit passes the error is
// the last one seen, or errNotYet.
func (s *session) await(ctx context.Context, limit time.Duration, members []wantMember, hoped func(hello) bool) (sighting, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	results := make(chan sighting, len(members))
	for _, m := range members {
		go func() { results <- s.follow(limited, m, hoped) }()
	}
	var last sighting
	for range members {
		seen := <-results
		if seen.err == nil {
			return seen, nil
		}
		if last.err == nil || errors.Is(last.err, errNotYet) {
			last = seen
		}
	}
	if ctx.Err() != nil {
		return last, ctx.Err()
	}
	return last, last.err
}

var errNotYet = errors.New("it answers, but not as hoped")

// follow listens to one member until it says what is hoped for or the context ends.
func (s *session) follow(ctx context.Context, m wantMember, hoped func(hello) bool) sighting {
	tick := time.NewTicker(knockEvery)
	defer tick.Stop()
	last := sighting{member: m, err: errNotYet}
	found := time.Time{}
	for {
		if last.place.address == "" || time.Since(found) > findEvery {
			at, err := find(ctx, s.target.Services, m)
			last.place, last.found, found = at, err == nil, time.Now()
			if err != nil && ctx.Err() == nil {
				last.err = err
			}
		}
		if last.found {
			h, err := s.listen(ctx, m, last.place, hoped)
			if err == nil {
				last.hello, last.err = h, nil
				return last
			}
			if isBlocked(err) {
				last.err = err
				return last
			}
			if ctx.Err() == nil {
				last.err = err
			} else if h.OK == 1 {
				last.hello, last.err = h, errNotYet
			}
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}

// listen hears one member's changes over one connection until it says what is hoped for. The last word is given with
// the error too.
func (s *session) listen(ctx context.Context, m wantMember, at place, hoped func(hello) bool) (hello, error) {
	p, err := s.openProbe(ctx, m, at)
	if err != nil {
		return hello{}, err
	}
	defer p.close()
	h, err := p.hello(ctx, nil, 0)
	for {
		if err != nil || hoped(h) {
			return h, err
		}
		next, nextErr := p.hello(ctx, h.Version, tellWithin)
		if nextErr != nil {
			return h, nextErr
		}
		if h.Version == nil { // a server before 4.4, which does not tell: leave the pace to the caller
			return next, errNotYet
		}
		h = next
	}
}

// client gives a client for one member under a name, from the pool where there is one.
func (s *session) client(ctx context.Context, m wantMember, l login, name string) (*driver.Client, error) {
	at, err := find(ctx, s.target.Services, m)
	if err != nil {
		return nil, err
	}
	key := clientKey{s.component, m.host, name}
	return s.r.pool.get(key, l, at.identity()+s.want.tls.fingerprint(), s.r.deps.Clock.Now(), func() (*driver.Client, error) {
		return openClient(m.host, l, s.dialer(m))
	})
}

// dialer reaches the member where its container is at the time of the dial, or under its host name on another host.
func (s *session) dialer(m wantMember) dialerFunc {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		at, err := find(ctx, s.target.Services, m)
		if err != nil {
			return nil, err
		}
		return s.dial(ctx, m, at)
	}
}

// undated is a context whose limit the driver does not see, so that it does not make a maxTimeMS of it. Its end is a
// cancellation: the driver ends a read for that, and for a limit only where it has seen one.
type undated struct{ context.Context }

func (u undated) Err() error {
	if u.Context.Err() != nil {
		return context.Canceled
	}
	return nil
}

func (undated) Deadline() (time.Time, bool) { return time.Time{}, false }

// run sends one command to a database and reads its answer into result, which may be nil.
func run(ctx context.Context, client *driver.Client, database string, command bson.D, result any) error {
	return runFor(ctx, commandLimit, client, database, command, result)
}

func runFor(ctx context.Context, limit time.Duration, client *driver.Client, database string, command bson.D, result any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer := client.Database(database).RunCommand(undated{ctx}, command)
	if err := answer.Err(); err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s: no answer: %w", command[0].Key, ctx.Err())
	} else if err != nil {
		return fmt.Errorf("%s: %w", command[0].Key, err)
	}
	if result == nil {
		return nil
	}
	if err := answer.Decode(result); err != nil {
		return fmt.Errorf("read the answer to %s: %w", command[0].Key, err)
	}
	return nil
}
