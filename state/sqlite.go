package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Options say where and how a SQLite store keeps its data.
type Options struct {
	// Dir is the state folder; it must exist. The file is agent.db within.
	Dir string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// KeepRuns is how many runs of each instance are kept; 0 means 200.
	KeepRuns int
	// KeepEvents is how many events are kept in all; 0 means 10,000.
	KeepEvents int
	// ReadOnly is for commands that run beside the agent, without the folder's
	// Lock: nothing in the folder is made, moved aside or brought up to date,
	// and Update and Recover fail with ErrReadOnly. Where there is no state
	// yet, an empty one is read.
	ReadOnly bool
}

// SQLite is the Store in one file of the state folder, in WAL mode, with one
// connection that writes and synchronous commits.
type SQLite struct {
	path       string
	keepRuns   int
	keepEvents int

	write *sql.DB
	read  *sql.DB

	mu        sync.Mutex
	committed chan struct{}
	closed    bool
}

var _ Store = (*SQLite)(nil)

const (
	fileName       = "agent.db"
	defaultRuns    = 200
	defaultEvents  = 10_000
	keepDead       = 100
	busyTimeout    = "busy_timeout(5000)"
	smallCache     = "cache_size(-1024)"
	limitedJournal = "journal_size_limit(4194304)"
)

// Open opens the state of a folder, makes it when there is none, and brings an
// older schema up to date. A file that cannot be read is moved aside, a new
// one begun, and a Notice returned. A schema of a newer agent is *SchemaError,
// a full disk *DiskFullError; both leave the file as it is.
//
// The caller holds the folder's Lock.
func Open(ctx context.Context, opts Options) (*SQLite, []Notice, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.KeepRuns <= 0 {
		opts.KeepRuns = defaultRuns
	}
	if opts.KeepEvents <= 0 {
		opts.KeepEvents = defaultEvents
	}
	path := filepath.Join(opts.Dir, fileName)
	if opts.ReadOnly {
		s, err := openReadOnly(ctx, path)
		return s, nil, err
	}
	notices, err := prepare(ctx, path, opts.Now)
	if err != nil {
		return nil, nil, err
	}
	s := &SQLite{
		path:       path,
		keepRuns:   opts.KeepRuns,
		keepEvents: opts.KeepEvents,
		committed:  make(chan struct{}),
	}
	if s.write, err = connect(path, "immediate", 1); err != nil {
		return nil, nil, err
	}
	if s.read, err = connect(path, "deferred", 2); err != nil {
		s.write.Close()
		return nil, nil, err
	}
	return s, notices, nil
}

// connect makes a pool; nothing is opened before its first use.
func connect(path, lock string, connections int) (*sql.DB, error) {
	query := url.Values{
		"_txlock": {lock},
		"_pragma": {busyTimeout, "journal_mode(WAL)", "synchronous(FULL)", smallCache, limitedJournal},
	}
	if lock == "deferred" {
		query.Add("_pragma", "query_only(1)")
	}
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open the state database %s: %w", path, err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(1)
	return db, nil
}

// Close implements Store.
func (s *SQLite) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	if s.write == nil {
		return s.read.Close()
	}
	// Readers go first: the last connection to close folds the WAL back in.
	return errors.Join(s.read.Close(), s.write.Close())
}

// Committed implements Store.
func (s *SQLite) Committed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.committed
}

func (s *SQLite) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.committed)
	s.committed = make(chan struct{})
}

func (s *SQLite) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Update implements Store.
func (s *SQLite) Update(ctx context.Context, fn func(Tx) error) error {
	if s.isClosed() {
		return ErrClosed
	}
	if s.write == nil {
		return ErrReadOnly
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return explain(ctx, s.path, "begin a change of the state", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	if err := fn(&writer{reader{ctx: ctx, tx: tx, path: s.path}, s}); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("change the state: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return explain(ctx, s.path, "commit a change of the state", err)
	}
	s.announce()
	return nil
}

// View implements Store.
func (s *SQLite) View(ctx context.Context, fn func(Reader) error) error {
	if s.isClosed() {
		return ErrClosed
	}
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return explain(ctx, s.path, "begin to read the state", err)
	}
	defer func() { _ = tx.Rollback() }()
	return fn(&reader{ctx: ctx, tx: tx, path: s.path})
}

// reader implements Reader inside one transaction.
type reader struct {
	ctx  context.Context
	tx   *sql.Tx
	path string
}

// writer implements Tx.
type writer struct {
	reader
	store *SQLite
}

// fail explains an error of the database; what names the attempt.
func (r *reader) fail(what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return explain(r.ctx, r.path, what, err)
}

func (r *reader) exec(what, query string, args ...any) (sql.Result, error) {
	res, err := r.tx.ExecContext(r.ctx, query, args...)
	return res, r.fail(what, err)
}

// change is exec for callers that need only the error.
func (r *reader) change(what, query string, args ...any) error {
	_, err := r.exec(what, query, args...)
	return err
}

type scanner interface{ Scan(dest ...any) error }

// list reads all rows of a query with scan.
func list[T any](r *reader, what string, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := r.tx.QueryContext(r.ctx, query, args...)
	if err != nil {
		return nil, r.fail(what, err)
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, r.fail(what, err)
		}
		out = append(out, v)
	}
	return out, r.fail(what, rows.Err())
}

// one reads the single row of a query with scan.
func one[T any](r *reader, what string, scan func(scanner) (T, error), query string, args ...any) (T, error) {
	v, err := scan(r.tx.QueryRowContext(r.ctx, query, args...))
	return v, r.fail(what, err)
}

// limited turns "no limit" into SQLite's.
func limited(n int) int {
	if n <= 0 {
		return -1
	}
	return n
}
