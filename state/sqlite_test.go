package state_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/state"
	"dive-agent/state/storetest"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string) (*state.SQLite, []state.Notice) {
	t.Helper()
	s, notices, err := state.Open(t.Context(), state.Options{
		Dir: dir, Now: func() time.Time { return now }, KeepRuns: 10, KeepEvents: 100,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, notices
}

func put(t *testing.T, s state.Store, name string) {
	t.Helper()
	require.NoError(t, s.Update(t.Context(), func(tx state.Tx) error {
		return tx.PutInstance(state.Instance{Name: name, Applied: "1a2b3c4"})
	}))
}

func names(t *testing.T, s state.Store) (out []string) {
	t.Helper()
	require.NoError(t, s.View(t.Context(), func(r state.Reader) error {
		all, err := r.Instances()
		for _, in := range all {
			out = append(out, in.Name)
		}
		return err
	}))
	return out
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) state.Store {
		s, notices := open(t, t.TempDir())
		require.Empty(t, notices)
		return s
	})
}

func TestConformanceThroughFailing(t *testing.T) {
	storetest.Run(t, func(t *testing.T) state.Store {
		s, _ := open(t, t.TempDir())
		return state.NewFailing(s, 0, nil)
	})
}

func TestReopenKeepsEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a folder?with 100% odd#name")
	require.NoError(t, os.Mkdir(dir, 0o700))
	s, _ := open(t, dir)
	put(t, s, "deu")
	require.NoError(t, s.Close())
	s, notices := open(t, dir)
	require.Empty(t, notices)
	require.Equal(t, []string{"deu"}, names(t, s))
	info, err := os.Stat(filepath.Join(dir, "agent.db"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	info, err = os.Stat(filepath.Join(dir, "agent.db-wal"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

// TestKilledWriter kills a process that writes as fast as it can and expects
// each change that it had announced to be there.
func TestKilledWriter(t *testing.T) {
	if dir := os.Getenv("STATE_TEST_WRITER"); dir != "" {
		s, _ := open(t, dir)
		for i := 0; ; i++ {
			put(t, s, fmt.Sprintf("i%06d", i))
			fmt.Printf("wrote %d\n", i)
		}
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for round := range 3 {
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilledWriter$")
		cmd.Env = append(os.Environ(), "STATE_TEST_WRITER="+dir)
		out := &stopAfter{lines: 20 + round*7, kill: func() { _ = cmd.Process.Kill() }}
		cmd.Stdout = out
		require.Error(t, cmd.Run())
		require.NoError(t, ctx.Err())
		s, notices := open(t, dir)
		require.Empty(t, notices)
		got := names(t, s)
		require.GreaterOrEqual(t, len(got), strings.Count(out.buf.String(), "\n"), "an announced change was lost")
		require.True(t, sort.StringsAreSorted(got))
		require.NoError(t, s.Close())
	}
}

// stopAfter kills a process once it has written a number of lines.
type stopAfter struct {
	buf   bytes.Buffer
	lines int
	kill  func()
}

func (w *stopAfter) Write(p []byte) (int, error) {
	w.buf.Write(p)
	if bytes.Count(w.buf.Bytes(), []byte("\n")) >= w.lines {
		w.kill()
	}
	return len(p), nil
}

func TestCorruptFileIsKeptAside(t *testing.T) {
	damage := map[string]func(content []byte) []byte{
		"not a database": func([]byte) []byte {
			return []byte("this is no database, whatever its name says; it goes on for a while\n")
		},
		"empty": func([]byte) []byte { return nil },
		"cut":   func(c []byte) []byte { return c[:len(c)/2+17] },
		"zeros inside": func(c []byte) []byte {
			clear(c[4096:12288])
			return c
		},
		"header": func(c []byte) []byte {
			copy(c, "SQLote")
			return c
		},
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := open(t, dir)
			put(t, s, "deu")
			require.NoError(t, s.Close())
			path := filepath.Join(dir, "agent.db")
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			content = spoil(content)
			require.NoError(t, os.WriteFile(path, content, 0o600))
			require.NoError(t, os.WriteFile(path+"-wal", []byte("what may be rescued"), 0o600))

			s, notices := open(t, dir)
			require.Len(t, notices, 1)
			require.Equal(t, state.NoticeCorrupt, notices[0].Kind)
			require.Equal(t, path+".corrupt-20260301T120000Z", notices[0].Path)
			require.NotEmpty(t, notices[0].Reason)
			kept, err := os.ReadFile(notices[0].Path)
			require.NoError(t, err)
			require.Equal(t, len(content), len(kept))
			require.True(t, bytes.Equal(content, kept), "the unreadable file is kept as it was")
			if name == "empty" { // into any other file SQLite folds its log, as far as it is one
				log, err := os.ReadFile(notices[0].Path + "-wal")
				require.NoError(t, err)
				require.Equal(t, "what may be rescued", string(log))
			}
			require.Empty(t, names(t, s))
			put(t, s, "fra")
			require.NoError(t, s.Close())

			// A second damage in the same second does not overwrite the first.
			require.NoError(t, os.WriteFile(path, []byte("again"), 0o600))
			_, notices = open(t, dir)
			require.Equal(t, path+".corrupt-20260301T120000Z-2", notices[0].Path)
			again, err := os.ReadFile(kept0(path))
			require.NoError(t, err)
			require.True(t, bytes.Equal(content, again))
		})
	}
}

func kept0(path string) string { return path + ".corrupt-20260301T120000Z" }

func TestInterruptedCreationIsBegunAnew(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"agent.db.new", "agent.db.new-wal", "agent.db-wal"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600))
	}
	s, notices := open(t, dir)
	require.Empty(t, notices)
	put(t, s, "deu")
	_, err := os.Stat(filepath.Join(dir, "agent.db.new"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestRingsAreBounded(t *testing.T) {
	s, _ := open(t, t.TempDir())
	ids := state.NewIDs(func() time.Time { return now }, rand.Reader)
	require.NoError(t, s.Update(t.Context(), func(tx state.Tx) error {
		for range 150 {
			if _, err := tx.AddEvent(state.Event{Instance: "deu"}); err != nil {
				return err
			}
			id, err := ids.New()
			require.NoError(t, err)
			if err := tx.StartRun(state.Run{ID: id, Instance: "deu"}); err != nil {
				return err
			}
			if _, err := tx.StartStep(state.Step{Run: id}); err != nil {
				return err
			}
			entry, err := tx.Enqueue(state.Entry{Kind: state.KindWebhook, Instance: "deu"})
			require.NoError(t, err)
			if err := tx.Dead(entry, now, "gone"); err != nil {
				return err
			}
		}
		return nil
	}))
	require.NoError(t, s.View(t.Context(), func(r state.Reader) error {
		events, err := r.EventsAfter(0)
		require.NoError(t, err)
		require.Len(t, events, 100)
		require.EqualValues(t, 150, events[99].Seq)
		runs, err := r.Runs("deu", 0)
		require.NoError(t, err)
		require.Len(t, runs, 10)
		steps, err := r.Steps(runs[9].ID)
		require.NoError(t, err)
		require.Len(t, steps, 1)
		dead, err := r.DeadEntries("")
		require.Len(t, dead, 100)
		return err
	}))
}

// TestRunsAfterTheClockWentBack: they are the newest all the same, and the ring does not take them for the oldest.
func TestRunsAfterTheClockWentBack(t *testing.T) {
	s, _ := open(t, t.TempDir())
	for at, clock := range []time.Time{now.AddDate(2, 0, 0), now} {
		ids := state.NewIDs(func() time.Time { return clock }, rand.Reader)
		for range 12 {
			id, err := ids.New()
			require.NoError(t, err)
			require.NoError(t, s.Update(t.Context(), func(tx state.Tx) error {
				if err := tx.StartRun(state.Run{ID: id, Instance: "deu", Started: clock}); err != nil {
					return err
				}
				_, err := tx.StartStep(state.Step{Run: id, Started: clock})
				return err
			}), "clock %d", at)
			require.NoError(t, s.View(t.Context(), func(r state.Reader) error {
				runs, err := r.Runs("deu", 1)
				require.NoError(t, err)
				require.Equal(t, id, runs[0].ID)
				return nil
			}))
		}
	}
}

func TestIDsSortByTime(t *testing.T) {
	clock := now
	ids := state.NewIDs(func() time.Time { return clock }, rand.Reader)
	var made []string
	for i := range 1000 {
		switch {
		case i%100 == 50:
			clock = clock.Add(-time.Second) // the clock goes back
		case i%10 == 0:
			clock = clock.Add(time.Millisecond)
		}
		id, err := ids.New()
		require.NoError(t, err)
		require.Len(t, id, 26)
		made = append(made, id)
	}
	require.IsIncreasing(t, made)

	// 01ARYZ6S41... is the time 1469918176385 in the ULID specification.
	fixed := state.NewIDs(func() time.Time { return time.UnixMilli(1469918176385) }, bytes.NewReader(make([]byte, 10)))
	id, err := fixed.New()
	require.NoError(t, err)
	require.Equal(t, "01ARYZ6S410000000000000000", id)
	clockless := state.NewIDs(func() time.Time { return now }, bytes.NewReader(nil))
	_, err = clockless.New()
	require.ErrorContains(t, err, "randomness")
}

func TestLockKeepsASecondAgentOut(t *testing.T) {
	dir := t.TempDir()
	lock, err := state.Lock(dir)
	require.NoError(t, err)
	_, err = state.Lock(dir)
	var held *state.LockedError
	require.ErrorAs(t, err, &held)
	require.Equal(t, os.Getpid(), held.PID)
	require.ErrorContains(t, err, dir)
	require.NoError(t, lock.Unlock())
	require.NoError(t, lock.Unlock())
	lock, err = state.Lock(dir)
	require.NoError(t, err)
	require.NoError(t, lock.Unlock())
	_, err = state.Lock(filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestReadOnlyBesideTheAgent(t *testing.T) {
	read := func(dir string) (*state.SQLite, error) {
		s, notices, err := state.Open(t.Context(), state.Options{Dir: dir, ReadOnly: true})
		require.Empty(t, notices)
		if s != nil {
			t.Cleanup(func() { require.NoError(t, s.Close()) })
		}
		return s, err
	}
	dir := t.TempDir()
	empty, err := read(dir)
	require.NoError(t, err)
	require.Empty(t, names(t, empty))
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files, "nothing is made")

	agent, _ := open(t, dir)
	put(t, agent, "deu")
	s, err := read(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"deu"}, names(t, s))
	put(t, agent, "fra")
	require.Equal(t, []string{"deu", "fra"}, names(t, s))
	for _, readonly := range []state.Store{s, empty} {
		require.ErrorIs(t, readonly.Update(t.Context(), func(state.Tx) error { return nil }), state.ErrReadOnly)
		_, err = readonly.Recover(t.Context())
		require.ErrorIs(t, err, state.ErrReadOnly)
	}

	broken := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(broken, "agent.db"), []byte("this is no database, whatever its name says; it goes on for a while\n"), 0o600))
	_, err = read(broken)
	var corrupt *state.CorruptError
	require.ErrorAs(t, err, &corrupt)
	files, err = os.ReadDir(broken)
	require.NoError(t, err)
	require.Len(t, files, 1, "nothing is moved aside")
}
