package source

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"golang.org/x/sys/unix"

	"dive-agent/gitremote"
)

// stored is a snapshot on disk with what is needed to make the next one from it: its trees in memory, and where the
// content of each file lies.
type stored struct {
	dir   string // absolute
	trees map[plumbing.Hash][]byte
	files map[plumbing.Hash]storedFile
	links map[plumbing.Hash]string
}

// storedFile is a file of a snapshot, as it was when its content was known to be right.
type storedFile struct {
	path  string // in the snapshot
	mode  filemode.FileMode
	size  int64
	mtime int64 // nanoseconds
	ino   uint64
}

func newStored(dir string) *stored {
	return &stored{dir: dir, trees: map[plumbing.Hash][]byte{}, files: map[plumbing.Hash]storedFile{}, links: map[plumbing.Hash]string{}}
}

// untouched says whether a file is still the one that was written.
func (f storedFile) untouched(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == f.size && st.Mtim.Nano() == f.mtime && st.Ino == f.ino
}

// pool finds objects in a fetch first and in the accepted snapshot second.
type pool struct {
	fresh *gitremote.Objects // may be nil
	base  *stored            // may be nil
}

func (p pool) tree(h plumbing.Hash) ([]byte, error) {
	if p.fresh != nil {
		if raw, err := p.fresh.Get(plumbing.TreeObject, h); err == nil {
			return raw, nil
		}
	}
	if p.base != nil {
		if raw, ok := p.base.trees[h]; ok {
			return raw, nil
		}
	}
	return nil, &missingError{h}
}

func (p pool) blob(h plumbing.Hash) (int64, []byte, error) {
	if p.fresh != nil {
		if raw, err := p.fresh.Get(plumbing.BlobObject, h); err == nil {
			return int64(len(raw)), raw, nil
		}
	}
	if p.base != nil {
		if f, ok := p.base.files[h]; ok {
			return f.size, nil, nil
		}
	}
	return 0, nil, &missingError{h}
}

func (p pool) link(h plumbing.Hash) (string, error) {
	if p.fresh != nil {
		if raw, err := p.fresh.Get(plumbing.BlobObject, h); err == nil {
			return string(raw[:min(len(raw), maxLinkTarget+1)]), nil
		}
	}
	if p.base != nil {
		if t, ok := p.base.links[h]; ok {
			return t, nil
		}
	}
	return "", &missingError{h}
}

// errAltered says that a snapshot on disk is not what it was.
var errAltered = errors.New("the snapshot on disk was altered")

// verify reads a snapshot from disk, makes its trees anew from its files, and compares the root with the tree that it
// should be. What it returns is therefore known to be right.
func verify(dir string, tree plumbing.Hash, limits Limits) (*stored, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	v := &verifier{out: newStored(dir), limits: limits}
	got, err := v.dir(root, "", 0)
	if err != nil {
		return nil, err
	}
	if got != tree {
		return nil, fmt.Errorf("%w: %s holds tree %s instead of %s", errAltered, dir, gitremote.Short(got.String()), gitremote.Short(tree.String()))
	}
	return v.out, nil
}

type verifier struct {
	out     *stored
	limits  Limits
	entries int
}

// dir computes the tree's id from what lies on the disk, so that any alteration below it shows in the id. Bounds hold here
// too: whoever can write in the folder must not make the agent read without end.
func (v *verifier) dir(root *os.Root, path string, depth int) (plumbing.Hash, error) {
	if depth > v.limits.Depth {
		return plumbing.ZeroHash, errAltered
	}
	f, err := root.Open(".")
	if err != nil {
		return plumbing.ZeroHash, err
	}
	defer f.Close()
	list, err := f.ReadDir(v.limits.Entries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return plumbing.ZeroHash, err
	}
	if v.entries += len(list); v.entries > v.limits.Entries {
		return plumbing.ZeroHash, fmt.Errorf("%w: too many files", errAltered)
	}
	nodes := make([]*node, 0, len(list))
	for _, d := range list {
		n, err := v.entry(root, join(path, d.Name()), d, depth)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		nodes = append(nodes, n)
	}
	raw := encodeTree(nodes)
	h := plumbing.ComputeHash(plumbing.TreeObject, raw)
	v.out.trees[h] = raw
	return h, nil
}

func (v *verifier) entry(root *os.Root, path string, d os.DirEntry, depth int) (*node, error) {
	n := &node{name: d.Name()}
	var err error
	switch {
	case d.IsDir():
		n.mode = filemode.Dir
		sub, err := root.OpenRoot(n.name)
		if err != nil {
			return nil, err
		}
		defer sub.Close()
		n.hash, err = v.dir(sub, path, depth+1)
		return n, err
	case d.Type()&os.ModeSymlink != 0:
		n.mode = filemode.Symlink
		if n.target, err = root.Readlink(n.name); err != nil {
			return nil, err
		}
		n.hash = plumbing.ComputeHash(plumbing.BlobObject, []byte(n.target))
		v.out.links[n.hash] = n.target
		return n, nil
	case d.Type().IsRegular():
		return n, v.file(root, n, path)
	}
	return nil, fmt.Errorf("%w: %s is neither file, folder nor link", errAltered, path)
}

func (v *verifier) file(root *os.Root, n *node, path string) error {
	f, err := root.Open(n.name)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Size > v.limits.File {
		return fmt.Errorf("%w: %s is too large", errAltered, path)
	}
	content, err := io.ReadAll(io.LimitReader(f, v.limits.File+1))
	if err != nil {
		return err
	}
	n.mode = filemode.Regular
	if st.Mode&0o100 != 0 {
		n.mode = filemode.Executable
	}
	n.hash = plumbing.ComputeHash(plumbing.BlobObject, content)
	v.out.files[n.hash] = storedFile{path: path, mode: n.mode, size: st.Size, mtime: st.Mtim.Nano(), ino: st.Ino}
	return nil
}

// encodeTree writes a tree object: the names in Git's order, a folder sorted as if its name ended with a slash.
func encodeTree(nodes []*node) []byte {
	key := func(n *node) string {
		if n.mode == filemode.Dir {
			return n.name + "/"
		}
		return n.name
	}
	sort.Slice(nodes, func(i, j int) bool { return key(nodes[i]) < key(nodes[j]) })
	var raw []byte
	for _, n := range nodes {
		raw = fmt.Appendf(raw, "%o %s\x00", uint32(n.mode), n.name)
		raw = append(raw, n.hash[:]...)
	}
	return raw
}
