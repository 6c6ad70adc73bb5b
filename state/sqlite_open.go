package state

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	sqlite "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed migrations/*.sql
var embedded embed.FS

// prepare leaves a readable database of the current schema at path. What was
// there and could not be read is kept aside under another name.
func prepare(ctx context.Context, path string, now func() time.Time) ([]Notice, error) {
	steps, err := migrations(embedded)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, create(ctx, path, steps)
	case err != nil:
		return nil, fmt.Errorf("look at the state database: %w", err)
	}
	// A new database is renamed into place when it is whole, so that an empty
	// file is what is left of one, not the start of one.
	err = fmt.Errorf("the file is empty")
	if info.Size() > 0 {
		err = upgrade(ctx, path, steps)
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) {
			return nil, err
		}
		err = corrupt.Err
	}
	aside, moveErr := setAside(path, now())
	if moveErr != nil {
		return nil, fmt.Errorf("keep the unreadable state database aside (%w): %w", err, moveErr)
	}
	notice := Notice{Kind: NoticeCorrupt, Path: aside, Reason: err.Error(), At: now().UTC()}
	return []Notice{notice}, create(ctx, path, steps)
}

// create builds a new database beside its place and renames it when whole.
func create(ctx context.Context, path string, steps []migration) error {
	building := path + ".new"
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(building + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make the state database: %w", err)
		}
	}
	f, err := os.OpenFile(building, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make the state database: %w", noRoom(path, err))
	}
	defer f.Close()
	if err := upgrade(ctx, building, steps); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("make the state database: %w", noRoom(path, err))
	}
	// A log left by a database that is gone does not belong to the new one.
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make the state database: %w", err)
		}
	}
	if err := os.Rename(building, path); err != nil {
		return fmt.Errorf("make the state database: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// openReadOnly opens what is there, or an empty state in memory.
func openReadOnly(ctx context.Context, path string) (*SQLite, error) {
	s := &SQLite{path: path, committed: make(chan struct{})}
	steps, err := migrations(embedded)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if s.read, err = sql.Open("sqlite", "file::memory:"); err != nil {
			return nil, fmt.Errorf("open an empty state: %w", err)
		}
		s.read.SetMaxOpenConns(1) // each connection has a memory of its own
		for _, m := range steps {
			if err := apply(ctx, s.read, m); err != nil {
				s.read.Close()
				return nil, fmt.Errorf("make an empty state: %w", err)
			}
		}
		return s, nil
	}
	if s.read, err = connect(path, "deferred", 2); err != nil {
		return nil, err
	}
	var found int
	err = s.read.QueryRowContext(ctx, "PRAGMA user_version").Scan(&found)
	switch {
	case err != nil:
		err = explain(ctx, path, "read the version of the state database", err)
	case found != len(steps):
		err = &SchemaError{Path: path, Found: found, Known: len(steps)}
	default:
		return s, nil
	}
	s.read.Close()
	return nil, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync the state folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync the state folder: %w", err)
	}
	return nil
}

// setAside renames the database and its log and returns the new name.
func setAside(path string, now time.Time) (string, error) {
	base := path + ".corrupt-" + now.UTC().Format("20060102T150405Z")
	aside := base
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
		aside = base + "-" + strconv.Itoa(n)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return aside, syncDir(filepath.Dir(path))
}

// migration brings a schema from version-1 to version.
type migration struct {
	version int
	sql     string
}

// migrations reads migrations/NNNN_name.sql; the numbers count from 1.
func migrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []migration
	for i, name := range names {
		number, _, _ := strings.Cut(filepath.Base(name), "_")
		if version, err := strconv.Atoi(number); err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s: expected number %d", name, i+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		out = append(out, migration{version: i + 1, sql: string(text)})
	}
	return out, nil
}

// upgrade checks that the file is whole and applies what its schema lacks,
// each migration in one transaction together with its version number.
func upgrade(ctx context.Context, path string, steps []migration) error {
	db, err := connect(path, "immediate", 1)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := check(ctx, db, path); err != nil {
		return err
	}
	var found int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&found); err != nil {
		return explain(ctx, path, "read the version of the state database", err)
	}
	if found > len(steps) {
		return &SchemaError{Path: path, Found: found, Known: len(steps)}
	}
	for _, m := range steps[found:] {
		if err := apply(ctx, db, m); err != nil {
			return explain(ctx, path, fmt.Sprintf("bring the state database to schema %d", m.version), err)
		}
	}
	if err := db.Close(); err != nil {
		return explain(ctx, path, "close the state database", err)
	}
	return nil
}

func check(ctx context.Context, db *sql.DB, path string) error {
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result); err != nil {
		return explain(ctx, path, "check the state database", err)
	}
	if result != "ok" {
		return &CorruptError{Path: path, Err: errors.New(result)}
	}
	return nil
}

func apply(ctx context.Context, db *sql.DB, m migration) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, m.sql); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "PRAGMA user_version = "+strconv.Itoa(m.version)); err != nil {
		return err
	}
	return tx.Commit()
}

// explain turns an error of the database into one that says what to do.
func explain(ctx context.Context, path, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return fmt.Errorf("%s: %w", what, noRoom(path, err))
	}
	switch se.Code() & 0xff { // extended codes carry the primary one below
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%s: %w", what, &DiskFullError{Path: path, Err: err})
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%s: %w", what, &CorruptError{Path: path, Err: err})
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
		// SQLite's code does not say why (an index of the log that cannot
		// grow is one), so ask the disk.
		if diskIsFull(path) {
			return fmt.Errorf("%s: %w", what, &DiskFullError{Path: path, Err: err})
		}
	}
	return fmt.Errorf("%s in %s: %w", what, path, err)
}

func noRoom(path string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &DiskFullError{Path: path, Err: err}
	}
	return err
}

func diskIsFull(path string) bool {
	var st syscall.Statfs_t
	if syscall.Statfs(filepath.Dir(path), &st) != nil {
		return false
	}
	return st.Bavail*uint64(st.Bsize) < 64<<10
}
