package secrets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"dive-agent/desired"
)

// Set keeps a value that an operator gives: of a provided secret, or of one that was made elsewhere and belongs to data that
// exists. The next Ensure uses it. What was there before is replaced, and kept as a former value until Forget. The line break
// that ends a single line is not part of the value: editors and echo put it there. A key that servers share is given to them
// beside the former one at first, see bothKeys; so is an authority, see bothAuthorities.
func (s *Store) Set(ctx context.Context, name string, value []byte) error {
	value = oneLine(value)
	if err := checkName(name); err != nil {
		return err
	}
	if len(value) < minHidden {
		return fmt.Errorf("secret %s of %s: a value of %d bytes is too short to be kept out of logs; at least %d", name, s.instance, len(value), minHidden)
	}
	return s.change(ctx, func(e *ensuring) error { return e.replace(name, value) })
}

// Rotate makes a new value for a secret that was made here, as it was made, and keeps it as Set does.
func (s *Store) Rotate(ctx context.Context, spec desired.SecretSpec) error {
	if err := checkSpec(spec); err != nil {
		return err
	}
	switch {
	case isIssued(spec):
		return fmt.Errorf("secret %s of %s is a certificate: it is made anew in time, and when its authority or its names change", spec.Name, s.instance)
	case spec.Source != nil:
		return fmt.Errorf("secret %s of %s comes from %s: change it there, and the agent takes the new value at its next look", spec.Name, s.instance, spec.Source)
	case spec.Provide:
		return fmt.Errorf("secret %s of %s is provided: give the new value with %s", spec.Name, s.instance, setCommand(s.instance, spec.Name))
	}
	return s.change(ctx, func(e *ensuring) error {
		present, err := e.read(spec.Name)
		known, ok := e.manifest.Secrets[spec.Name]
		switch {
		case errors.Is(err, fs.ErrNotExist) && !ok:
			return fmt.Errorf("secret %s of %s was not made yet: there is nothing to rotate", spec.Name, s.instance)
		case errors.Is(err, fs.ErrNotExist):
			return e.mayMake(spec)
		case err != nil:
			return err
		case ok && known.Fingerprint != "" && !known.is(fingerprint(e.key, spec.Name, present)):
			return &ChangedError{Instance: s.instance, Name: spec.Name, Path: e.valuePath(spec.Name)}
		}
		value, err := e.generate(spec)
		if err != nil {
			return err
		}
		known.Kind, known.Keyfile = kindOf(spec), spec.Keyfile
		e.manifest.Secrets[spec.Name] = known
		return e.replace(spec.Name, value)
	})
}

// Forget removes the former values of the named secrets, as their present ones are in use everywhere. A secret that has
// another value by now than the one given keeps them. A key file that all have with both keys loses the former one instead,
// an authority goes on to its next step: those are named, and are yet to be taken into use.
func (s *Store) Forget(ctx context.Context, inUse map[string]desired.Value) (goOn []string, err error) {
	err = s.change(ctx, func(e *ensuring) error {
		for name, value := range inUse {
			if err := checkName(name); err != nil {
				return err
			}
			present, err := s.load(s.valuePath(name))
			known := e.manifest.Secrets[name]
			if err != nil || string(seenOf(known.Kind, present)) != value.Text() {
				continue
			}
			former, err := s.readFormer(name)
			if err != nil {
				return err
			}
			next := newKey(known, present, former)
			if next == nil {
				next = nextAuthority(known, present, former)
			}
			if next != nil {
				if err := e.swap(name, next); err != nil {
					return err
				}
				goOn = append(goOn, name)
				continue
			}
			if err := os.Remove(filepath.Join(s.formerDir(), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("forget the former value of secret %s of %s: %w", name, s.instance, err)
			}
		}
		return nil
	})
	return goOn, err
}

// change does something to the values under the lock.
func (s *Store) change(ctx context.Context, do func(e *ensuring) error) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e := &ensuring{Store: s, ctx: ctx, values: map[string][]byte{}}
	if err := e.prepare(); err != nil {
		return err
	}
	return do(e)
}

// replace puts a value in the present one's place, or what brings it there.
func (e *ensuring) replace(name string, value []byte) error {
	known := e.manifest.Secrets[name]
	if !known.Keyfile && known.Kind != desired.AuthorityKind {
		return e.swap(name, value)
	}
	present, err := e.read(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	both := e.bothAuthorities
	if known.Keyfile {
		both = e.bothKeys
	}
	if value, err = both(name, present, value); err != nil {
		return err
	}
	return e.swap(name, value)
}

// swap keeps the present value as a former one and puts another in its place. After a crash at any point Ensure takes the one
// that is there.
func (e *ensuring) swap(name string, value []byte) error {
	known, ok := e.manifest.Secrets[name]
	if !ok {
		known.Kind = "provided"
	}
	if err := e.retire(name, value); err != nil {
		return err
	}
	if e.known && ok {
		known.Next = fingerprint(e.key, name, value)
		e.manifest.Secrets[name] = known
		if err := e.writeManifest(e.manifest); err != nil {
			return err
		}
	}
	if err := e.keep(name, known.Kind, value); err != nil {
		return err
	}
	if !e.known {
		// A manifest would say that all other secrets are new ones; while
		// there is none, the value alone is kept, and Ensure adopts it.
		return nil
	}
	return e.writeManifest(e.manifest)
}

// is says whether a value's fingerprint is that of the secret, or of the one that is about to be.
func (m entry) is(fingerprint string) bool {
	return m.Fingerprint == fingerprint || m.Next == fingerprint
}
