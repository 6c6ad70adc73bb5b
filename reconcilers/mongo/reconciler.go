package mongo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"dive-agent/reconcilers"
)

// Reconciler drives replica sets. It is safe for concurrent use by different targets.
type Reconciler struct {
	deps reconcilers.Deps
	pool *pool
	dial dialerFunc

	mu       sync.Mutex
	since    map[string]time.Time // when a trouble was first seen, by component and member
	verified map[string]time.Time // when a user's login last worked
	versions map[string]version   // of the members' servers
	speeches map[string]speech    // of the members' servers
	renewals map[string]time.Time // when a member's connections were made anew, by component and host
	turning  map[string]time.Time // when a member of this host was given its turn to be restarted, by component and host
}

// version is what the server in a container said of itself, which holds as long as that one runs.
type version struct{ container, text string }

var (
	_ reconcilers.Reconciler = (*Reconciler)(nil)
	_ reconcilers.Watcher    = (*Reconciler)(nil)
	_ io.Closer              = (*Reconciler)(nil)
)

// New makes the reconciler of kind MongoReplicaSet. It connects to nothing.
func New(deps reconcilers.Deps) reconcilers.Reconciler {
	dial := dialerFunc(deps.Dial)
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &Reconciler{
		deps: deps, pool: newPool(), dial: dial,
		since: map[string]time.Time{}, verified: map[string]time.Time{}, versions: map[string]version{}, speeches: map[string]speech{},
		turning: map[string]time.Time{}, renewals: map[string]time.Time{},
	}
}

// Registration is this kind's line in the program's list of reconcilers.
var Registration = reconcilers.Registration{Kind: Kind, New: New}

// Close ends all connections. The reconciler must not be used afterwards.
func (r *Reconciler) Close() error {
	r.pool.close()
	return nil
}

// Observe asks the members what is. It waits at most some seconds for a mongod that is starting or a primary that is
// being elected. What only waits or is blocked travels in Observed.Err, with the facts that are known.
func (r *Reconciler) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	s, err := r.open(t)
	if err != nil {
		return settle(ctx, reconcilers.Observed{}, err)
	}
	o, err := s.observe(ctx)
	return settle(ctx, o, err)
}

// settle puts errors that carry policy into the observation; any other is a failure of observing.
func settle(ctx context.Context, o reconcilers.Observed, err error) (reconcilers.Observed, error) {
	if err == nil {
		return o, nil
	}
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	var wait *reconcilers.WaitError
	var blocked *reconcilers.BlockedError
	switch {
	case errors.As(err, &wait), errors.As(err, &blocked):
		o.Err = err
		return o, nil
	case isPassing(err):
		o.Err = &reconcilers.WaitError{For: "the replica set's servers", Again: time.Second, Err: err}
		return o, nil
	}
	return o, err
}

// Apply carries out the plan's steps in their order and looks at the result.
func (r *Reconciler) Apply(ctx context.Context, t reconcilers.Target, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	steps, ok := p.State.([]step)
	if len(p.Changes) > 0 && (!ok || len(steps) != len(p.Changes)) {
		return reconcilers.Applied{}, fmt.Errorf("the plan of %s was not made by this reconciler", t.ID())
	}
	s, err := r.open(t)
	if err != nil {
		return reconcilers.Applied{}, err
	}
	if s.want.unknown != "" {
		return reconcilers.Applied{}, &reconcilers.WaitError{For: s.want.unknown}
	}
	for i, change := range p.Changes {
		if err := progress.Begin(ctx, change); err != nil {
			return reconcilers.Applied{}, err
		}
		err := s.do(ctx, steps[i], progress)
		progress.End(change, err)
		if err != nil && steps[i].action == runBackup && ctx.Err() == nil {
			continue // the set serves as before; the status tells of it, and it is tried again
		}
		if err != nil {
			return reconcilers.Applied{}, err
		}
	}
	o, err := r.Observe(ctx, t)
	if err == nil {
		err = o.Err
	}
	return reconcilers.Applied{Outputs: o.Outputs, Holds: o.Holds, Facts: o.Facts}, err
}

// firstSeen gives when a trouble was first seen; now, when it is new.
func (r *Reconciler) firstSeen(trouble string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, known := r.since[trouble]; known {
		return at
	}
	at := r.deps.Clock.Now()
	r.since[trouble] = at
	return at
}

func (r *Reconciler) overcome(trouble string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.since, trouble)
}

// versionOf gives a member's version, asking once for each start of its container.
func (r *Reconciler) versionOf(member, container string, ask func() string) string {
	r.mu.Lock()
	have := r.versions[member]
	r.mu.Unlock()
	if have.container == container {
		return have.text
	}
	have = version{container, ask()}
	if have.text != "" {
		r.mu.Lock()
		r.versions[member] = have
		r.mu.Unlock()
	}
	return have.text
}
