package secrets

import (
	"errors"
	"fmt"
	"io/fs"

	"dive-agent/desired"
)

// Peek reads the secrets that exist and makes none, for plans: those that do not exist yet are left out. dir is the
// instance's secrets folder; it need not exist. missing are those that have to be provided, or were made here and are gone:
// Ensure would end with them.
func Peek(instance, dir string, specs []desired.SecretSpec) (values map[string]desired.Value, missing Problems, err error) {
	e := &ensuring{Store: &Store{instance: instance, dir: dir}}
	if e.manifest, e.known, err = e.readManifest(); err != nil {
		return nil, nil, err
	}
	values = map[string]desired.Value{}
	for _, spec := range specs {
		if err := checkSpec(spec); err != nil {
			return nil, nil, err
		}
		value, err := readFile(e.valuePath(spec.Name))
		if errors.Is(err, fs.ErrNotExist) || (err == nil && len(value) == 0) {
			var resolvable Resolvable
			if errors.As(e.mayMake(spec), &resolvable) {
				missing = append(missing, resolvable)
			}
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read secret %s: %w", spec.Name, err)
		}
		if err := e.give(values, spec, value); err != nil {
			return nil, nil, err
		}
	}
	return values, missing, nil
}
