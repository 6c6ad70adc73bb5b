package reconcilers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// WaitError says that something outside must happen first. It is no failure.
type WaitError struct {
	For   string        // what is waited for, by name: "approval by the hub", "stack/keycloak"
	Again time.Duration // when to look again, unless something wakes the node before; zero: the agent's own backoff
	Until time.Time     // of a wait for a time that was chosen: nothing is wrong meanwhile; Again is not looked at then
	Do    string        // the way out for who cannot wait; may be empty
	Err   error         // why, when there is a cause
}

func (e *WaitError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("waits for %s: %v", e.For, e.Err)
	}
	return "waits for " + e.For
}

func (e *WaitError) Unwrap() error { return e.Err }

// AwayError says that something that everything needs does not answer, such as the host's engine. It is retried like any
// failure. Its words are the same whatever was asked, so that all nodes that meet it tell one cause.
type AwayError struct {
	What string // "the Docker Engine at unix:///var/run/docker.sock"
	Do   string // the way out
	Err  error  // what was tried
}

func (e *AwayError) Error() string { return e.What + " does not answer" }

func (e *AwayError) Unwrap() error { return e.Err }

// BlockedError says that nothing will change until a person does something. It is not retried before the manifest
// or the live state changes (the agent still looks again at its drift schedule).
type BlockedError struct {
	Reason  string // CamelCase, for programs: "WrongPassword", "ForeignReplicaSet", "ApprovalRequired"
	Message string // what was found
	Do      string // the way out
	Err     error
}

func (e *BlockedError) Error() string {
	text := e.Message
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Do != "" {
		text += ". " + e.Do
	}
	return text
}

func (e *BlockedError) Unwrap() error { return e.Err }

// RejectedError says that the new version does not work and that what ran before was put back (or that nothing was
// touched). The revision is not tried again for this instance until it changes or someone asks; or, of an instance that was
// never ready, when what Stays gets healthy; or by itself, where it says Again. What was applied last is kept meanwhile.
type RejectedError struct {
	Message string   // what happened: "backend exited with 3"
	PutBack string   // what runs now: "put back to 2.0.4", "nothing was changed"
	Logs    []string // the last lines of the container's log; the agent redacts them
	Again   bool     // nothing was touched, and what was missing may come (a registry that is away): it is tried again by itself, ever later
	Stays   bool     // there was nothing to put back, and what does not work was left running: it may get well by itself
	Err     error
}

func (e *RejectedError) Error() string {
	parts := []string{e.Message}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	text := strings.Join(parts, ": ")
	if e.PutBack != "" {
		text += "; " + e.PutBack
	}
	return text
}

func (e *RejectedError) Unwrap() error { return e.Err }

// Settle ends an Observe that met an error: one that carries policy is put into the observation, the end of ctx goes before
// any other, which is a failure of observing.
func Settle(ctx context.Context, o Observed, err error) (Observed, error) {
	var wait *WaitError
	var blocked *BlockedError
	if ctx.Err() == nil && (errors.As(err, &wait) || errors.As(err, &blocked)) {
		o.Err = err
		return o, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return o, err
}
