package agent

import (
	"context"
	"errors"
	"time"

	"dive-agent/reconcilers"
)

// The waits of a node within one pass: of one that waits for something outside, and of one that failed.
const (
	waitFirst = 200 * time.Millisecond
	waitLast  = 5 * time.Second
	tryAgain  = 5 * time.Second // and twice as long after each try
	patience  = 3 * time.Minute // after it the pass ends as waiting, and a later one looks again
)

// pauses are those of one node in one pass.
type pauses struct {
	limit time.Time // none begins after it
	look  time.Duration
	try   time.Duration
}

// waitToLookAgain pauses a node that waits for something outside; false when this pass does not wait for it any more.
func (p *pass) waitToLookAgain(ctx context.Context, n *nodeRun, w *pauses) bool {
	if stateOf(n.err) != NodeWaiting || p.clock.Now().After(w.limit) {
		return false
	}
	p.update(n, func(v *Node) { v.State = NodeWaiting; v.explain(n.err) })
	w.look = min(max(2*w.look, waitFirst), waitLast)
	pause := w.look
	var wait *reconcilers.WaitError
	if errors.As(n.err, &wait) && !wait.Until.IsZero() {
		return false
	} else if wait != nil && wait.Again > 0 {
		pause = wait.Again
	}
	interrupt := p.interrupt
	if n.queues { // what it waits for happens in this pass
		interrupt = nil
	}
	return p.pause(ctx, n, pause, interrupt, nil)
}

// waitToTryAgain pauses a node that failed while the pass goes on all the same for others, which may wait for this very one;
// false when it is this pass's last word.
func (p *pass) waitToTryAgain(ctx context.Context, n *nodeRun, w *pauses) bool {
	if ctx.Err() != nil || stateOf(n.err) != NodeFailed || p.clock.Now().After(w.limit) {
		return false
	}
	p.active(-1)
	defer p.active(1)
	idle := p.othersEnd()
	if idle == nil {
		return false
	}
	p.update(n, func(v *Node) { v.State = NodeFailed; v.explain(n.err) })
	w.try = max(2*w.try, tryAgain)
	return p.pause(ctx, n, w.try, p.interrupt, idle)
}

// pause waits; false when something ended it before its time.
func (p *pass) pause(ctx context.Context, n *nodeRun, d time.Duration, interrupt, idle <-chan struct{}) bool {
	select {
	case <-p.clock.After(d):
		return true
	case <-interrupt:
	case <-idle:
	case <-ctx.Done():
		n.err = context.Cause(ctx)
	}
	return false
}

// active counts the nodes that are not at their end: all but those that wait for another one, or that failed.
func (p *pass) active(change int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.working == 0 {
		p.idle = make(chan struct{})
	}
	if p.working += change; p.working == 0 {
		close(p.idle)
	}
}

// othersEnd is closed when no node is active any more; nil when none is.
func (p *pass) othersEnd() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.working == 0 {
		return nil
	}
	return p.idle
}
