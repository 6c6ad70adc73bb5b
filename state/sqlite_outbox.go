package state

import (
	"errors"
	"fmt"
	"time"
)

const entryColumns = "id, kind, target, instance, key, payload, event, attempts, next, created, died, reason"

func scanEntry(row scanner) (Entry, error) {
	var (
		e                   Entry
		next, created, died int64
	)
	err := row.Scan(&e.ID, &e.Kind, &e.Target, &e.Instance, &e.Key, &e.Payload, &e.Event, &e.Attempts,
		&next, &created, &died, &e.Reason)
	e.Next, e.Created, e.Died = fromNanos(next), fromNanos(created), fromNanos(died)
	return e, err
}

func (r *reader) Due(kind string, now time.Time, limit int) ([]Entry, error) {
	const heads = "SELECT min(id) FROM outbox WHERE kind = ?1 AND died = 0 GROUP BY target, instance" // the first of each line
	return list(r, fmt.Sprintf("read what is due for %q", kind), scanEntry,
		"SELECT "+entryColumns+" FROM outbox WHERE id IN ("+heads+") AND next <= ?2 ORDER BY next, id LIMIT ?3",
		kind, nanos(now), limited(limit))
}

func (r *reader) Outbox(instance string) ([]Entry, error) {
	return list(r, "read the outbox", scanEntry,
		"SELECT "+entryColumns+" FROM outbox WHERE died = 0 AND (?1 = '' OR instance = ?1) ORDER BY id", instance)
}

func (r *reader) DeadEntries(instance string) ([]Entry, error) {
	return list(r, "read the reports that were given up", scanEntry,
		"SELECT "+entryColumns+" FROM outbox WHERE died <> 0 AND (?1 = '' OR instance = ?1) ORDER BY id", instance)
}

func (w *writer) Enqueue(e Entry) (int64, error) {
	what := fmt.Sprintf("put a %s report of %q into the outbox", e.Kind, e.Instance)
	if e.Key != "" {
		replaced, err := one(&w.reader, what, scanEntry,
			"SELECT "+entryColumns+" FROM outbox WHERE kind = ? AND target = ? AND instance = ? AND key = ? AND died = 0",
			e.Kind, e.Target, e.Instance, e.Key)
		switch {
		case err == nil:
			e.Attempts, e.Next, e.Reason = replaced.Attempts, replaced.Next, replaced.Reason
			if err := w.Delivered(replaced.ID); err != nil {
				return 0, err
			}
		case !errors.Is(err, ErrNotFound):
			return 0, err
		}
	}
	if e.Payload == nil {
		e.Payload = []byte{}
	}
	res, err := w.exec(what, `INSERT INTO outbox (kind, target, instance, key, payload, event, attempts, next, created, died, reason)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)`,
		e.Kind, e.Target, e.Instance, e.Key, e.Payload, e.Event, e.Attempts, nanos(e.Next), nanos(e.Created), e.Reason)
	if err != nil {
		return 0, err
	}
	id, err := res.LastInsertId()
	return id, w.fail(what, err)
}

func (w *writer) Delivered(id int64) error {
	return w.change("take a delivered report out of the outbox", "DELETE FROM outbox WHERE id = ?", id)
}

func (w *writer) Failed(id int64, next time.Time, reason string) error {
	return w.change("record a failed delivery",
		"UPDATE outbox SET attempts = attempts + 1, next = ?, reason = ? WHERE id = ? AND died = 0", nanos(next), reason, id)
}

func (w *writer) Dead(id int64, at time.Time, reason string) error {
	const what = "give a report up"
	if err := w.change(what, "UPDATE outbox SET attempts = attempts + 1, died = ?, reason = ? WHERE id = ? AND died = 0",
		nanos(at), reason, id); err != nil {
		return err
	}
	return w.change(what, `DELETE FROM outbox WHERE id IN
		(SELECT id FROM outbox WHERE died <> 0 ORDER BY id DESC LIMIT -1 OFFSET ?)`, keepDead)
}

func (w *writer) Wake(kind, instance string, at time.Time) error {
	return w.change("make waiting reports due",
		"UPDATE outbox SET next = ?3 WHERE kind = ?1 AND (?2 = '' OR instance = ?2) AND died = 0 AND next > ?3",
		kind, instance, nanos(at))
}

func (r *reader) Pushed(instance string) (Pushed, error) {
	return one(r, fmt.Sprintf("read the pushed status of %q", instance), func(row scanner) (Pushed, error) {
		p := Pushed{Instance: instance}
		var at int64
		err := row.Scan(&p.Digest, &p.Commit, &at)
		p.Time = fromNanos(at)
		return p, err
	}, "SELECT digest, commit_id, time FROM pushed WHERE instance = ?", instance)
}

func (w *writer) PutPushed(p Pushed) error {
	return w.change(fmt.Sprintf("record the pushed status of %q", p.Instance),
		"INSERT OR REPLACE INTO pushed (instance, digest, commit_id, time) VALUES (?, ?, ?, ?)",
		p.Instance, p.Digest, p.Commit, nanos(p.Time))
}

func (r *reader) Value(key string) ([]byte, error) {
	return one(r, fmt.Sprintf("read the value %q", key), func(row scanner) ([]byte, error) {
		var v []byte
		err := row.Scan(&v)
		return v, err
	}, "SELECT value FROM kv WHERE key = ?", key)
}

func (w *writer) PutValue(key string, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	return w.change(fmt.Sprintf("write the value %q", key), "INSERT OR REPLACE INTO kv (key, value) VALUES (?, ?)", key, value)
}
