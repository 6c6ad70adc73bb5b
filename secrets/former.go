package secrets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"dive-agent/desired"
)

// maxFormer is how many former values of one secret wait to be forgotten. One more is refused: the one that is in use
// may be any of them.
const maxFormer = 8

// FormerError says that a secret was replaced as often as former values are kept.
type FormerError struct {
	Instance string
	Name     string
}

func (e *FormerError) Error() string {
	return fmt.Sprintf("secret %s of %s was replaced %d times, and no value was taken into use since: see dive-agent status %s",
		e.Name, e.Instance, maxFormer, e.Instance)
}

func (s *Store) formerDir() string { return filepath.Join(s.storeDir(), "former") }

// readFormer gives the values that a secret had before the present one and that were not forgotten yet, newest first.
func (s *Store) readFormer(name string) (values [][]byte, err error) {
	raw, err := s.load(filepath.Join(s.formerDir(), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &values)
	}
	if err != nil {
		return nil, fmt.Errorf("read the former values of secret %s of %s: %w", name, s.instance, err)
	}
	return values, nil
}

// retire keeps the value that is to be replaced, durably before it is. Under the lock.
func (s *Store) retire(name string, next []byte) error {
	present, err := s.read(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (len(present) == 0 || bytes.Equal(present, next)) {
		return nil
	}
	if err != nil {
		return err
	}
	values, err := s.readFormer(name)
	if err != nil {
		return err
	}
	values = slices.DeleteFunc(values, func(v []byte) bool { return bytes.Equal(v, present) })
	if len(values) >= maxFormer {
		return &FormerError{Instance: s.instance, Name: name}
	}
	raw, err := json.Marshal(append([][]byte{present}, values...))
	if err != nil {
		return err
	}
	if err := s.put(filepath.Join(s.formerDir(), name), raw); err != nil {
		return fmt.Errorf("keep the former value of secret %s of %s: %w", name, s.instance, err)
	}
	return nil
}

// Former gives the former values of secrets that were not forgotten yet, newest first. The instance's secrets folder need not
// exist.
func Former(o Options, specs []desired.SecretSpec) (map[string][]desired.Value, error) {
	s := &Store{instance: o.Instance, dir: o.Dir, keys: o.Keys}
	former := map[string][]desired.Value{}
	for _, spec := range specs {
		if err := checkSpec(spec); err != nil {
			return nil, err
		}
		values, err := s.readFormer(spec.Name)
		if err != nil {
			return nil, err
		}
		for _, value := range values {
			former[spec.Name] = append(former[spec.Name], desired.Secret(string(value)))
		}
	}
	return former, nil
}
