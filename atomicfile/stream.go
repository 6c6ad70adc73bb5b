package atomicfile

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Stream writes a file of any size so that it appears whole or not at all, with mode 0600, and gives its size. fill writes
// the content; when it fails nothing is left. As with Write, the new file survives a power cut when Stream returns nil.
func Stream(path string, fill func(w io.Writer) error) (size int64, err error) {
	dir, name := filepath.Split(path)
	temp, err := os.CreateTemp(dir, "."+name+tempMark+"*")
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			temp.Close()
			os.Remove(temp.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := fill(temp); err != nil {
		return 0, err
	}
	info, err := temp.Stat()
	if err != nil {
		return 0, err
	}
	if err := temp.Sync(); err != nil {
		return 0, err
	}
	if err := temp.Close(); err != nil {
		return 0, err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return 0, err
	}
	return info.Size(), SyncDir(filepath.Clean(dir))
}
