// Package state remembers what the agent did and saw: instances with their
// attempted and applied revisions, runs with their steps, what each node of an
// instance last looked like, events, and the outbox of reports that still have
// to leave the host.
//
// It must not know what a manifest, a reconciler or a report is: phases,
// outcomes of nodes, facts and payloads are values that it keeps and hands
// back. It imports nothing of this module.
//
// A [Store] is used through transactions:
//
//	err := store.Update(ctx, func(tx state.Tx) error {
//		seq, err := tx.AddEvent(state.Event{...})
//		...
//		_, err = tx.Enqueue(state.Entry{Event: seq, ...})
//		return err
//	})
//
// Either everything written inside the function is kept, or nothing is. All
// times are stored in UTC with nanoseconds; the zero time stays the zero time.
package state
