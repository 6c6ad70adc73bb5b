package secrets

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"dive-agent/atomicfile"
	"dive-agent/desired"
)

// render places a secret where containers find it. The folders above it are
// the agent's alone (0700): an engine binds single files from there.
func (s *Store) render(file desired.SecretFile, value []byte) (changed bool, err error) {
	path, err := s.place(file.Path)
	if err != nil {
		return false, err
	}
	mode, err := fileMode(file.Mode)
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, err
	}
	opts := atomicfile.Options{Mode: mode, Owner: &atomicfile.Owner{UID: file.Owner, GID: file.Group}}
	if file.Owner == 0 && file.Group == 0 && os.Geteuid() != 0 {
		opts.Owner = nil // nobody was named, and only root can give files away
	}
	return atomicfile.Write(path, value, opts)
}

// place gives the full path of a rendered file. It stays inside the folder and
// out of the part where values are kept.
func (s *Store) place(path string) (string, error) {
	if !filepath.IsLocal(path) || filepath.Clean(path) == "." {
		return "", fmt.Errorf("the path %q leaves the secrets folder", path)
	}
	first, _, _ := strings.Cut(filepath.Clean(path), string(filepath.Separator))
	if first == ".store" {
		return "", fmt.Errorf("the path %q is where the agent keeps its values", path)
	}
	at := s.dir
	for _, part := range strings.Split(filepath.Dir(filepath.Clean(path)), string(filepath.Separator)) {
		at = filepath.Join(at, part)
		if info, err := os.Lstat(at); err == nil && !info.IsDir() {
			return "", fmt.Errorf("%s is not a folder", at)
		}
	}
	return filepath.Join(s.dir, path), nil
}

func fileMode(text string) (fs.FileMode, error) {
	if text == "" {
		return 0o400, nil
	}
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || mode > 0o777 {
		return 0, fmt.Errorf("%q is no file mode: octal digits up to 0777", text)
	}
	return fs.FileMode(mode), nil
}

// readFile reads a value, a manifest or a key. What is no file, such as a pipe that would never end, and what is larger than any secret is
// an error.
func readFile(path string) ([]byte, error) {
	const limit = 2 << 20 // a value of 1 MiB, encrypted
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}

// closeToOthers takes away what a hand, or a backup that was put back, has opened.
func closeToOthers(path string) error {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	return os.Chmod(path, 0o600)
}
