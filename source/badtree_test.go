package source_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/adler32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/source"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/heap"
)

// object writes a loose object that git itself would not make.
func (b *bed) object(kind string, content []byte) [20]byte {
	b.Helper()
	raw := append(fmt.Appendf(nil, "%s %d\x00", kind, len(content)), content...)
	id := sha1.Sum(raw)
	name := fmt.Sprintf("%x", id)
	path := filepath.Join(b.repo.Path, "objects", name[:2], name[2:])
	require.NoError(b, os.MkdirAll(filepath.Dir(path), 0o755))
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	_, err := w.Write(raw)
	require.NoError(b, err)
	require.NoError(b, w.Close())
	if _, err := os.Stat(path); err != nil {
		require.NoError(b, os.WriteFile(path, z.Bytes(), 0o444))
	}
	return id
}

// entry is one line of a tree.
func entry(mode, name string, id [20]byte) []byte {
	return append(fmt.Appendf(nil, "%s %s\x00", mode, name), id[:]...)
}

// commitTree makes a commit of a tree on top of the branch, and moves the branch there.
func (b *bed) commitTree(tree [20]byte) string {
	b.Helper()
	parent := ""
	if head := b.repo.Head("main"); head != "" {
		parent = "parent " + head + "\n"
	}
	id := b.object("commit", fmt.Appendf(nil, "tree %x\n%sauthor a <a@example.org> 1700000000 +0000\ncommitter a <a@example.org> 1700000000 +0000\n\nCrafted\n", tree, parent))
	commit := fmt.Sprintf("%x", id)
	_, err := b.repo.Git("update-ref", "refs/heads/main", commit)
	require.NoError(b, err)
	return commit
}

// staysWith checks that a poll changes nothing: no snapshot, nothing on disk beside the last good revision.
func (b *bed) staysWith(s *source.Source, rev source.Revision) error {
	b.Helper()
	_, changed, err := s.Poll(b.Context())
	require.Error(b, err)
	require.False(b, changed)
	current, ok := s.Current()
	require.True(b, ok)
	require.Equal(b, rev, current)
	list, err2 := os.ReadDir(filepath.Join(b.dir, "snapshots"))
	require.NoError(b, err2)
	require.Len(b, list, 1, "nothing half-written is left")
	return err
}

func TestRefusedTrees(t *testing.T) {
	for name, test := range map[string]struct {
		tree         func(b *bed, file [20]byte) []byte
		path, reason string
	}{
		"name ../x": {func(_ *bed, f [20]byte) []byte { return entry("100644", "../x", f) }, "../x", "slash"},
		"name /abs": {func(_ *bed, f [20]byte) []byte { return entry("100644", "/abs", f) }, "/abs", "slash"},
		"name a/b":  {func(_ *bed, f [20]byte) []byte { return entry("100644", "a/b", f) }, "a/b", "slash"},
		"name ..":   {func(_ *bed, f [20]byte) []byte { return entry("100644", "..", f) }, "..", "leads out"},
		"name .":    {func(_ *bed, f [20]byte) []byte { return entry("100644", ".", f) }, ".", "leads out"},
		"folder ..": {func(b *bed, f [20]byte) []byte {
			return entry("40000", "..", b.object("tree", entry("100644", "x", f)))
		}, "..", "leads out"},
		"backslash":              {func(_ *bed, f [20]byte) []byte { return entry("100644", `..\x`, f) }, `..\\x`, "backslash"},
		"newline":                {func(_ *bed, f [20]byte) []byte { return entry("100644", "a\nb", f) }, `a\nb`, "control"},
		"escape sequence":        {func(_ *bed, f [20]byte) []byte { return entry("100644", "a\x1b[2J", f) }, `a\x1b[2J`, "control"},
		"right-to-left override": {func(_ *bed, f [20]byte) []byte { return entry("100644", "a\u202egnp.exe", f) }, `a\u202egnp.exe`, "invisible"},
		"not UTF-8":              {func(_ *bed, f [20]byte) []byte { return entry("100644", "a\xff", f) }, `a\xff`, "UTF-8"},
		".git": {func(b *bed, f [20]byte) []byte {
			return entry("40000", ".git", b.object("tree", entry("100644", "config", f)))
		}, ".git", "Git's own"},
		".GIT":           {func(_ *bed, f [20]byte) []byte { return entry("100644", ".GIT", f) }, ".GIT", "Git's own"},
		"long name":      {func(_ *bed, f [20]byte) []byte { return entry("100644", strings.Repeat("n", 256), f) }, "", "255 bytes"},
		"one name twice": {func(_ *bed, f [20]byte) []byte { return append(entry("100644", "a", f), entry("100644", "a", f)...) }, "a", "one name twice"},
		"file and folder of one name": {func(b *bed, f [20]byte) []byte {
			return append(entry("100644", "a", f), entry("40000", "a", b.object("tree", entry("100644", "x", f)))...)
		}, "a", "one name twice"},
		"out of order": {func(_ *bed, f [20]byte) []byte { return append(entry("100644", "b", f), entry("100644", "a", f)...) }, "a", "not in order"},
		"equal but for case": {func(_ *bed, f [20]byte) []byte {
			return append(entry("100644", "README", f), entry("100644", "readme", f)...)
		}, "readme", "only in case"},
		"1,001 links": {func(b *bed, f [20]byte) []byte {
			tree := entry("100644", "a", f)
			target := b.object("blob", []byte("a"))
			for n := range 1001 {
				tree = append(tree, entry("120000", fmt.Sprintf("l%04d", n), target)...)
			}
			return tree
		}, "", "1000 links"},
		"submodule":          {func(_ *bed, f [20]byte) []byte { return entry("160000", "sub", f) }, "sub", "submodule"},
		"unknown mode":       {func(_ *bed, f [20]byte) []byte { return entry("100600", "a", f) }, "a", "mode"},
		"device":             {func(_ *bed, f [20]byte) []byte { return entry("60000", "a", f) }, "a", "mode"},
		"link out":           {func(b *bed, _ [20]byte) []byte { return entry("120000", "l", b.object("blob", []byte("../outside"))) }, "l", "leaves the tree"},
		"link to the system": {func(b *bed, _ [20]byte) []byte { return entry("120000", "l", b.object("blob", []byte("/etc/passwd"))) }, "l", "leaves the tree"},
		"link to nothing":    {func(b *bed, _ [20]byte) []byte { return entry("120000", "l", b.object("blob", []byte("nothing"))) }, "l", "nothing in the tree"},
		"link to itself":     {func(b *bed, _ [20]byte) []byte { return entry("120000", "l", b.object("blob", []byte("l"))) }, "l", "circle"},
		"link to its folder": {func(b *bed, _ [20]byte) []byte { return entry("120000", "l", b.object("blob", []byte("."))) }, "l", "around itself"},
		"links in a circle": {func(b *bed, f [20]byte) []byte {
			dir := func(to string) [20]byte {
				return b.object("tree", append(entry("100644", "f", f), entry("120000", "l", b.object("blob", []byte(to)))...))
			}
			return append(entry("40000", "a", dir("../b")), entry("40000", "b", dir("../a"))...)
		}, "a/l", "holds links"},
		"link over a link out": {func(b *bed, _ [20]byte) []byte {
			return append(entry("120000", "a", b.object("blob", []byte("b/x"))), entry("120000", "b", b.object("blob", []byte("..")))...)
		}, "a", "leaves the tree"},
		"large file": {func(b *bed, _ [20]byte) []byte {
			return entry("100644", "large.bin", b.object("blob", make([]byte, 4<<20+1)))
		}, "large.bin", "4194305 bytes"},
		"large tree": {func(b *bed, _ [20]byte) []byte {
			id, tree := b.object("blob", make([]byte, 4<<20)), []byte(nil)
			for i := range 17 {
				tree = append(tree, entry("100644", fmt.Sprintf("f%02d", i), id)...)
			}
			return tree
		}, "", "67108864 bytes"},
		"deep tree": {func(b *bed, f [20]byte) []byte {
			tree := entry("100644", "f", f)
			for range 40 {
				tree = entry("40000", "d", b.object("tree", tree))
			}
			return tree
		}, "d/d/d/d", "32 deep"},
		"10^8 paths": {func(b *bed, f [20]byte) []byte {
			id, mode, tree := f, "100644", []byte(nil)
			for range 8 {
				tree = nil
				for i := range 10 {
					tree = append(tree, entry(mode, fmt.Sprint(i), id)...)
				}
				id, mode = b.object("tree", tree), "40000"
			}
			return tree
		}, "", "20000 files"},
		"20,000 empty folders": {func(b *bed, _ [20]byte) []byte {
			id, tree := b.object("tree", nil), []byte(nil)
			for i := range 20_001 {
				tree = append(tree, entry("40000", fmt.Sprintf("%05d", i), id)...)
			}
			return tree
		}, "", "20000 files"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.commit("Good", gitserver.Files{"fleet.yaml": "a: 1\n"})
			s := b.open()
			good := b.accepted(s)
			head := b.commitTree(b.object("tree", test.tree(b, b.object("blob", []byte("x")))))
			start := time.Now()
			err := b.staysWith(s, good)
			require.Less(t, time.Since(start), 5*time.Second)
			var refused *source.TreeError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, head, refused.Commit)
			require.Contains(t, refused.Path, test.path)
			require.Contains(t, refused.Reason, test.reason)
			require.Equal(t, source.BadTree, s.State().Problem)
			b.server.ResetRequests()
			require.ErrorAs(t, b.staysWith(s, good), &refused)
			require.Len(t, b.server.Requests(), 1, "it is not fetched again")

			b.repo.Commit(t, "fixed", "Fix", gitserver.Files{"fleet.yaml": "a: 2\n"})
			tree, err := b.repo.Git("rev-parse", "fixed^{tree}")
			require.NoError(t, err)
			raw, err := hex.DecodeString(tree)
			require.NoError(t, err)
			fix := b.commitTree([20]byte(raw))
			require.Equal(t, fix, b.accepted(s).Commit, "a later good revision is taken")
		})
	}
}

func TestEmptyTreeIsNoRemoval(t *testing.T) {
	b := newBed(t)
	b.commit("Good", gitserver.Files{"fleet.yaml": "a: 1\n"})
	s := b.open()
	good := b.accepted(s)
	for _, tree := range [][20]byte{b.object("tree", nil), b.object("tree", entry("40000", "instances", b.object("tree", nil)))} {
		b.commitTree(tree)
		require.ErrorAs(t, b.staysWith(s, good), new(*source.EmptyTreeError))
		require.Equal(t, source.EmptyTree, s.State().Problem)
	}
}

func TestUnreadableTree(t *testing.T) {
	for name, tree := range map[string]func(*bed) [20]byte{
		"malformed":       func(b *bed) [20]byte { return b.object("tree", []byte("100644 cut\x00abc")) },
		"no mode":         func(b *bed) [20]byte { return b.object("tree", []byte("nonsense")) },
		"a file as tree":  func(b *bed) [20]byte { return b.object("blob", []byte("file")) },
		"empty name":      func(b *bed) [20]byte { return b.object("tree", entry("100644", "", [20]byte{})) },
		"malformed below": func(b *bed) [20]byte { return b.object("tree", entry("40000", "d", b.object("tree", []byte("x")))) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.commit("Good", gitserver.Files{"fleet.yaml": "a: 1\n"})
			s := b.open()
			good := b.accepted(s)
			b.commitTree(tree(b))
			require.Error(t, b.staysWith(s, good))
			require.NotEqual(t, source.None, s.State().Problem)
			require.NotEqual(t, source.EmptyTree, s.State().Problem)
		})
	}
}

func TestObjectsThatTheServerLost(t *testing.T) {
	b := newBed(t)
	b.commit("Good", gitserver.Files{"fleet.yaml": "a: 1\n"})
	s := b.open()
	good := b.accepted(s)
	b.commitTree(b.object("tree", entry("100644", "gone", [20]byte{1, 2, 3})))
	require.Error(t, b.staysWith(s, good))
	require.NotEqual(t, source.None, s.State().Problem)
}

func TestPackThatInflatesToAGigabyte(t *testing.T) {
	b := newBed(t)
	b.commit("Good", gitserver.Files{"fleet.yaml": "a: 1\n"})
	s := b.open()
	good := b.accepted(s)
	b.bomb(1024)
	var err error
	grew, took := heap.Peak(func() { err = b.staysWith(s, good) })
	t.Logf("grew by %d MiB in %s: %v", grew>>20, took, err)
	require.Equal(t, source.TooLarge, s.State().Problem)
	require.Contains(t, s.State().Message, "Let the server leave out what is not asked for (uploadpack.allowFilter), or take")
	require.Less(t, grew, uint64(32<<20))
	require.Less(t, took, 20*time.Second)
	b.server.ResetRequests()
	require.Error(t, b.staysWith(s, good))
	require.Len(t, b.server.Requests(), 1, "it is not fetched again at once")
}

// bomb commits a file of zeros of so many MiB. Its compressed form is put together from one compressed MiB, again and again.
func (b *bed) bomb(mebibytes int) {
	b.Helper()
	zeros := make([]byte, 1<<20)
	head := fmt.Appendf(nil, "blob %d\x00", mebibytes<<20)
	hash := sha1.New()
	hash.Write(head)

	var raw bytes.Buffer
	w, err := flate.NewWriter(&raw, flate.BestCompression)
	require.NoError(b, err)
	flush := func(p []byte) []byte {
		at := raw.Len()
		_, err := w.Write(p)
		require.NoError(b, err)
		require.NoError(b, w.Flush()) // ends at a byte's border
		return raw.Bytes()[at:]
	}
	path := filepath.Join(b.TempDir(), "bomb")
	f, err := os.Create(path)
	require.NoError(b, err)
	out := bufio.NewWriter(f)
	put := func(p []byte) {
		_, err := out.Write(p)
		require.NoError(b, err)
	}
	put([]byte{0x78, 0x9c})
	put(flush(head))
	put(flush(zeros))
	hash.Write(zeros)
	again := bytes.Clone(flush(zeros))
	for range mebibytes - 1 {
		hash.Write(zeros)
		put(again)
	}
	put([]byte{0x03, 0x00}) // the last block, empty
	sum := adler32.Checksum(head)
	low, high := uint64(sum&0xffff), uint64(sum>>16)
	high = (high + low*uint64(mebibytes<<20)) % 65521 // what so many zeros do to it
	put(binary.BigEndian.AppendUint32(nil, uint32(high<<16|low)))
	require.NoError(b, out.Flush())
	require.NoError(b, f.Close())

	id := [20]byte(hash.Sum(nil))
	name := fmt.Sprintf("%x", id)
	to := filepath.Join(b.repo.Path, "objects", name[:2], name[2:])
	require.NoError(b, os.MkdirAll(filepath.Dir(to), 0o755))
	require.NoError(b, os.Rename(path, to))
	b.commitTree(b.object("tree", entry("100644", "bomb", id)))
}
