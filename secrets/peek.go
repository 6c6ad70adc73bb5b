package secrets

import (
	"errors"
	"fmt"
	"io/fs"

	"dive-agent/desired"
)

// Peek reads the secrets that exist and makes none, for plans: those that do not exist yet are left out. The
// instance's secrets folder need not exist. missing are those that have to be provided, or were made here and are gone:
// Ensure would end with them.
func Peek(o Options, specs []desired.SecretSpec) (values map[string]desired.Value, missing Problems, err error) {
	e := &ensuring{Store: &Store{instance: o.Instance, dir: o.Dir, keys: o.Keys}}
	if e.manifest, e.known, err = e.readManifest(); err != nil {
		return nil, nil, err
	}
	values = map[string]desired.Value{}
	for _, spec := range specs {
		if err := checkSpec(spec); err != nil {
			return nil, nil, err
		}
		value, err := e.load(e.valuePath(spec.Name))
		if errors.Is(err, fs.ErrNotExist) || (err == nil && len(value) == 0) {
			var resolvable Resolvable
			if errors.As(e.mayMake(spec), &resolvable) {
				missing = append(missing, resolvable)
			}
			continue
		}
		var sealed *SealedError
		if errors.As(err, &sealed) {
			missing = append(missing, sealed)
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
