package storetest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/state"
)

func (f *fixture) enqueue(e state.Entry) (id int64) {
	f.t.Helper()
	f.update(func(tx state.Tx) (err error) {
		id, err = tx.Enqueue(e)
		return err
	})
	return id
}

func (f *fixture) due(kind string, now time.Time, limit int) (ids []int64) {
	f.t.Helper()
	f.view(func(r state.Reader) error {
		entries, err := r.Due(kind, now, limit)
		for _, e := range entries {
			ids = append(ids, e.ID)
		}
		return err
	})
	return ids
}

func outboxOrder(t *testing.T, f *fixture) {
	hook := func(instance, target string, next time.Time) int64 {
		return f.enqueue(state.Entry{Kind: state.KindWebhook, Target: target, Instance: instance, Next: next, Created: at(0)})
	}
	first := hook("deu", "ops", at(5))
	second := hook("deu", "ops", time.Time{})
	other := hook("fra", "ops", at(3))
	elsewhere := hook("deu", "audit", at(4))
	f.enqueue(state.Entry{Kind: state.KindStatus, Instance: "deu", Payload: []byte("x")})

	require.Empty(t, f.due(state.KindWebhook, at(2), 0), "the second waits for the first")
	require.Equal(t, []int64{other, elsewhere, first}, f.due(state.KindWebhook, at(5), 0))
	require.Equal(t, []int64{other}, f.due(state.KindWebhook, at(5), 1))
	f.update(func(tx state.Tx) error { return tx.Failed(first, at(60), "503 Service Unavailable") })
	require.NotContains(t, f.due(state.KindWebhook, at(6), 0), second)
	f.view(func(r state.Reader) error {
		pending, err := r.Outbox("deu")
		require.Len(t, pending, 4)
		require.Equal(t, state.Entry{
			ID: first, Kind: state.KindWebhook, Target: "ops", Instance: "deu",
			Attempts: 1, Next: at(60), Created: at(0), Reason: "503 Service Unavailable",
		}, pending[0])
		return err
	})
	f.update(func(tx state.Tx) error { return tx.Delivered(first) })
	require.Contains(t, f.due(state.KindWebhook, at(6), 0), second)
}

func outboxCoalesces(t *testing.T, f *fixture) {
	status := func(instance, payload string) int64 {
		return f.enqueue(state.Entry{Kind: state.KindStatus, Instance: instance, Key: "status", Payload: []byte(payload), Created: at(1), Event: 3})
	}
	old := status("deu", "one")
	f.update(func(tx state.Tx) error { return tx.Failed(old, at(30), "away") })
	other := status("fra", "other")
	newer := status("deu", "two")
	require.Greater(t, newer, old, "ids are never used twice")
	f.update(func(tx state.Tx) error { return tx.Delivered(old) })
	f.update(func(tx state.Tx) error { return tx.Failed(old, at(99), "late") })
	f.view(func(r state.Reader) error {
		pending, err := r.Outbox("")
		require.Len(t, pending, 2)
		require.Equal(t, other, pending[0].ID)
		require.Equal(t, state.Entry{
			ID: newer, Kind: state.KindStatus, Instance: "deu", Key: "status", Payload: []byte("two"),
			Attempts: 1, Next: at(30), Created: at(1), Reason: "away", Event: 3,
		}, pending[1])
		return err
	})
}

func outboxGivesUp(t *testing.T, f *fixture) {
	lost := f.enqueue(state.Entry{Kind: state.KindWebhook, Instance: "deu", Key: "k"})
	next := f.enqueue(state.Entry{Kind: state.KindWebhook, Instance: "deu"})
	f.update(func(tx state.Tx) error { return tx.Dead(lost, at(9), "410 Gone") })
	require.Equal(t, []int64{next}, f.due(state.KindWebhook, at(9), 0))
	f.view(func(r state.Reader) error {
		dead, err := r.DeadEntries("deu")
		require.Len(t, dead, 1)
		require.Equal(t, at(9), dead[0].Died)
		require.Equal(t, "410 Gone", dead[0].Reason)
		require.Equal(t, 1, dead[0].Attempts)
		none, err2 := r.DeadEntries("fra")
		require.NoError(t, err2)
		require.Empty(t, none)
		return err
	})
	f.enqueue(state.Entry{Kind: state.KindWebhook, Instance: "deu", Key: "k"})
	f.view(func(r state.Reader) error {
		dead, err := r.DeadEntries("")
		require.Len(t, dead, 1, "the dead are not replaced")
		return err
	})
}

func outboxWakes(t *testing.T, f *fixture) {
	a := f.enqueue(state.Entry{Kind: state.KindStatus, Instance: "deu", Next: at(900)})
	b := f.enqueue(state.Entry{Kind: state.KindStatus, Instance: "fra", Next: at(900)})
	c := f.enqueue(state.Entry{Kind: state.KindStatus, Instance: "usa", Next: at(1)})
	f.update(func(tx state.Tx) error { return tx.Wake(state.KindStatus, "deu", at(5)) })
	require.Equal(t, []int64{c, a}, f.due(state.KindStatus, at(5), 0))
	f.update(func(tx state.Tx) error { return tx.Wake(state.KindStatus, "", at(6)) })
	require.Equal(t, []int64{c, a, b}, f.due(state.KindStatus, at(6), 0))
}
