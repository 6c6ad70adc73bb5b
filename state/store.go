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

	// Run returns one run by its id.
	Run(id string) (Run, error)
	// Runs returns the last runs of an instance, newest first; of all
	// instances when instance is empty. limit <= 0 means all that are kept.
	Runs(instance string, limit int) ([]Run, error)
	// Steps returns the steps of a run in the order in which they started.
	Steps(run string) ([]Step, error)

	// Node returns the last observation of one node.
	Node(instance, id string) (Node, error)
	// Nodes returns the last observations of an instance's nodes by id.
	Nodes(instance string) ([]Node, error)

	// EventsAfter returns events with a sequence above seq, oldest first, of
	// one instance or (when empty) of all. limit <= 0 means all that are kept.
	EventsAfter(seq int64, instance string, limit int) ([]Event, error)
	// LastEvents returns the newest limit events, oldest of them first.
	LastEvents(instance string, limit int) ([]Event, error)

	// Due returns the entries of a kind that may be sent now. Entries with the
	// same kind, target and instance form a line: only the first of each line
	// is returned, and only when its time has come, so that order is kept. At
	// most limit entries, the longest waiting first.
	Due(kind string, now time.Time, limit int) ([]Entry, error)
	// NextDue returns when the next entry of a kind becomes due, false when
	// the outbox holds none.
	NextDue(kind string) (time.Time, bool, error)
	// Outbox returns the entries of an instance (of all when empty) that are
	// neither delivered nor dead, in order.
	Outbox(instance string) ([]Entry, error)
	// DeadEntries returns the entries of an instance (of all when empty) that
	// were given up, oldest first.
	DeadEntries(instance string) ([]Entry, error)

	// Pushed returns what was last written to an instance's status branch.
	Pushed(instance string) (Pushed, error)

	// Value returns the value under a key made by Key.
	Value(key string) ([]byte, error)
	// Values returns all pairs whose key starts with prefix, by key.
	Values(prefix string) ([]Pair, error)
}

// Tx reads and writes inside one transaction; it sees its own writes.
type Tx interface {
	Reader

	// PutInstance writes all fields of an instance. A machine id, once bound,
	// stays: another one is refused with *MachineError, an empty one keeps the
	// bound one.
	PutInstance(Instance) error
	// DeleteInstance forgets an instance and all that belongs to it: runs,
	// nodes, pending entries with a key, status bookkeeping and values whose
	// key starts with Key(name, ""). Its events stay until the ring drops them
	// and entries without a key until they are delivered: they are news still
	// to be told. Unknown names are no error.
	DeleteInstance(name string) error

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
	// DeleteNode forgets a node. Unknown ones are no error.
	DeleteNode(instance, id string) error

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

	// PutValue writes a value under a key made by Key.
	PutValue(key string, value []byte) error
	// DeleteValues removes all pairs whose key starts with prefix.
	DeleteValues(prefix string) error
}
