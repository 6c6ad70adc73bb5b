package secrets

import (
	"os"
	"path/filepath"

	"dive-agent/atomicfile"
)

// placeOf is what an encrypted value is bound to: put under another name, or into another instance, it does not open.
func (s *Store) placeOf(path string) string {
	return s.instance + "\n" + filepath.Base(filepath.Dir(path)) + "\n" + filepath.Base(path)
}

// load reads a file of the store and opens it. The error is an fs.ErrNotExist when there is none.
func (s *Store) load(path string) ([]byte, error) {
	content, err := readFile(path)
	if err != nil {
		return nil, err
	}
	value, _, err := s.keys.open(path, s.placeOf(path), content)
	return value, err
}

// put encrypts a value and writes it, durably before it returns.
func (s *Store) put(path string, value []byte) error {
	sealed, err := s.keys.seal(s.placeOf(path), value)
	if err != nil {
		return err
	}
	_, err = atomicfile.Write(path, sealed, atomicfile.Options{})
	return err
}

// encryptAll encrypts what an older agent, a backup or a hand left plain, and what another key of the host encrypted: present
// and former values, declared or not. Each file is replaced as a whole, and both forms are read: a crash at any point loses
// nothing, and the next call goes on. Under the lock.
func (s *Store) encryptAll() error {
	if s.keys == nil {
		return nil
	}
	for _, dir := range []string{s.valuesDir(), s.formerDir()} {
		files, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, file := range files {
			path := filepath.Join(dir, file.Name())
			if !file.Type().IsRegular() || !validName.MatchString(file.Name()) {
				continue
			}
			content, err := readFile(path)
			if err != nil || len(content) == 0 {
				continue // who needs it tells of it
			}
			value, current, err := s.keys.open(path, s.placeOf(path), content)
			if err != nil || current {
				continue
			}
			if err := s.put(path, value); err != nil {
				return err
			}
		}
	}
	return nil
}
