package source

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/stretchr/testify/require"

	"dive-agent/gitremote"
)

// FuzzTree: whatever bytes a tree consists of, a tree that is taken is written inside its folder, and comes back from the
// disk as the tree that it was.
func FuzzTree(f *testing.F) {
	blob := plumbing.ComputeHash(plumbing.BlobObject, []byte("content"))
	link := plumbing.ComputeHash(plumbing.BlobObject, []byte("a"))
	add := func(parts ...string) { f.Add([]byte(strings.Join(parts, ""))) }
	add("100644 a\x00", string(blob[:]))
	add("100644 a\x00", string(blob[:]), "120000 b\x00", string(link[:]))
	add("100755 a.sh\x00", string(blob[:]), "100644 ../x\x00", string(blob[:]))
	add("40000 d\x00", string(blob[:]))
	add("160000 s\x00", string(blob[:]))
	add("100644 /etc/x\x00", string(blob[:]))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		o := gitremote.NewObjects()
		o.Put(plumbing.BlobObject, []byte("content"))
		o.Put(plumbing.BlobObject, []byte("a"))
		root := o.Put(plumbing.TreeObject, raw)
		from := pool{fresh: o}
		limits := Limits{Entries: 100, File: 100, Tree: 1000}.withDefaults()
		tree, err := readTree(strings.Repeat("1", 40), from, root, "", limits)
		if err != nil {
			return
		}
		parent := filepath.Join(dir, "snapshots")
		if _, err := writeSnapshot(parent, "x", tree, from, false); err != nil {
			t.Fatalf("a tree that was taken cannot be written: %v", err)
		}
		if _, err := verify(filepath.Join(parent, "x"), root, limits); err != nil {
			t.Fatalf("what was written is not what was read: %v", err)
		}
	})
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "a b", "Ünïcödé.yaml", "...", "a..b", ".github", ".gitignore", "-rf", "CON", "~", "$(x)"} {
		require.Empty(t, badName(good), good)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "/", `a\b`, "\x00", "a\n", "\x7f", "\u200b", "\ufeff", "\u202e", ".git", ".Git", ".git.", ".git ", ".git::$INDEX_ALLOCATION", "GIT~1", "\xc3\x28", strings.Repeat("a", 256)} {
		require.NotEmpty(t, badName(bad), "%q", bad)
	}
	require.Equal(t, fold("STRASSE"), fold("strasse"))
	require.Equal(t, fold("Ä"), fold("ä"))
	require.Equal(t, fold("\u212a"), fold("k"), "the Kelvin sign is a k for file systems that fold case")
	require.NotEqual(t, fold("a"), fold("b"))
}

func TestLinksThatStayInside(t *testing.T) {
	file := func(name string) *node { return &node{name: name, mode: filemode.Regular} }
	link := func(name, target string) *node { return &node{name: name, mode: filemode.Symlink, target: target} }
	dir := func(name string, children ...*node) *node {
		return &node{name: name, mode: filemode.Dir, children: children}
	}
	root := dir("", dir("a", file("f"), dir("b", link("up", "../f"), link("chain", "up"), link("around", "../../a/./b/../f"))), link("d", "x//y"), dir("x", dir("y", file("g"))))
	r := &treeReader{commit: strings.Repeat("1", 40)}
	require.NoError(t, r.checkLinks(root, nil))
}
