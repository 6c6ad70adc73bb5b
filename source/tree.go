package source

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
)

// node is a file, link or folder of a tree that was checked.
type node struct {
	name     string
	mode     filemode.FileMode // Regular, Executable, Symlink or Dir
	hash     plumbing.Hash
	size     int64
	target   string  // of a link
	children []*node // of a folder, in Git's order
}

func (n *node) child(name string) *node {
	for _, c := range n.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// objects is where trees and files come from. A *missingError says that one is not there.
type objects interface {
	tree(plumbing.Hash) ([]byte, error)
	// blob gives the size, and the content when it is in memory.
	blob(plumbing.Hash) (int64, []byte, error)
	// link gives the target of a symbolic link.
	link(plumbing.Hash) (string, error)
}

// treeReader reads a tree with its limits. Nothing of a tree is believed: each object is small by the limits of
// the fetch, but the same few can be named a hundred million times.
type treeReader struct {
	commit  string
	from    objects
	limits  Limits
	entries int
	bytes   int64
	links   int
	files   int
}

// readTree reads and checks the tree at a root, below the folder at sub ("" for all of it).
func readTree(commit string, from objects, root plumbing.Hash, sub string, limits Limits) (*node, error) {
	r := &treeReader{commit: commit, from: from, limits: limits}
	for _, part := range splitPath(sub) {
		entries, err := r.parse(root, sub)
		if err != nil {
			return nil, err
		}
		found := plumbing.ZeroHash
		for _, e := range entries {
			if e.name == part && e.mode == filemode.Dir {
				found = e.hash
			}
		}
		if found.IsZero() {
			return nil, &EmptyTreeError{Commit: commit, Path: sub}
		}
		root = found
	}
	top := &node{mode: filemode.Dir, hash: root}
	if err := r.read(top, "", 0); err != nil {
		return nil, err
	}
	if r.links > 0 {
		if err := r.checkLinks(top, nil); err != nil {
			return nil, err
		}
	}
	if r.files == 0 {
		return nil, &EmptyTreeError{Commit: commit, Path: sub}
	}
	return top, nil
}

func splitPath(p string) []string {
	return strings.FieldsFunc(p, func(c rune) bool { return c == '/' })
}

func (r *treeReader) refuse(path, format string, args ...any) error {
	if path != "" {
		path = strings.Trim(strconv.QuoteToGraphic(path), `"`)
		if len(path) > 200 {
			path = strings.ToValidUTF8(path[:200], "") + "..."
		}
	}
	return &TreeError{Commit: r.commit, Path: path, Reason: fmt.Sprintf(format, args...)}
}

// read refuses bad names, and names that differ only in case (they are one file on some disks), before anything of the
// tree is written.
func (r *treeReader) read(dir *node, path string, depth int) error {
	if depth > r.limits.Depth {
		return r.refuse(path, "folders more than %d deep", r.limits.Depth)
	}
	entries, err := r.parse(dir.hash, path)
	if err != nil {
		return err
	}
	if r.entries += len(entries); r.entries > r.limits.Entries {
		return r.refuse("", "more than %d files and folders", r.limits.Entries)
	}
	folded := make(map[string]string, len(entries))
	dir.children = entries
	for _, e := range entries {
		full := join(path, e.name)
		if reason := badName(e.name); reason != "" {
			return r.refuse(full, "%s", reason)
		}
		if len(full) > r.limits.Path {
			return r.refuse(full, "a path of more than %d bytes", r.limits.Path)
		}
		key := fold(e.name)
		if other, ok := folded[key]; ok {
			return r.refuse(full, "differs from %q only in case", other)
		}
		folded[key] = e.name
		if err := r.entry(e, full, depth); err != nil {
			return err
		}
	}
	return nil
}

// entry takes folders, links and files, and counts these against the bounds of one and of all together.
func (r *treeReader) entry(e *node, full string, depth int) error {
	switch e.mode {
	case filemode.Dir:
		return r.read(e, full, depth+1)
	case filemode.Symlink:
		if r.links++; r.links > maxLinks {
			return r.refuse("", "more than %d links", maxLinks)
		}
		var err error
		if e.target, err = r.from.link(e.hash); err != nil {
			return r.unreadable(full, err)
		}
		return nil
	case filemode.Regular, filemode.Executable:
		size, _, err := r.from.blob(e.hash)
		if err != nil {
			return r.unreadable(full, err)
		}
		e.size = size
		r.files++
		if size > r.limits.File {
			return r.refuse(full, "a file of %d bytes; at most %d are allowed", size, r.limits.File)
		}
		if r.bytes += size; r.bytes > r.limits.Tree {
			return r.refuse("", "all files together have more than %d bytes", r.limits.Tree)
		}
		return nil
	case filemode.Submodule:
		return r.refuse(full, "a submodule; put the files into this repository")
	}
	return r.refuse(full, "an entry of mode %o, which is neither file, folder nor link", uint32(e.mode))
}

func (r *treeReader) unreadable(path string, err error) error {
	var missing *missingError
	if errors.As(err, &missing) {
		return err
	}
	return &UnreadableError{Commit: r.commit, Err: fmt.Errorf("%q: %w", path, err)}
}

// parse takes a tree object apart: "<mode> <name>\0<20 bytes of hash>", sorted. The order is checked, since a tree that
// is out of order could hide a second entry of one name.
func (r *treeReader) parse(h plumbing.Hash, path string) ([]*node, error) {
	raw, err := r.from.tree(h)
	if err != nil {
		return nil, r.unreadable(path, err)
	}
	malformed := func(why string) error {
		return &UnreadableError{Commit: r.commit, Err: fmt.Errorf("folder %q is malformed: %s", path, why)}
	}
	var out []*node
	last := ""
	for len(raw) > 0 {
		mode, rest, ok := bytes.Cut(raw, []byte(" "))
		if !ok {
			return nil, malformed("an entry without a name")
		}
		name, rest, ok := bytes.Cut(rest, []byte{0})
		if !ok || len(rest) < 20 {
			return nil, malformed("it ends inside an entry")
		}
		e := &node{name: string(name), hash: plumbing.Hash(rest[:20])}
		if e.mode, ok = parseMode(string(mode)); !ok {
			return nil, r.refuse(join(path, e.name), "an entry of mode %q, which is neither file, folder nor link", clip(mode))
		}
		key := e.name
		if e.mode == filemode.Dir {
			key += "/"
		}
		if len(out) > 0 && (key <= last || e.name == out[len(out)-1].name) {
			return nil, r.refuse(join(path, e.name), "names that are not in order, or one name twice")
		}
		last, raw = key, rest[20:]
		out = append(out, e)
		if len(out) > r.limits.Entries {
			return nil, r.refuse("", "more than %d files and folders", r.limits.Entries)
		}
	}
	return out, nil
}

// parseMode knows the modes that Git writes today. The verification of a snapshot makes the tree anew from
// the files, so spellings that mean the same cannot be let through.
func parseMode(s string) (filemode.FileMode, bool) {
	switch s {
	case "100644":
		return filemode.Regular, true
	case "100755":
		return filemode.Executable, true
	case "120000":
		return filemode.Symlink, true
	case "40000":
		return filemode.Dir, true
	case "160000":
		return filemode.Submodule, true
	}
	return 0, false
}

func clip(b []byte) []byte { return b[:min(len(b), 16)] }

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// badName says what is wrong with a name, "" when nothing is.
func badName(name string) string {
	switch {
	case name == "":
		return "an empty name"
	case name == "." || name == "..":
		return "a name that leads out of its folder"
	case strings.ContainsRune(name, '/'):
		return "a slash in a name"
	case strings.ContainsRune(name, '\\'):
		return "a backslash in a name"
	case len(name) > maxNameBytes:
		return fmt.Sprintf("a name of more than %d bytes", maxNameBytes)
	case !utf8.ValidString(name):
		return "a name that is not UTF-8"
	case isDotGit(name):
		return "a name that stands for Git's own folder"
	}
	for _, c := range name {
		if unicode.IsControl(c) || unicode.Is(unicode.Cf, c) || c == '\u2028' || c == '\u2029' {
			return "a control or invisible character in a name"
		}
	}
	return ""
}

// isDotGit knows .git and the spellings of it that some file systems take for the same.
func isDotGit(name string) bool {
	n := strings.ToLower(strings.TrimRight(name, " ."))
	n, _, _ = strings.Cut(n, ":")
	return n == ".git" || n == "git~1"
}

// fold maps names that differ only in case to one.
func fold(name string) string {
	return strings.Map(func(c rune) rune {
		low := c
		for f := unicode.SimpleFold(c); f != c; f = unicode.SimpleFold(f) {
			low = min(low, f)
		}
		return low
	}, name)
}
