package state

import "fmt"

const eventColumns = "seq, time, instance, node, kind, message, run"

func scanEvent(row scanner) (Event, error) {
	var (
		e  Event
		at int64
	)
	err := row.Scan(&e.Seq, &at, &e.Instance, &e.Node, &e.Kind, &e.Message, &e.Run)
	e.Time = fromNanos(at)
	return e, err
}

func (r *reader) EventsAfter(seq int64) ([]Event, error) {
	return list(r, fmt.Sprintf("read the events after %d", seq), scanEvent,
		"SELECT "+eventColumns+" FROM events WHERE seq > ? ORDER BY seq", seq)
}

func (w *writer) AddEvent(e Event) (int64, error) {
	const what = "record an event"
	res, err := w.exec(what, "INSERT INTO events (time, instance, node, kind, message, run) VALUES (?, ?, ?, ?, ?, ?)",
		nanos(e.Time), e.Instance, e.Node, e.Kind, e.Message, e.Run)
	if err != nil {
		return 0, err
	}
	seq, err := res.LastInsertId()
	if err != nil {
		return 0, w.fail(what, err)
	}
	// Sequences have no holes but the ones at the old end, so that the ring's
	// bound is a matter of numbers.
	return seq, w.change(what, "DELETE FROM events WHERE seq <= ?", seq-int64(w.store.keepEvents))
}
