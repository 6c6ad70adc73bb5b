package secrets

import (
	"bytes"
	"fmt"
	"slices"

	"dive-agent/desired"
)

// A key that servers share is replaced in two steps, each of which they follow one by one: first the file has the former
// key and the new one, then the new one alone. What the present value and the former ones are tells the step:
//
//	present      former         step
//	[old]                       none
//	[old, new]   [old]          the servers learn the new key
//	[new]        [old, new] ... the servers lose the former one
//	[new]                       none

// bothKeys is what a key file has to hold so that a key takes the present one's place. One at a time: as long as a server
// may run with a file before the present one, a third key would shut it out.
func (e *ensuring) bothKeys(name string, present, value []byte) ([]byte, error) {
	next := desired.KeysOf(string(value))
	if err := desired.CheckKeys(next); err != nil {
		return nil, fmt.Errorf("secret %s of %s is a key that servers share: %w", name, e.instance, err)
	}
	have := desired.KeysOf(string(present))
	if desired.CheckKeys(have) != nil || bytes.Equal(present, value) {
		return value, nil // no server runs with it; or nothing is new
	}
	former, err := e.pending(name, present)
	switch {
	case err != nil:
		return nil, err
	case len(former) > 0 && len(have) > 1 && len(next) == 1 && next[0] == have[0]:
		return value, nil // back to the key that all of them have
	case len(former) > 0:
		return nil, &RotatingError{Instance: e.instance, Name: name, Step: stepOf(have)}
	case len(next) > 1:
		return nil, fmt.Errorf("secret %s of %s: give the new key alone. The servers learn it beside the former one, and that one is taken away by itself", name, e.instance)
	case slices.Contains(have, next[0]):
		return value, nil
	}
	return []byte(desired.KeyfileOf(have[0], next[0])), nil
}

// newKey is what remains of a key file with both keys once all have it; nil when nothing is to be taken away.
func newKey(known entry, present []byte, former [][]byte) []byte {
	keys := desired.KeysOf(string(present))
	if !known.Keyfile || len(keys) != 2 || len(former) == 0 || desired.CheckKeys(keys) != nil {
		return nil
	}
	return []byte(desired.KeyfileOf(keys[1]))
}

// pending gives the former values beside the present one, which is among them after a crash.
func (s *Store) pending(name string, present []byte) ([][]byte, error) {
	former, err := s.readFormer(name)
	return slices.DeleteFunc(former, func(v []byte) bool { return bytes.Equal(v, present) }), err
}

func stepOf(keys []string) string {
	if len(keys) > 1 {
		return "its servers get the new key beside the former one (1 of 2)"
	}
	return "its servers lose the former key (2 of 2)"
}

// replaced says how far a new value is in taking the former one's place.
func (s *Store) replaced(known entry, name string, present []byte) (string, error) {
	former, err := s.pending(name, present)
	switch {
	case err != nil || len(former) == 0:
		return "", err
	case known.Keyfile:
		return "rotated: " + stepOf(desired.KeysOf(string(present))), nil
	}
	return "the former value is kept until this one is in use", nil
}
