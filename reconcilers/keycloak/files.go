package keycloak

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"dive-agent/atomicfile"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// write brings a file of the component's folder to a content, whole, 0600.
func write(name string, data []byte) error {
	_, err := atomicfile.Write(name, data, atomicfile.Options{Mode: 0o600})
	return err
}

// load reads JSON; a file that is not there leaves v as it is.
func load(name string, v any) error {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func store(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return write(name, data)
}

// removeIfThere removes a file; one that is not there is none to remove.
func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// setAside gives a file or folder a name by which nothing finds it any more; what is not there stays away. Nothing is removed.
func setAside(name string, now time.Time) error {
	err := os.Rename(name, fmt.Sprintf("%s.lost-%s", name, now.UTC().Format("20060102T150405.000")))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// keyOf gives the folder's own key, made once: digests of secrets are made with it, so that nobody can try values
// against a digest that stands in a status.
func keyOf(dir string, random io.Reader) ([]byte, error) {
	name := filepath.Join(dir, "key")
	key, err := os.ReadFile(name)
	if err == nil && len(key) == 32 {
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if random == nil {
		random = rand.Reader
	}
	key = make([]byte, 32)
	if _, err := io.ReadFull(random, key); err != nil {
		return nil, err
	}
	return key, write(name, key)
}

// digest is a keyed hash of a value's JSON, in which maps are sorted.
func digest(key []byte, v any) (string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(data)
	return hex.EncodeToString(mac.Sum(nil)), nil
}

// walkModule visits the files of a module, by their names in files. Folders that begin with a dot are left out, and so are
// files that are no regular ones.
func walkModule(files fs.FS, folder string, visit func(name string) error) error {
	return fs.WalkDir(files, folder, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != folder && entry.Name()[0] == '.':
			return fs.SkipDir
		case entry.Type().IsRegular():
			return visit(name)
		}
		return nil
	})
}

func fileHash(name string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
