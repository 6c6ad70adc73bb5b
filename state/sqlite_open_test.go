package state

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNewerSchemaIsRefusedAndLeftAlone(t *testing.T) {
	dir := t.TempDir()
	s, _, err := Open(t.Context(), Options{Dir: dir})
	require.NoError(t, err)
	_, err = s.write.Exec("PRAGMA user_version = 99")
	require.NoError(t, err)
	require.NoError(t, s.Close())
	before, err := os.ReadFile(filepath.Join(dir, fileName))
	require.NoError(t, err)

	_, _, err = Open(t.Context(), Options{Dir: dir})
	var newer *SchemaError
	require.ErrorAs(t, err, &newer)
	require.Equal(t, 99, newer.Found)
	after, err := os.ReadFile(filepath.Join(dir, fileName))
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestMigrationsApplyOneByOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	files := fstest.MapFS{"migrations/0001_a.sql": {Data: []byte("CREATE TABLE a (x); CREATE TABLE b (x);")}}
	steps, err := migrations(files)
	require.NoError(t, err)
	require.NoError(t, upgrade(t.Context(), path, steps))
	require.NoError(t, upgrade(t.Context(), path, steps), "nothing to do the second time")

	// A migration that fails half-way leaves the schema as it was.
	files["migrations/0002_b.sql"] = &fstest.MapFile{Data: []byte("INSERT INTO a VALUES (1); INSERT INTO missing VALUES (1);")}
	steps, err = migrations(files)
	require.NoError(t, err)
	require.ErrorContains(t, upgrade(t.Context(), path, steps), "schema 2")
	require.Equal(t, [2]int{1, 0}, versionAndRows(t, path))

	files["migrations/0002_b.sql"] = &fstest.MapFile{Data: []byte("INSERT INTO a VALUES (1);")}
	steps, err = migrations(files)
	require.NoError(t, err)
	require.NoError(t, upgrade(t.Context(), path, steps))
	require.Equal(t, [2]int{2, 1}, versionAndRows(t, path))

	files["migrations/0004_gap.sql"] = &fstest.MapFile{}
	_, err = migrations(files)
	require.ErrorContains(t, err, "expected number 3")
}

func versionAndRows(t *testing.T, path string) (out [2]int) {
	t.Helper()
	db, err := connect(path, "immediate", 1)
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.QueryRow("PRAGMA user_version").Scan(&out[0]))
	require.NoError(t, db.QueryRow("SELECT count(*) FROM a").Scan(&out[1]))
	return out
}

// TestFullDisk lets the engine run out of pages, which it reports as it
// reports a disk without room.
func TestFullDisk(t *testing.T) {
	s, _, err := Open(t.Context(), Options{Dir: t.TempDir()})
	require.NoError(t, err)
	defer s.Close()
	var pages int
	require.NoError(t, s.write.QueryRow("PRAGMA page_count").Scan(&pages))
	_, err = s.write.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages+4))
	require.NoError(t, err)

	fill := func() error {
		return s.Update(t.Context(), func(tx Tx) error { return tx.PutValue("big", make([]byte, 64<<10)) })
	}
	err = fill()
	var full *DiskFullError
	require.ErrorAs(t, err, &full)
	require.ErrorContains(t, err, "no space left")
	require.NoError(t, s.View(t.Context(), func(r Reader) error {
		_, err := r.Value("big")
		require.ErrorIs(t, err, ErrNotFound)
		return nil
	}))
	_, err = s.write.Exec("PRAGMA max_page_count = 1000000")
	require.NoError(t, err)
	require.NoError(t, fill(), "goes on once there is room")
}

func TestExplainNamesWhatIsWrong(t *testing.T) {
	_, _, err := Open(t.Context(), Options{Dir: filepath.Join(t.TempDir(), "missing")})
	require.ErrorIs(t, err, os.ErrNotExist)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = Open(ctx, Options{Dir: t.TempDir()})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "1970-01-01T00:00:00.000000001Z", fromNanos(1).Format(time.RFC3339Nano))
	require.True(t, fromNanos(nanos(time.Time{})).IsZero())
}

// TestAStateOfTheFirstSchemaIsBroughtUpToDate keeps what is in it.
func TestAStateOfTheFirstSchemaIsBroughtUpToDate(t *testing.T) {
	dir := t.TempDir()
	steps, err := migrations(embedded)
	require.NoError(t, err)
	path := filepath.Join(dir, fileName)
	require.NoError(t, upgrade(t.Context(), path, steps[:1]))
	db, err := connect(path, "immediate", 1)
	require.NoError(t, err)
	_, err = db.Exec("INSERT INTO kv (key, value) VALUES ('deu/status', CAST('kept' AS BLOB))")
	require.NoError(t, err)
	require.NoError(t, db.Close())

	s, notices, err := Open(t.Context(), Options{Dir: dir})
	require.NoError(t, err)
	require.Empty(t, notices)
	require.NoError(t, s.Update(t.Context(), func(tx Tx) error { return tx.PutImport(Import{Instance: "usa", Generation: 1}) }))
	require.NoError(t, s.View(t.Context(), func(r Reader) error {
		kept, err := r.Value("deu/status")
		require.Equal(t, "kept", string(kept))
		return err
	}))
	require.NoError(t, s.Close())
}
