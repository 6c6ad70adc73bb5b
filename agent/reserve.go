package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"dive-agent/reconcilers"
	"dive-agent/state"
)

// An instance is changed by one process at a time: by the agent in a round, or by a command that restores a backup. The
// right to it is a lock on the instance's folder, which the kernel takes back from a process that dies.

const (
	reserveAgain = 2 * time.Second        // between two rounds that find the instance reserved
	reserveKnock = 100 * time.Millisecond // between two tries of a command
	reserveLimit = patience + time.Minute // for the round at work to end
)

// reserve takes the right to change an instance, without waiting. The error is a WaitError when another process has it.
func (a *Agent) reserve(instance string) (release func(), err error) {
	folder := folderOf(a.Dir, instance)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of instance %s: %w", instance, err)
	}
	lock, err := state.Lock(folder)
	var held *state.LockedError
	if errors.As(err, &held) {
		return nil, &reconcilers.WaitError{For: fmt.Sprintf("process %d, which restores a backup into %s, to end", held.PID, instance), Again: reserveAgain}
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = lock.Unlock() }, nil // closing gives the lock back, whatever it says
}

// Reserve takes the right to change an instance from a running agent: it waits until the round at work has ended, for
// some minutes at most, and no other begins until release is called or the process ends. waits is called once, when it has
// to wait.
func (a *Agent) Reserve(ctx context.Context, instance string, waits func()) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, reserveLimit)
	defer cancel()
	var once sync.Once
	tick := time.NewTicker(reserveKnock)
	defer tick.Stop()
	for {
		release, err := a.reserve(instance)
		var wait *reconcilers.WaitError
		if !errors.As(err, &wait) {
			return release, err
		}
		once.Do(waits)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the agent, or another restore, is at work on %s: try again when its status says that it is at rest, or dive-agent suspend %s first: %w",
				instance, instance, ctx.Err())
		case <-tick.C:
		}
	}
}
