package secrets

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"

	"dive-agent/atomicfile"
)

// HostKeyOptions say where the keys of a host are with which it encrypts secrets at rest.
type HostKeyOptions struct {
	// File is the host's key. It is made, 0600, when there is none and nothing is encrypted yet.
	File string
	// Credentials are files of systemd credentials (LoadCredential, LoadCredentialEncrypted). The first that is there goes before
	// File, which then need not exist, and opens what it encrypted before if it does.
	Credentials []string
	// Kept is a pattern of files that may be encrypted: a key is never made beside one that it does not open.
	Kept   string
	Random io.Reader
}

// HostKey encrypts values at rest (AES-256-GCM, each bound to its instance, folder and name), and opens them. It reads its files
// when it is needed. It is safe for concurrent use, also by several processes. A nil HostKey encrypts nothing, and opens nothing
// that is encrypted.
type HostKey struct {
	HostKeyOptions
	mu   sync.Mutex
	keys []sealer // the first encrypts
}

// sealer is one key.
type sealer struct {
	id   string // of which the key cannot be told
	aead cipher.AEAD
}

// NewHostKey reads nothing yet.
func NewHostKey(o HostKeyOptions) *HostKey { return &HostKey{HostKeyOptions: o} }

// sealedMark begins a file whose value is encrypted; the key's id and base64 of nonce and content follow.
const sealedMark = "dive-agent sealed 1 "

// SealedError says that a value is encrypted with a key that is not on this host.
type SealedError struct {
	Path string
	Key  string // its id
}

func (e *SealedError) Error() string {
	return fmt.Sprintf("the secret in %s is encrypted with the key %s, which is not on this host", e.Path, e.Key)
}

// Reason implements Resolvable.
func (e *SealedError) Reason() string { return "SecretSealed" }

// Do is the way out.
func (e *SealedError) Do() string {
	return "Put the host's key back from a backup (secrets.key in the state folder, the file that secrets.keyFile names, or the unit's credential), and start the agent anew. Nothing is made in its place, since the data would not open with other secrets"
}

var _ Resolvable = (*SealedError)(nil)

// load reads the keys that are there.
func (k *HostKey) load() error {
	var keys []sealer
	for _, path := range append(append([]string(nil), k.Credentials...), k.File) {
		text, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the host's key for secrets: %w", err)
		}
		if path == k.File {
			if err := closeToOthers(path); err != nil {
				return err
			}
		}
		one, err := newSealer(bytes.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("the host's key for secrets %s: %w", path, err)
		}
		keys = append(keys, one)
	}
	k.keys = keys
	return nil
}

// newSealer derives a key of 32 bytes, whatever the shape of what the host keeps.
func newSealer(secret []byte) (sealer, error) {
	if len(secret) < 32 {
		return sealer{}, fmt.Errorf("it has %d bytes; at least 32 of randomness are needed, as: openssl rand -hex 32", len(secret))
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "dive-agent secrets at rest", 32)
	if err != nil {
		return sealer{}, err
	}
	id, err := hkdf.Key(sha256.New, secret, nil, "dive-agent secrets at rest, id", 4)
	if err != nil {
		return sealer{}, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCM(block)
	return sealer{hex.EncodeToString(id), aead}, err
}

// seal encrypts a value for its place. It makes the host's key when that is the first.
func (k *HostKey) seal(place string, value []byte) ([]byte, error) {
	if k == nil {
		return value, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) == 0 {
		if err := k.load(); err != nil {
			return nil, err
		}
	}
	if len(k.keys) == 0 {
		if err := k.make(); err != nil {
			return nil, err
		}
	}
	one := k.keys[0]
	nonce, err := randomBytes(k.Random, one.aead.NonceSize())
	if err != nil {
		return nil, err
	}
	sealed := one.aead.Seal(nonce, nonce, value, []byte(place))
	return fmt.Appendf(nil, "%s%s %s\n", sealedMark, one.id, base64.StdEncoding.EncodeToString(sealed)), nil
}

// make makes the host's key, durably before anything is encrypted with it, unless something is that another key opens.
func (k *HostKey) make() error {
	kept, err := filepath.Glob(k.Kept)
	if err != nil {
		return err
	}
	for _, path := range kept {
		if content, err := readFile(path); err == nil && bytes.HasPrefix(content, []byte(sealedMark)) {
			_, err := k.openWith(nil, path, "", content)
			return err
		}
	}
	secret, err := randomBytes(k.Random, 32)
	if err != nil {
		return err
	}
	if _, err := atomicfile.Write(k.File, []byte(hex.EncodeToString(secret)+"\n"), atomicfile.Options{}); err != nil {
		return fmt.Errorf("make the host's key for secrets: %w", err)
	}
	return k.load()
}

// open gives the value that a file holds for its place; current says that it is encrypted with the key that encrypts now. What is not
// encrypted is given as it is: a hand, a backup or an older agent put it there.
func (k *HostKey) open(path, place string, content []byte) (value []byte, current bool, err error) {
	if !bytes.HasPrefix(content, []byte(sealedMark)) {
		return content, k == nil, nil
	}
	if k == nil {
		_, err := k.openWith(nil, path, place, content)
		return nil, false, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	value, err = k.openWith(k.keys, path, place, content)
	var sealed *SealedError
	if errors.As(err, &sealed) { // a key may have been put in place
		if err := k.load(); err != nil {
			return nil, false, err
		}
		value, err = k.openWith(k.keys, path, place, content)
	}
	if err != nil {
		return nil, false, err
	}
	return value, bytes.HasPrefix(content, []byte(sealedMark+k.keys[0].id+" ")), nil
}

func (k *HostKey) openWith(keys []sealer, path, place string, content []byte) ([]byte, error) {
	id, text, _ := bytes.Cut(bytes.TrimSpace(bytes.TrimPrefix(content, []byte(sealedMark))), []byte(" "))
	for _, one := range keys {
		if one.id != string(id) {
			continue
		}
		sealed, err := base64.StdEncoding.DecodeString(string(text))
		if err != nil || len(sealed) < one.aead.NonceSize() {
			return nil, fmt.Errorf("the secret in %s is broken: restore the file from a backup of the state folder", path)
		}
		value, err := one.aead.Open(nil, sealed[:one.aead.NonceSize()], sealed[one.aead.NonceSize():], []byte(place))
		if err != nil {
			return nil, fmt.Errorf("the secret in %s does not open: it was changed, or belongs to another instance or name; restore the file from a backup of the state folder", path)
		}
		return value, nil
	}
	return nil, &SealedError{Path: path, Key: string(id)}
}
