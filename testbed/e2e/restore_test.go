package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sys/unix"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

// backedUp is the fleet with a set of one member that is backed up at each look.
func (s *small) backedUp(folder, recipient string) map[string]string {
	files := s.replicas(replicas{members: numbered(1), image: testbed.Image(s.t, testbed.Mongod605), fcv: "6.0"})
	files[trioFile] += fmt.Sprintf("      database: dive\n      backup: {schedule: \"@every 1s\", folder: %s, recipient: %q, keep: {count: 1000}}\n", folder, recipient)
	return files
}

// fill makes the collection hold so many documents and gives a backup that was begun afterwards.
func (s *small) fill(t *testing.T, db *mongo.Database, folder, suffix string, count int) string {
	t.Helper()
	require.NoError(t, db.Collection("things").Drop(t.Context()))
	documents := make([]any, count)
	for i := range documents {
		documents[i] = bson.D{{Key: "_id", Value: i}, {Key: "text", Value: strings.Repeat("x", 1000)}}
	}
	_, err := db.Collection("things").InsertMany(t.Context(), documents)
	require.NoError(t, err)
	after := time.Now().Add(time.Second).UTC().Format("20060102T150405Z")
	var found string
	testbed.Eventually(t, soon, "a backup of what was written", func() error {
		names, err := filepath.Glob(filepath.Join(folder, "one-database-*"+suffix))
		if err != nil || len(names) == 0 || filepath.Base(slices.Max(names)) < "one-database-"+after {
			return fmt.Errorf("there are %d: %w", len(names), errNotYet)
		}
		found = slices.Max(names)
		return nil
	})
	return found
}

func things(t *testing.T, db *mongo.Database) int64 {
	t.Helper()
	count, err := db.Collection("things").CountDocuments(t.Context(), bson.D{})
	require.NoError(t, err)
	return count
}

// TestABackupIsRestoredByCommand: what an agent backed up by its schedule comes back from the command line, which says
// what it overwrites and asks, and which tells apart all that can be wrong with a backup. The agent keeps away meanwhile.
func TestABackupIsRestoredByCommand(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	folder := t.TempDir()
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	other, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	h, _ := s.readyWith(s.backedUp(folder, ""), soon, agenttest.HostOptions{})
	db := s.connect(t, secretOf(t, h, "MONGO_PASSWORD"))
	plain := s.fill(t, db, folder, ".tar.zst", 700)
	h.AwaitPhase(soon, "one", report.Ready, s.Merge("Encrypt backups", s.backedUp(folder, identity.Recipient().String())))
	sealed := s.fill(t, db, folder, ".tar.zst.age", 500)
	key, wrongKey := filepath.Join(h.Dir, "key"), filepath.Join(h.Dir, "wrong-key")
	require.NoError(t, os.WriteFile(key, []byte(identity.String()+"\n"), 0o600))
	require.NoError(t, os.WriteFile(wrongKey, []byte(other.String()+"\n"), 0o600))
	_, err = db.Collection("things").DeleteMany(t.Context(), bson.D{{Key: "_id", Value: bson.D{{Key: "$gte", Value: 5}}}})
	require.NoError(t, err)

	const question = "dive.things: 5 documents there now are replaced by 500"
	out, err := h.Try("restore", "one", sealed, "--identity", key)
	require.ErrorContains(t, err, "it was not confirmed, by yes on a terminal or by --yes")
	require.ErrorContains(t, err, "exit status 3")
	require.Contains(t, out, "Into database of one, from the backup of 20")
	require.Contains(t, out, question)
	out, err = onTerminal(t, h, "no\n", "restore", "one", sealed, "--identity", key)
	require.ErrorContains(t, err, "exit status 3")
	require.Contains(t, out, question)
	require.Contains(t, out, "Type yes to overwrite them")

	for _, bad := range []struct {
		says, file string
		more       []string
	}{
		{"the backup is encrypted: name the file with its age identity", sealed, nil},
		{"encrypted for another identity than that of " + wrongKey, sealed, []string{"--identity", wrongKey}},
		{"the backup is damaged", changed(t, sealed, flip), []string{"--identity", key}},
		{"the backup is damaged: dive.things has 700 documents with another checksum", changed(t, plain, repacked("xxxx", "xxxy")), nil},
		{"is a backup of replica set rs9, not of rs0", changed(t, plain, repacked(`"set": "rs0"`, `"set": "rs9"`)), nil},
		{"holds no database other", plain, []string{"--database", "other"}},
	} {
		_, err := h.Try(append([]string{"restore", "one", bad.file, "--yes"}, bad.more...)...)
		require.ErrorContains(t, err, bad.says)
	}
	require.EqualValues(t, 5, things(t, db), "nothing of that touched anything")

	out, err = onTerminal(t, h, "yes\n", "restore", "one", sealed, "--identity", key)
	require.NoError(t, err, out)
	require.EqualValues(t, 500, things(t, db))
	h.Do("restore", "one", plain, "--yes")
	require.EqualValues(t, 700, things(t, db))
	h.Do("restore", "one", changed(t, plain, repacked(`"set": "rs0"`, `"set": "rs9"`)), "--yes", "--from", "rs9")
	h.AwaitPhase(soon, "one", report.Ready, "")
	s.oneAtATime(t, h, db, plain)
}

// oneAtATime holds what a restore holds while it is at work: the agent makes no round, another restore waits.
func (s *small) oneAtATime(t *testing.T, h *agenttest.Host, db *mongo.Database, plain string) {
	lock := s.reserve(h)
	h.Await(soon, "one", "waits", func(st *report.Status) bool {
		return strings.Contains(why(st), fmt.Sprintf("process %d, which restores a backup into one, to end", os.Getpid()))
	})
	require.NoError(t, db.Collection("things").Drop(t.Context()))
	restored := exec.Command(h.Binary, "--config", h.Config(), "restore", "one", plain, "--yes")
	said, err := restored.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, restored.Start())
	const waits = "Waiting for the agent to end its work on one\n"
	text := make([]byte, len(waits))
	_, err = io.ReadFull(said, text)
	require.NoError(t, err)
	require.Equal(t, waits, string(text))
	require.Zero(t, things(t, db))
	require.NoError(t, lock.Close())
	require.NoError(t, restored.Wait())
	require.EqualValues(t, 700, things(t, db))
	h.AwaitPhase(soon, "one", report.Ready, "")
}

// reserve takes the instance between two rounds of the agent. Closing the file gives it back.
func (s *small) reserve(h *agenttest.Host) *os.File {
	lock, err := os.OpenFile(filepath.Join(h.Dir, "state", "instances", "one", "agent.lock"), os.O_RDWR, 0)
	require.NoError(s.t, err)
	testbed.Eventually(s.t, soon, "the instance between two rounds", func() error {
		return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	})
	require.NoError(s.t, lock.Truncate(0))
	_, err = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	require.NoError(s.t, err)
	return lock
}

// onTerminal runs a command as a person does, who types an answer. It gives all that the person sees.
func onTerminal(t *testing.T, h *agenttest.Host, answer string, args ...string) (string, error) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { _ = master.Close() }()
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	keyboard, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	defer func() { _ = keyboard.Close() }()
	_, err = master.WriteString(answer)
	require.NoError(t, err)
	cmd := exec.Command(h.Binary, append([]string{"--config", h.Config()}, args...)...)
	cmd.Stdin = keyboard
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// changed writes a copy of a file with another content beside it.
func changed(t *testing.T, path string, change func(*testing.T, []byte) []byte) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	copied := filepath.Join(t.TempDir(), filepath.Base(path))
	require.NoError(t, os.WriteFile(copied, change(t, content), 0o600))
	return copied
}

// flip changes one bit in the middle.
func flip(_ *testing.T, content []byte) []byte {
	content[len(content)/2] ^= 1
	return content
}

// repacked changes what is within the compression, once.
func repacked(old, text string) func(*testing.T, []byte) []byte {
	return func(t *testing.T, content []byte) []byte {
		t.Helper()
		unpacked, err := zstd.NewReader(nil)
		require.NoError(t, err)
		defer unpacked.Close()
		tar, err := unpacked.DecodeAll(content, nil)
		require.NoError(t, err)
		require.True(t, bytes.Contains(tar, []byte(old)))
		packer, err := zstd.NewWriter(nil)
		require.NoError(t, err)
		return packer.EncodeAll(bytes.Replace(tar, []byte(old), []byte(text), 1), nil)
	}
}
