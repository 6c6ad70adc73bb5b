package secrets

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"dive-agent/atomicfile"
)

// manifest remembers what was ever made on this host, without any value.
type manifest struct {
	Version int              `json:"version"`
	Secrets map[string]entry `json:"secrets"`
}

type entry struct {
	// Kind is what Generate said, or "provided".
	Kind string    `json:"kind"`
	Made time.Time `json:"made"`
	// Fingerprint is a keyed hash of name and value; the key never leaves the host.
	Fingerprint string `json:"fingerprint"`
	// Next is the fingerprint of a value that is about to take its place: after a crash either may be there.
	Next string `json:"next,omitempty"`
	// Keyfile says that it is the content of a key file which servers share: it is replaced in two steps.
	Keyfile bool `json:"keyfile,omitempty"`
	// Generation counts the values that it has had here, from 1; 0 of one that was kept before they were counted.
	Generation int `json:"generation,omitempty"`
	// Failing says that it cannot be had where it comes from; nil: it could, or comes from nowhere else.
	Failing *failing `json:"failing,omitempty"`
}

func (m entry) generation() int { return max(m.Generation, 1) }

// readManifest returns false when there is none.
func (s *Store) readManifest() (manifest, bool, error) {
	m := manifest{Version: 1, Secrets: map[string]entry{}}
	data, err := readFile(s.manifestPath())
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, fmt.Errorf("read the manifest of secrets: %w", err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, false, fmt.Errorf("read the manifest of secrets %s: %w; restore it from a backup of the state folder", s.manifestPath(), err)
	}
	if m.Version != 1 {
		return m, false, fmt.Errorf("the manifest of secrets %s has version %d, this agent knows 1: run the newer agent that wrote it", s.manifestPath(), m.Version)
	}
	if m.Secrets == nil {
		m.Secrets = map[string]entry{}
	}
	return m, true, nil
}

func (s *Store) writeManifest(m manifest) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write the manifest of secrets: %w", err)
	}
	_, err = atomicfile.Write(s.manifestPath(), append(data, '\n'), atomicfile.Options{})
	return err
}

// fingerprint is what the manifest remembers of a value.
func fingerprint(key []byte, name string, value []byte) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(name))
	h.Write([]byte{0})
	h.Write(value)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// hostKey reads the key of the fingerprints and makes it when there is none;
// fresh says that it was made, so that remembered fingerprints mean nothing.
func (s *Store) hostKey() (key []byte, fresh bool, err error) {
	key, err = readFile(s.keyPath())
	if err == nil && len(key) == sha256.Size {
		return key, false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("read the key of the fingerprints: %w", err)
	}
	if key, err = randomBytes(s.random, sha256.Size); err != nil {
		return nil, false, err
	}
	_, err = atomicfile.Write(s.keyPath(), key, atomicfile.Options{})
	return key, true, err
}
