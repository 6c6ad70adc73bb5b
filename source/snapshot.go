package source

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"golang.org/x/sys/unix"
)

const (
	snapshotsDir = "snapshots"
	checkoutsDir = "checkouts"
	tempPrefix   = ".tmp-"

	filePerm = 0o444
	execPerm = 0o555
	dirPerm  = 0o555
)

// writeSnapshot makes the folder parent/name from a checked tree. It appears whole or not at all: everything is
// written into a folder beside it, which is renamed at the end. Files are made with O_EXCL relative to
// their open folder, so no link can lead a write elsewhere (the names of a checked tree are plain names). Files that the base has unchanged are linked from there.
// A folder that is there already is replaced: what it holds was not verified.
func writeSnapshot(parent, name string, tree *node, from pool, durable bool) (*stored, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	all, err := os.Open(parent)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	var r [6]byte
	if _, err := rand.Read(r[:]); err != nil {
		return nil, err
	}
	temp := tempPrefix + name + "-" + hex.EncodeToString(r[:])
	w := &snapshotWriter{from: from, out: newStored(filepath.Join(parent, name)), durable: durable}
	if from.base != nil {
		if w.base, err = os.Open(from.base.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		defer w.base.Close()
	}
	err = w.folder(int(all.Fd()), "", &node{name: temp, hash: tree.hash, children: tree.children})
	if err == nil { // what has the name already was not verified
		err = removeTree(all, name)
	}
	if err == nil {
		err = pathError("rename", temp, unix.Renameat(int(all.Fd()), temp, int(all.Fd()), name))
	}
	if err != nil {
		_ = removeTree(all, temp)
		return nil, fmt.Errorf("writing the snapshot %s: %w", name, err)
	}
	if durable {
		if err := all.Sync(); err != nil {
			return nil, err
		}
	}
	return w.out, nil
}

type snapshotWriter struct {
	from    pool
	base    *os.File // the base's folder; nil when there is none
	out     *stored
	durable bool
}

// fill writes a folder's entries into the open folder fd. The names were checked: each is one plain name.
func (w *snapshotWriter) fill(fd int, path string, dir *node) error {
	raw, err := w.from.tree(dir.hash)
	if err != nil {
		return err
	}
	w.out.trees[dir.hash] = raw
	for _, e := range dir.children {
		full := join(path, e.name)
		switch e.mode {
		case filemode.Dir:
			err = w.folder(fd, full, e)
		case filemode.Symlink:
			w.out.links[e.hash] = e.target
			err = unix.Symlinkat(e.target, fd, e.name)
		default:
			err = w.file(fd, full, e)
		}
		if err != nil {
			var path *os.PathError
			if errors.As(err, &path) || errors.As(err, new(*missingError)) {
				return err
			}
			return &os.PathError{Op: "write", Path: full, Err: err}
		}
	}
	return unix.Fchmod(fd, dirPerm)
}

func (w *snapshotWriter) folder(parent int, path string, e *node) error {
	if err := unix.Mkdirat(parent, e.name, 0o700); err != nil {
		return err
	}
	fd, err := unix.Openat(parent, e.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return w.fill(fd, path, e)
}

// file writes a file, or takes an unchanged one over from the snapshot before, in which case it is neither read nor
// written. It goes through the folder's descriptor and follows no link.
func (w *snapshotWriter) file(dir int, path string, e *node) error {
	_, content, err := w.from.blob(e.hash)
	if err != nil {
		return err
	}
	if content == nil && e.size > 0 {
		if w.link(dir, path, e) {
			return nil
		}
		if content, err = w.read(e.hash); err != nil {
			return err
		}
	}
	perm := os.FileMode(filePerm)
	if e.mode == filemode.Executable {
		perm = execPerm
	}
	fd, err := unix.Openat(dir, e.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(perm))
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil { // the umask may have taken something
		return err
	}
	if w.durable {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	w.out.files[e.hash] = storedFile{path: path, mode: e.mode, size: st.Size, mtime: st.Mtim.Nano(), ino: st.Ino}
	return nil
}

// link takes an unchanged file over. False means that it has to be written: it was altered, lies on another file system, or
// has too many links.
func (w *snapshotWriter) link(dir int, path string, e *node) bool {
	old, ok := w.from.base.files[e.hash]
	if !ok || w.base == nil || old.mode != e.mode {
		return false
	}
	var st unix.Stat_t
	if unix.Fstatat(int(w.base.Fd()), old.path, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || !old.untouched(&st) {
		return false
	}
	if unix.Linkat(int(w.base.Fd()), old.path, dir, e.name, 0) != nil {
		return false
	}
	old.path = path
	w.out.files[e.hash] = old
	return true
}

// read reads a file of the base and checks that it is still what it was.
func (w *snapshotWriter) read(h plumbing.Hash) ([]byte, error) {
	old, ok := w.from.base.files[h]
	if !ok || w.base == nil {
		return nil, &missingError{h}
	}
	root, err := os.OpenRoot(w.from.base.dir)
	if err != nil {
		return nil, &missingError{h}
	}
	defer root.Close()
	f, err := root.Open(old.path)
	if err != nil {
		return nil, &missingError{h}
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, old.size+1))
	if err != nil || plumbing.ComputeHash(plumbing.BlobObject, content) != h {
		return nil, &missingError{h}
	}
	return content, nil
}

// removeTree removes what is called name in the open folder dir, with all that is in it. Snapshots' folders are read-only, so
// they are made writable on the way. It follows no link. What is not there is no error.
func removeTree(dir *os.File, name string) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return pathError("remove", name, unix.Unlinkat(int(dir.Fd()), name, 0))
	case err != nil:
		return pathError("open", name, err)
	}
	sub := os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name))
	defer sub.Close()
	_ = unix.Fchmod(fd, 0o700) // if it fails, so will the removals
	list, err := sub.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, d := range list {
		if d.IsDir() {
			err = removeTree(sub, d.Name())
		} else {
			err = pathError("remove", filepath.Join(name, d.Name()), unix.Unlinkat(fd, d.Name(), 0))
		}
		if err != nil {
			return err
		}
	}
	return pathError("remove", name, unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR))
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// removeAllBut removes the folders in dir that are not to be kept.
func removeAllBut(dir string, keep func(os.DirEntry) bool) error {
	all, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer all.Close()
	list, err := all.ReadDir(-1)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range list {
		if !d.IsDir() || keep(d) {
			continue
		}
		if err := removeTree(all, d.Name()); err != nil {
			errs = append(errs, fmt.Errorf("removing the snapshot %s: %w", d.Name(), err))
		}
	}
	return errors.Join(errs...)
}
