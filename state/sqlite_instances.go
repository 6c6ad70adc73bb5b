package state

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const instanceColumns = `name, host, machine_id, attempted, applied, applied_tree, applied_digest, phase,
	rejected_revision, rejected_reason, rejected_since, suspended_by, suspended_reason, suspended_since,
	generation, updated`

func scanInstance(row scanner) (Instance, error) {
	var (
		in                                          Instance
		rejected, rejectedWhy, suspendedBy, pausing sql.NullString
		rejectedSince, suspendedSince               sql.NullInt64
		updated                                     int64
	)
	err := row.Scan(&in.Name, &in.Host, &in.MachineID, &in.Attempted, &in.Applied, &in.AppliedTree, &in.AppliedDigest,
		&in.Phase, &rejected, &rejectedWhy, &rejectedSince, &suspendedBy, &pausing, &suspendedSince,
		&in.Generation, &updated)
	if rejected.Valid {
		in.Rejected = &Rejection{Revision: rejected.String, Reason: rejectedWhy.String, Since: fromNanos(rejectedSince.Int64)}
	}
	if suspendedBy.Valid {
		in.Suspended = &Suspension{By: suspendedBy.String, Reason: pausing.String, Since: fromNanos(suspendedSince.Int64)}
	}
	in.Updated = fromNanos(updated)
	return in, err
}

func (r *reader) Instance(name string) (Instance, error) {
	return one(r, fmt.Sprintf("read instance %q", name), scanInstance,
		"SELECT "+instanceColumns+" FROM instances WHERE name = ?", name)
}

func (r *reader) Instances() ([]Instance, error) {
	return list(r, "read the instances", scanInstance, "SELECT "+instanceColumns+" FROM instances ORDER BY name")
}

func (w *writer) PutInstance(in Instance) error {
	what := fmt.Sprintf("write instance %q", in.Name)
	known, err := w.Instance(in.Name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if known.MachineID != "" {
		if in.MachineID != "" && in.MachineID != known.MachineID {
			return &MachineError{Instance: in.Name, Bound: known.MachineID, Found: in.MachineID}
		}
		in.MachineID = known.MachineID
	}
	var rejected, why, rejectedSince, by, pausing, suspendedSince any
	if x := in.Rejected; x != nil {
		rejected, why, rejectedSince = x.Revision, x.Reason, nanos(x.Since)
	}
	if x := in.Suspended; x != nil {
		by, pausing, suspendedSince = x.By, x.Reason, nanos(x.Since)
	}
	return w.change(what, `INSERT OR REPLACE INTO instances (`+instanceColumns+`)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		in.Name, in.Host, in.MachineID, in.Attempted, in.Applied, in.AppliedTree, in.AppliedDigest, in.Phase,
		rejected, why, rejectedSince, by, pausing, suspendedSince, in.Generation, nanos(in.Updated))
}

const nodeColumns = "instance, id, state, message, facts, plan, since, updated, last_duration"

func scanNode(row scanner) (Node, error) {
	var (
		n              Node
		facts          sql.NullString
		since, updated int64
		duration       int64
	)
	err := row.Scan(&n.Instance, &n.ID, &n.State, &n.Message, &facts, &n.Plan, &since, &updated, &duration)
	if facts.Valid {
		n.Facts = json.RawMessage(facts.String)
	}
	n.Since, n.Updated, n.LastDuration = fromNanos(since), fromNanos(updated), time.Duration(duration)
	return n, err
}

func (r *reader) node(instance, id string) (Node, error) {
	return one(r, fmt.Sprintf("read node %q of %q", id, instance), scanNode,
		"SELECT "+nodeColumns+" FROM nodes WHERE instance = ? AND id = ?", instance, id)
}

func (r *reader) Nodes(instance string) ([]Node, error) {
	return list(r, fmt.Sprintf("read the nodes of %q", instance), scanNode,
		"SELECT "+nodeColumns+" FROM nodes WHERE instance = ? ORDER BY id", instance)
}

func (w *writer) PutNode(n Node) error {
	what := fmt.Sprintf("write node %q of %q", n.ID, n.Instance)
	if n.Facts != nil && !json.Valid(n.Facts) {
		return fmt.Errorf("%s: its facts are not JSON", what)
	}
	known, err := w.node(n.Instance, n.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if n.Since.IsZero() {
		n.Since = n.Updated
		if err == nil && known.State == n.State {
			n.Since = known.Since
		}
	}
	if n.LastDuration == 0 {
		n.LastDuration = known.LastDuration
	}
	var facts any
	if n.Facts != nil {
		facts = string(n.Facts)
	}
	return w.change(what, "INSERT OR REPLACE INTO nodes ("+nodeColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		n.Instance, n.ID, n.State, n.Message, facts, n.Plan, nanos(n.Since), nanos(n.Updated), int64(n.LastDuration))
}
