package state

import (
	"errors"
	"fmt"
	"time"
)

// ErrNotFound is what a lookup of one thing returns when it is not there.
var ErrNotFound = errors.New("not in the state")

// ErrClosed is returned by calls on a store after Close.
var ErrClosed = errors.New("the state store is closed")

// ErrReadOnly is returned by changes of a store that was opened to be read.
var ErrReadOnly = errors.New("the state was opened to be read only")

// MachineError says that an instance is bound to another machine.
type MachineError struct {
	Instance string
	Bound    string
	Found    string
}

func (e *MachineError) Error() string {
	return fmt.Sprintf("instance %s is bound to the machine with id %s, and this machine's id is %s: "+
		"move the instance by merging another host for it, or restore the state folder on the machine it came from",
		e.Instance, e.Bound, e.Found)
}

// CorruptError says that the database file cannot be read. Open moves such a
// file aside; an error of this type afterwards means that it became unreadable
// while in use, and that a restart will move it aside.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("the state database %s is damaged: %v; restart the agent, which keeps the file aside and begins a new one", e.Path, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// DiskFullError says that a write found no room. Nothing was changed; the call
// succeeds again once there is room.
type DiskFullError struct {
	Path string
	Err  error
}

func (e *DiskFullError) Error() string {
	return fmt.Sprintf("cannot write the state database %s: no space left on its disk; free some, the agent goes on by itself", e.Path)
}

func (e *DiskFullError) Unwrap() error { return e.Err }

// SchemaError says that the database was written by another version of the
// agent: a newer one, or (when it is only to be read) an older one.
type SchemaError struct {
	Path  string
	Found int
	Known int
}

func (e *SchemaError) Error() string {
	if e.Found < e.Known {
		return fmt.Sprintf("the state database %s has schema %d, this agent reads %d: start this version of the agent once, it brings the state up to date",
			e.Path, e.Found, e.Known)
	}
	return fmt.Sprintf("the state database %s has schema %d, this agent knows up to %d: "+
		"run the newer agent that wrote it, or restore the state of this version", e.Path, e.Found, e.Known)
}

// LockedError says that another agent works on the same state folder.
type LockedError struct {
	Dir string
	// PID is the other process as it wrote it down; 0 when unknown.
	PID int
}

func (e *LockedError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("the state folder %s is in use by %s: stop that agent, or give this one a folder of its own", e.Dir, who)
}

// Notice tells of something that Open had to do and people should know.
type Notice struct {
	// Kind is NoticeCorrupt.
	Kind string
	// Path is where the unreadable file was kept.
	Path string
	// Reason is why it could not be used.
	Reason string
	At     time.Time
}

// NoticeCorrupt is the kind of the notice of a database that was moved aside.
const NoticeCorrupt = "corrupt"

func (n Notice) String() string {
	return fmt.Sprintf("the state database was unreadable (%s); it is kept as %s and a new one was begun: "+
		"applied revisions and suspensions are to be found anew, what runs is untouched", n.Reason, n.Path)
}
