package reconcilers

import (
	"context"
	"io"
	"net/netip"
	"time"
)

// Abilities beyond the contract, each optional, found by type assertion on what New gave. One more is io.Closer: Close is
// called once, when the program ends and no other call runs.
//
// Their targets have no part. Each implementation says `var _ reconcilers.Watcher = ...`, so that a wrong signature does
// not switch the ability off in silence.
type (
	// Watcher tells of changes in the live state; without it, drift is found at the resync. The agent calls Watch after a
	// round, one call per component at a time, and ends ctx when the instance changes. Watch blocks until ctx ends or the
	// stream breaks (then it is called again with backoff after a full observation). wake names the part, or "" for all;
	// it never blocks, and a round follows.
	Watcher interface {
		Watch(ctx context.Context, t Target, wake func(part string)) error
	}
	// ServiceFinder gives access to the services a component runs: they become Target.Services of all components of the
	// instance. Called at the start of a round; it asks no engine. The target has no secrets, no outputs, no Dir and no Services.
	ServiceFinder interface {
		Services(t Target) Services
	}
	// DataKeeper names data that exists on the host for a component (volumes), so that a secret that went missing is
	// never made again beside it. Called before secrets are made, with a target as ServiceFinder's. An error stops the round.
	DataKeeper interface {
		Data(ctx context.Context, t Target) ([]string, error)
	}
	// Roller has a say in when a part that its component needs directly is interrupted (Change.Interrupts): a replica set
	// lets its members go one at a time, its primary last. Turn is called right before such a part is changed, with the
	// roller's own target; a WaitError or BlockedError of it means that the part is left alone for now. After Turn said
	// yes no other part under the same roller gets a turn before Back has returned, which is called right after the change
	// and waits until the part serves again. Both may change the engine (a step-down), record it with progress as Apply
	// does, and may be called again after a crash in between.
	Roller interface {
		Turn(ctx context.Context, t Target, turn Turn, progress Progress) error
		Back(ctx context.Context, t Target, turn Turn, progress Progress) error
	}
	// Forewarner knows what a plan means for what its component keeps in a part that it needs directly: another image may change
	// data in a way that cannot be undone. Forewarn is called whenever such a part is planned, with the forewarner's own target,
	// and its words stand among the change's details; and again right before the part is changed, which an error keeps from
	// happening. It asks no engine and changes nothing.
	Forewarner interface {
		Forewarn(t Target, turn Turn) (words []string, err error)
	}
	// Restorer brings data back from a backup that its kind has made. Called by an operator's command, in a process of
	// its own; while Restore runs the agent makes no round over the instance. Both read the whole file first, and refuse
	// a damaged one before anything is touched.
	Restorer interface {
		Overwrites(ctx context.Context, t Target, b BackupFile) ([]Overwrite, error)
		Restore(ctx context.Context, t Target, b BackupFile) error
	}
	// Adopter tells how what is in the engine already and not in the component's state can be taken over. Called by an
	// operator's command, with a copy of the component's folder (Target.CopyOf); it changes nothing.
	Adopter interface {
		Adoption(ctx context.Context, t Target) (Adoption, error)
	}
	// Remover takes away what a component made when no manifest declares it any more, as the instance's onRemove said. Trace
	// is what it has to know then, in few words and without secrets; it is asked with a target as ServiceFinder's and kept by
	// the agent. Remove may be called again after a crash; it never touches what is not the component's.
	Remover interface {
		Trace(t Target) (string, error)
		Remove(ctx context.Context, r Removal, progress Progress) error
	}
	// Outliner says what a component consists of by its manifest alone, for people who review a change where there is no
	// host: the target has no Services, its scope has stand-ins in place of secrets and outputs, and Dir is a folder for
	// this command only, the same for all instances of a component of this name. No engine is asked.
	Outliner interface {
		Outline(ctx context.Context, t Target) (Outline, error)
	}
	// RollsBack marks a reconciler that puts the last good version back by itself; while a revision is rejected its
	// components are kept at the last applied revision, all others are only observed.
	RollsBack interface{ RollsBack() }
)

// Services finds the containers behind an instance's services. Read only, but for Exec.
type Services interface {
	// Find gives the newest container of the service. The error is a WaitError when there is none or it does not run.
	Find(ctx context.Context, service string) (Container, error)
	// Logs gives the log (both streams, demultiplexed, with no timestamps) since a time, at most the last n lines (0: all).
	Logs(ctx context.Context, service string, since time.Time, lines int) (io.ReadCloser, error)
	// Exec runs a command in the service's container without a terminal. stdin may be nil. Secrets go through stdin or
	// environment, never the argument list.
	Exec(ctx context.Context, service string, argv, env []string, stdin io.Reader) (stdout []byte, exitCode int, err error)
}

// Outline is what a component consists of.
type Outline struct {
	Items []Item
	Note  string // how it came about, where that limits what it says; for people
}

// Item is one thing of an outline. Its address occurs once.
type Item struct {
	Address    string
	Attributes map[string]string // by path, as people may see them, as far as they are known
	Lasting    bool              // data or identity: to take it away destroys, and waits for approval
}

// Adoption is what of a component is in the engine and not in its state. No secrets.
type Adoption struct {
	State   string     `json:"state"` // how the state is, for people: "empty", "lost: the state file is empty (0 bytes)", "12 resources"
	Imports []Import   `json:"imports"`
	Creates []Creation `json:"creates"`
	Blocks  string     `json:"blocks"`          // the imports in the language of the engine
	File    string     `json:"file"`            // the instance's manifest
	Merge   string     `json:"merge,omitempty"` // what to merge into it to have the imports made; empty: there are none
}

// Import is one thing that would be taken over.
type Import struct {
	Address string   `json:"address"`
	ID      string   `json:"id"`
	Changes []string `json:"changes,omitempty"` // attributes that would be changed by that: the manifest has them otherwise
}

// Creation is one thing that would be made.
type Creation struct {
	Address string `json:"address"`
	Over    bool   `json:"over"` // nothing imports its type: it is made over what may be there
}

// BackupFile is a backup on this host.
type BackupFile struct {
	Path      string
	Identity  string   // file with the age identity that it is encrypted to; empty when it is not
	Databases []string // only these; empty: all that are in it
	From      string   // name of the set that it was made of; empty: of the one it is restored into
}

// Overwrite is what a restore replaces as a whole.
type Overwrite struct {
	Database   string    `json:"database"`
	Collection string    `json:"collection"`
	Type       string    `json:"type"`   // collection or view
	Now        int64     `json:"now"`    // documents that are there
	Backup     int64     `json:"backup"` // documents in the backup
	Taken      time.Time `json:"taken"`
}

// Turn is what a Roller, or a Forewarner, is asked about.
type Turn struct {
	Part    string   // the part that is to be interrupted, or changed
	Changes []Change // what is to be done to it
	Others  []string // of a Roller: parts under it that are to be interrupted too and were not yet
}

// Container is a running container of a service.
type Container struct {
	ID        string
	Name      string
	Service   string
	StartedAt time.Time
	Health    string                    // healthy, starting, unhealthy or empty
	Addresses map[string]netip.Addr     // by network name; reachable from the host
	Published map[uint16]netip.AddrPort // container port (TCP) -> where it is published on the host
	Hostnames []string                  // names other containers reach it by: service name, container name, aliases
}

// Addr gives an address of the container that the host can dial; the zero Addr when it has no network.
func (c Container) Addr() netip.Addr {
	var best netip.Addr
	for _, a := range c.Addresses {
		if !best.IsValid() || a.Less(best) {
			best = a
		}
	}
	return best
}

// Removal is what is to be taken away of a component.
type Removal struct {
	Instance, Component string
	Trace               string
	Parts               []string // of the component, in the order in which they came about
	Destroy             bool     // containers and networks are removed; else they are stopped
	Archive             string   // folder for what the volumes hold, which are then removed too; empty: they stay
}
