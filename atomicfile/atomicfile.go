// Package atomicfile writes files so that a reader, or a machine that lost its
// power, sees the old content or the new one and never a part. It knows nothing
// of what is in a file.
package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Options say who may read a file.
type Options struct {
	// Mode is the file's permissions; 0 means 0600.
	Mode fs.FileMode
	// Owner is the file's user and group; nil leaves the agent's own.
	Owner *Owner
}

// Owner is a numeric user and group id.
type Owner struct{ UID, GID int }

// Write brings a file to a content, mode and owner and says whether anything
// was changed: "false" means that all three were as asked already.
//
// Another content is written to a temporary file beside it, with mode and
// owner set before the content arrives under its name, synced, renamed, and
// the folder synced: when Write returns nil the new file survives a power cut.
// Mode and owner alone are changed in place, so that a container that has the
// file bound keeps seeing it. A symbolic link at path is replaced, never
// followed. The folder must exist. After an error the old file is as it was.
func Write(path string, content []byte, opts Options) (changed bool, err error) {
	if opts.Mode == 0 {
		opts.Mode = 0o600
	}
	same, err := sameContent(path, content)
	if err != nil {
		return false, err
	}
	if same {
		return adjust(path, opts)
	}
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	temp, err := os.CreateTemp(dir, "."+name+tempMark+"*")
	if err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			temp.Close()
			os.Remove(temp.Name())
		}
	}()
	if err := fill(temp, content, opts); err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	return true, SyncDir(dir)
}

// tempMark is in the name of every temporary file, so that Sweep knows them.
const tempMark = ".writing-"

func fill(f *os.File, content []byte, opts Options) error {
	if _, err := f.Write(content); err != nil {
		return err
	}
	// The owner goes first: chown takes set-user-id bits away.
	if o := opts.Owner; o != nil {
		if err := f.Chown(o.UID, o.GID); err != nil {
			return err
		}
	}
	if err := f.Chmod(opts.Mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// sameContent says whether path is a regular file with this content.
func sameContent(path string, content []byte) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	if info.IsDir() {
		return false, fmt.Errorf("write %s: a folder of that name is there", path)
	}
	if !info.Mode().IsRegular() || info.Size() != int64(len(content)) {
		return false, nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false, fmt.Errorf("read %s to compare: %w", path, err)
	}
	defer f.Close()
	have := make([]byte, len(content))
	if n, err := f.ReadAt(have, 0); n < len(content) {
		return false, fmt.Errorf("read %s to compare: %w", path, err)
	}
	return bytes.Equal(have, content), nil
}

// adjust sets mode and owner where they differ.
func adjust(path string, opts Options) (changed bool, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if o := opts.Owner; o != nil && ok && (int(st.Uid) != o.UID || int(st.Gid) != o.GID) {
		if err := os.Lchown(path, o.UID, o.GID); err != nil {
			return false, fmt.Errorf("hand %s over: %w", path, err)
		}
		changed = true
	}
	if info.Mode().Perm() != opts.Mode.Perm() || changed {
		if err := os.Chmod(path, opts.Mode); err != nil {
			return changed, fmt.Errorf("set the mode of %s: %w", path, err)
		}
		changed = true
	}
	return changed, nil
}

// SyncDir makes renames in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// Sweep removes the temporary files that a Write left in a folder when its
// process was killed. To be called while nothing writes there.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep folder: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && strings.Contains(e.Name(), tempMark) && e.Type().IsRegular() {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("sweep folder: %w", err)
			}
		}
	}
	return nil
}
