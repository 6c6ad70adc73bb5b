package secrets

import (
	"errors"
	"fmt"
	"io/fs"

	"dive-agent/desired"
)

// Peek reads the secrets that exist and makes none, for plans: those that do not exist yet are left out. dir is the
// instance's secrets folder; it need not exist.
func Peek(dir string, specs []desired.SecretSpec) (map[string]desired.Value, error) {
	s := &Store{dir: dir}
	values := map[string]desired.Value{}
	for _, spec := range specs {
		if err := checkSpec(spec); err != nil {
			return nil, err
		}
		value, err := readFile(s.valuePath(spec.Name))
		if errors.Is(err, fs.ErrNotExist) || (err == nil && len(value) == 0) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read secret %s: %w", spec.Name, err)
		}
		if err := s.give(values, spec, value); err != nil {
			return nil, err
		}
	}
	return values, nil
}
