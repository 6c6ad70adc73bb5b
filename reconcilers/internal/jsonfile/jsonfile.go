// Package jsonfile keeps what a reconciler remembers of a component, as one JSON file in its private folder, mode 0600. It
// is for what can be had again: a file that cannot be read as JSON is put aside, and as good as none.
package jsonfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"dive-agent/atomicfile"
)

// Read gives what the file holds; the zero value where there is none, or where it was put aside beside itself as
// "<file>.corrupt". doing begins the error of a file that cannot be read: "read what was granted".
func Read[T any](file, doing string) (T, error) {
	var none, kept T
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, fmt.Errorf("%s: %w", doing, err)
	}
	if json.Unmarshal(data, &kept) == nil {
		return kept, nil
	}
	if err := os.Rename(file, file+".corrupt"); err != nil {
		return none, fmt.Errorf("put %s aside, which is no JSON: %w", file, err)
	}
	return none, nil
}

// Write replaces the file, whole or not at all. doing begins the error.
func Write(file, doing string, content any) error {
	data, err := json.MarshalIndent(content, "", "  ")
	if err == nil {
		_, err = atomicfile.Write(file, append(data, '\n'), atomicfile.Options{Mode: 0o600})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}
