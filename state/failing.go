package state

import (
	"context"
	"sync/atomic"
	"time"
)

// Failing is a Store that fails on purpose, for tests of those who use one.
// It hands every call through to another Store until its n-th call, which
// returns an error instead. Counted are Update, View, Recover, each method of
// a Tx or Reader, and each commit; a failing commit changes nothing.
type Failing struct {
	store Store
	err   error
	at    atomic.Int64
	calls atomic.Int64
}

var _ Store = (*Failing)(nil)

// NewFailing wraps a store. The n-th call fails with err, those before and
// after succeed; 0 never fails, a negative n fails every call from the first.
func NewFailing(store Store, n int, err error) *Failing {
	f := &Failing{store: store, err: err}
	f.at.Store(int64(n))
	return f
}

// FailAt makes the n-th call from now on fail; see NewFailing for n.
func (f *Failing) FailAt(n int) {
	f.calls.Store(0)
	f.at.Store(int64(n))
}

// Calls returns how many calls were made since NewFailing or FailAt.
func (f *Failing) Calls() int { return int(f.calls.Load()) }

func (f *Failing) call() error {
	n, at := f.calls.Add(1), f.at.Load()
	if n == at || at < 0 {
		return f.err
	}
	return nil
}

// Update implements Store.
func (f *Failing) Update(ctx context.Context, fn func(Tx) error) error {
	if err := f.call(); err != nil {
		return err
	}
	return f.store.Update(ctx, func(tx Tx) error {
		if err := fn(&failingTx{failingReader{f, tx}, tx}); err != nil {
			return err
		}
		return f.call() // the commit
	})
}

// View implements Store.
func (f *Failing) View(ctx context.Context, fn func(Reader) error) error {
	if err := f.call(); err != nil {
		return err
	}
	return f.store.View(ctx, func(r Reader) error { return fn(&failingReader{f, r}) })
}

// Recover implements Store.
func (f *Failing) Recover(ctx context.Context) ([]Run, error) {
	return attempt(f, func() ([]Run, error) { return f.store.Recover(ctx) })
}

// Committed implements Store; it does not fail.
func (f *Failing) Committed() <-chan struct{} { return f.store.Committed() }

// Close implements Store; it does not fail on purpose.
func (f *Failing) Close() error { return f.store.Close() }

// attempt is one counted call with a result.
func attempt[T any](f *Failing, fn func() (T, error)) (T, error) {
	if err := f.call(); err != nil {
		var none T
		return none, err
	}
	return fn()
}

// try is one counted call without a result.
func try(f *Failing, fn func() error) error {
	if err := f.call(); err != nil {
		return err
	}
	return fn()
}

type failingReader struct {
	f *Failing
	r Reader
}

func (r *failingReader) Instance(name string) (Instance, error) {
	return attempt(r.f, func() (Instance, error) { return r.r.Instance(name) })
}

func (r *failingReader) Instances() ([]Instance, error) {
	return attempt(r.f, func() ([]Instance, error) { return r.r.Instances() })
}

func (r *failingReader) Runs(instance string, limit int) ([]Run, error) {
	return attempt(r.f, func() ([]Run, error) { return r.r.Runs(instance, limit) })
}

func (r *failingReader) Steps(run string) ([]Step, error) {
	return attempt(r.f, func() ([]Step, error) { return r.r.Steps(run) })
}

func (r *failingReader) Nodes(instance string) ([]Node, error) {
	return attempt(r.f, func() ([]Node, error) { return r.r.Nodes(instance) })
}

func (r *failingReader) EventsAfter(seq int64) ([]Event, error) {
	return attempt(r.f, func() ([]Event, error) { return r.r.EventsAfter(seq) })
}

func (r *failingReader) Due(kind string, now time.Time, limit int) ([]Entry, error) {
	return attempt(r.f, func() ([]Entry, error) { return r.r.Due(kind, now, limit) })
}

func (r *failingReader) Outbox(instance string) ([]Entry, error) {
	return attempt(r.f, func() ([]Entry, error) { return r.r.Outbox(instance) })
}

func (r *failingReader) DeadEntries(instance string) ([]Entry, error) {
	return attempt(r.f, func() ([]Entry, error) { return r.r.DeadEntries(instance) })
}

func (r *failingReader) Pushed(instance string) (Pushed, error) {
	return attempt(r.f, func() (Pushed, error) { return r.r.Pushed(instance) })
}

func (r *failingReader) Imports() ([]Import, error) {
	return attempt(r.f, func() ([]Import, error) { return r.r.Imports() })
}

func (r *failingReader) Value(key string) ([]byte, error) {
	return attempt(r.f, func() ([]byte, error) { return r.r.Value(key) })
}

type failingTx struct {
	failingReader
	tx Tx
}

func (t *failingTx) PutInstance(v Instance) error {
	return try(t.f, func() error { return t.tx.PutInstance(v) })
}

func (t *failingTx) StartRun(v Run) error {
	return try(t.f, func() error { return t.tx.StartRun(v) })
}

func (t *failingTx) FinishRun(id string, at time.Time, outcome Outcome, message string) error {
	return try(t.f, func() error { return t.tx.FinishRun(id, at, outcome, message) })
}

func (t *failingTx) StartStep(v Step) (int64, error) {
	return attempt(t.f, func() (int64, error) { return t.tx.StartStep(v) })
}

func (t *failingTx) FinishStep(run string, seq int64, at time.Time, outcome Outcome, message string) error {
	return try(t.f, func() error { return t.tx.FinishStep(run, seq, at, outcome, message) })
}

func (t *failingTx) PutNode(v Node) error {
	return try(t.f, func() error { return t.tx.PutNode(v) })
}

func (t *failingTx) AddEvent(v Event) (int64, error) {
	return attempt(t.f, func() (int64, error) { return t.tx.AddEvent(v) })
}

func (t *failingTx) Enqueue(v Entry) (int64, error) {
	return attempt(t.f, func() (int64, error) { return t.tx.Enqueue(v) })
}

func (t *failingTx) Delivered(id int64) error {
	return try(t.f, func() error { return t.tx.Delivered(id) })
}

func (t *failingTx) Failed(id int64, next time.Time, reason string) error {
	return try(t.f, func() error { return t.tx.Failed(id, next, reason) })
}

func (t *failingTx) Dead(id int64, at time.Time, reason string) error {
	return try(t.f, func() error { return t.tx.Dead(id, at, reason) })
}

func (t *failingTx) Wake(kind, instance string, at time.Time) error {
	return try(t.f, func() error { return t.tx.Wake(kind, instance, at) })
}

func (t *failingTx) PutPushed(v Pushed) error {
	return try(t.f, func() error { return t.tx.PutPushed(v) })
}

func (t *failingTx) PutImport(v Import) error {
	return try(t.f, func() error { return t.tx.PutImport(v) })
}

func (t *failingTx) PutValue(key string, value []byte) error {
	return try(t.f, func() error { return t.tx.PutValue(key, value) })
}
