package state

import (
	"context"
	"time"
)

// Store keeps the agent's state. It is safe for concurrent use; writers take
// turns. storetest holds the conformance suite that every Store passes.
type Store interface {
	// Update runs fn in one write transaction. When fn returns nil and the
	// commit succeeds everything is durable (it survives a power cut);
	// otherwise nothing was changed and the error is returned, fn's own error
	// unchanged for errors.Is and errors.As. A context that is done before the
	// commit means no change.
	//
	// fn must not call Update of the same store: there is one writer. It must
	// not keep tx beyond its return.
	Update(ctx context.Context, fn func(tx Tx) error) error

	// View runs fn on one consistent snapshot. It does not wait for writers
	// and does not hold them up.
	View(ctx context.Context, fn func(r Reader) error) error

	// Recover marks every run that has no end as crashed and returns these
	// runs, oldest first. To be called once at start, while holding the lock
	// of the state folder and before the first run starts. A crashed run's end
	// is its last known sign of life, and its message names the step that was
	// in progress. Calling it again returns nothing.
	Recover(ctx context.Context) ([]Run, error)

	// Committed returns a channel that is closed after the next successful
	// Update through this Store. Take it before reading, then wait on it, and
	// no change is missed.
	Committed() <-chan struct{}

	// Close ends the use of the store. Calls after it fail.
	Close() error
}

// Reader reads one snapshot of the state. A lookup of one thing that is not
// there returns an error that is ErrNotFound; a list of nothing is empty.
type Reader interface {
	// Instance returns what is known of one instance.
	Instance(name string) (Instance, error)
	// Instances returns all instances by name.
	Instances() ([]Instance, error)

	// Runs returns the last runs of an instance, newest first; of all
	// instances when instance is empty. limit <= 0 means all that are kept.
	Runs(instance string, limit int) ([]Run, error)
	// Steps returns the steps of a run in the order in which they started.
	Steps(run string) ([]Step, error)

	// Nodes returns the last observations of an instance's nodes by id.
	Nodes(instance string) ([]Node, error)

	// EventsAfter returns all kept events with a sequence above seq, oldest
	// first.
	EventsAfter(seq int64) ([]Event, error)

	// Due returns the entries of a kind that may be sent now. Entries with the
	// same kind, target and instance form a line: only the first of each line
	// is returned, and only when its time has come, so that order is kept. At
	// most limit entries, the longest waiting first.
	Due(kind string, now time.Time, limit int) ([]Entry, error)
	// Outbox returns the entries of an instance (of all when empty) that are
	// neither delivered nor dead, in order.
	Outbox(instance string) ([]Entry, error)
	// DeadEntries returns the entries of an instance (of all when empty) that
	// were given up, oldest first.
	DeadEntries(instance string) ([]Entry, error)

	// Pushed returns what was last written to an instance's status branch.
	Pushed(instance string) (Pushed, error)

	// Imports returns what was taken of other instances, by their names.
	Imports() ([]Import, error)

	// Value returns the value under a key made by Key.
	Value(key string) ([]byte, error)
}

// Tx reads and writes inside one transaction; it sees its own writes.
type Tx interface {
	Reader

	// PutInstance writes all fields of an instance. A machine id, once bound,
	// stays: another one is refused with *MachineError, an empty one keeps the
	// bound one.
	PutInstance(Instance) error

	// StartRun records a run that begins. Its id must be new. Older runs of
	// the instance beyond the store's limit are dropped with their steps.
	StartRun(Run) error
	// FinishRun records the end of a run; ErrNotFound when there is none.
	// A run that already has an end keeps it.
	FinishRun(id string, at time.Time, outcome Outcome, message string) error
	// StartStep records a step that begins and returns its number in the run.
	StartStep(Step) (seq int64, err error)
	// FinishStep records the end of a step; ErrNotFound when there is none.
	FinishStep(run string, seq int64, at time.Time, outcome Outcome, message string) error

	// PutNode writes the observation of a node. With a zero Since the stored
	// one stays as long as State stays, and becomes Updated when it changes.
	// A zero LastDuration keeps the stored one.
	PutNode(Node) error

	// AddEvent appends an event and returns its sequence, which grows for
	// ever. The oldest events beyond the store's limit are dropped.
	AddEvent(Event) (seq int64, err error)

	// Enqueue adds an entry to the outbox and returns its id. With a Key, a
	// pending entry of the same kind, target, instance and key is replaced:
	// only the newest matters. The new one takes over the attempts and the
	// next attempt of the one it replaces, so that changes do not hammer a
	// peer that is away.
	Enqueue(Entry) (id int64, err error)
	// Delivered removes an entry. An unknown id is no error: the entry may
	// have been replaced while it was on its way.
	Delivered(id int64) error
	// Failed counts an attempt, keeps its reason and sets the next one. An
	// unknown id is no error.
	Failed(id int64, next time.Time, reason string) error
	// Dead gives an entry up. It no longer holds up its line and shows in
	// DeadEntries; the newest 100 are kept. An unknown id is no error.
	Dead(id int64, at time.Time, reason string) error
	// Wake makes all pending entries of a kind (of one instance, or of all
	// when empty) due at the given time unless they are due before it.
	Wake(kind, instance string, at time.Time) error

	// PutPushed records what was written to an instance's status branch.
	PutPushed(Pushed) error

	// PutImport records what was taken of another instance.
	PutImport(Import) error

	// PutValue writes a value under a key made by Key.
	PutValue(key string, value []byte) error
}
