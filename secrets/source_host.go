package secrets

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// lookFile reads a file of the host that its configuration allows: that very path, or one below an allowed folder, which no
// symbolic link on the way may leave.
func (l *looking) lookFile(path string) ([]byte, error) {
	for _, allowed := range l.Files {
		allowed = filepath.Clean(allowed)
		if path == allowed {
			return readSourced(func() (*os.File, error) { return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) })
		}
		below, ok := strings.CutPrefix(path, strings.TrimSuffix(allowed, "/")+"/")
		if !ok {
			continue
		}
		root, err := os.OpenRoot(allowed)
		if err != nil {
			return nil, err
		}
		defer func() { _ = root.Close() }()
		return readSourced(func() (*os.File, error) { return root.OpenFile(below, os.O_RDONLY|syscall.O_NONBLOCK, 0) })
	}
	return nil, &fault{
		text: "this host does not let manifests read it",
		do:   fmt.Sprintf("If it should, add %s, or a folder above it, to secrets.files in the host's agent.yaml", path),
	}
}

// readSourced reads a regular file of a length that a secret may have. What would wait for a writer does not.
func readSourced(open func() (*os.File, error)) ([]byte, error) {
	file, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSourced {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", file.Name(), maxSourced)
	}
	value, err := io.ReadAll(io.LimitReader(file, maxSourced))
	return oneLine(value), err
}

func (l *looking) lookEnv(name string) ([]byte, error) {
	if !slices.Contains(l.Env, name) {
		return nil, &fault{
			text: "this host does not let manifests read it",
			do:   fmt.Sprintf("If it should, add %s to secrets.env in the host's agent.yaml", name),
		}
	}
	value, ok := l.Getenv(name)
	if !ok {
		return nil, &fault{
			text: "it is not set",
			do:   fmt.Sprintf("Set %s in the agent's environment (EnvironmentFile= of its unit) and start the agent anew", name),
		}
	}
	return []byte(value), nil
}

// stamps tells whether one of the files was written, replaced, made or removed.
func stamps(paths ...string) string {
	var b strings.Builder
	for _, path := range paths {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%s -\n", path)
			continue
		}
		fmt.Fprintf(&b, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
	}
	return b.String()
}
