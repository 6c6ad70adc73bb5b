package desired

import (
	"bytes"
	"io/fs"
	"path"
	"time"
)

// textFile is a file that is in memory.
type textFile struct {
	*bytes.Reader
	file File
}

func openText(f File) (fs.File, error) { return &textFile{bytes.NewReader(f.Text), f}, nil }

func (t *textFile) Stat() (fs.FileInfo, error) { return t, nil }
func (t *textFile) Close() error               { return nil }

func (t *textFile) Name() string       { return path.Base(t.file.Path) }
func (t *textFile) Size() int64        { return int64(len(t.file.Text)) }
func (t *textFile) Mode() fs.FileMode  { return 0o644 }
func (t *textFile) ModTime() time.Time { return time.Time{} }
func (t *textFile) IsDir() bool        { return false }
func (t *textFile) Sys() any           { return nil }
