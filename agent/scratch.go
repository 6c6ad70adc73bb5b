package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// scratchDir holds the copies that plans beside a running agent are made with, below the state folder: they have what the
// originals have, secrets too.
const scratchDir = "previews"

// borrowed gives the folders of an instance with a copy of the components' folders in place of the real ones, which a
// running agent may be at work in. Nothing is made in the real ones, not even a folder.
func (a *Agent) borrowed(next *assignment) (folders places, remove func() error, err error) {
	folders = placesIn(a.Dir, next.instance.Name, sourceOf(next))
	folders.copyOf = folders.private
	parent := filepath.Join(a.Dir, scratchDir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return folders, nil, fmt.Errorf("cannot make the folder for plans: %w", err)
	}
	if err := sweep(parent); err != nil {
		return folders, nil, err
	}
	if folders.private, err = os.MkdirTemp(parent, fmt.Sprintf("%d-", os.Getpid())); err != nil {
		return folders, nil, fmt.Errorf("cannot make a folder for the plan: %w", err)
	}
	remove = func() error { return os.RemoveAll(folders.private) }
	for _, component := range next.instance.Components {
		if err := copyFolder(filepath.Join(folders.copyOf, component.Name), filepath.Join(folders.private, component.Name)); err != nil {
			return folders, nil, errors.Join(fmt.Errorf("cannot copy the folder of component %s: %w", component.Name, err), remove())
		}
	}
	return folders, remove, nil
}

// sweep removes what plans that were killed left behind.
func sweep(parent string) error {
	left, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	for _, entry := range left {
		number, _, _ := strings.Cut(entry.Name(), "-")
		pid, err := strconv.Atoi(number)
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			if err := os.RemoveAll(filepath.Join(parent, entry.Name())); err != nil {
				return fmt.Errorf("cannot remove what an earlier plan left: %w", err)
			}
		}
	}
	return nil
}

// copyFolder copies a folder that somebody else may be writing in: what goes away meanwhile is left out, and a folder that
// is not there makes an empty one. Programs, which nobody writes in place, are linked.
func copyFolder(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if err := copyEntry(name, filepath.Join(to, rel), entry); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

func copyEntry(from, to string, entry fs.DirEntry) error {
	switch {
	case entry.IsDir():
		return os.MkdirAll(to, 0o700)
	case entry.Type()&fs.ModeSymlink != 0:
		at, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(at, to)
	case !entry.Type().IsRegular():
		return nil
	}
	info, err := entry.Info()
	if err != nil {
		return err
	}
	if info.Mode()&0o111 != 0 && os.Link(from, to) == nil {
		return nil
	}
	return copyFile(from, to, info.Mode().Perm())
}

func copyFile(from, to string, mode fs.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
