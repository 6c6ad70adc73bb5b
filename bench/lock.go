package bench

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockMachine keeps two runs apart: their projects and ports have the same names. The lock ends with the process.
func lockMachine() (unlock func(), err error) {
	path := filepath.Join(os.TempDir(), "dive-bench.lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("another benchmark runs on this machine (%s): %w", path, err)
	}
	return func() { _ = file.Close() }, nil
}
