package sopsfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/ProtonMail/go-crypto/openpgp"
	pgparmor "github.com/ProtonMail/go-crypto/openpgp/armor"
)

// Keys are the private keys that open files. The zero Keys opens none.
type Keys struct {
	age  []age.Identity
	pgp  openpgp.EntityList
	told []string // what they are called in public, for people
}

// Names are what the keys are called in public: age recipients, and fingerprints of OpenPGP keys.
func (k *Keys) Names() []string { return k.told }

// AddAge adds the identities of a file that age-keygen made. The error quotes nothing of it.
func (k *Keys) AddAge(text []byte) error {
	identities, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return errors.New("it holds no age identity: a line AGE-SECRET-KEY-1..., as age-keygen writes it")
	}
	for _, identity := range identities {
		switch one := identity.(type) {
		case *age.X25519Identity:
			k.told = append(k.told, one.Recipient().String())
		case *age.HybridIdentity:
			k.told = append(k.told, one.Recipient().String())
		}
	}
	k.age = append(k.age, identities...)
	return nil
}

// AddPGP adds OpenPGP private keys, as `gpg --export-secret-keys` writes them, with armour or without. Keys that are locked are
// opened with the passphrase; nil when there is none.
func (k *Keys) AddPGP(text, passphrase []byte) error {
	read := openpgp.ReadKeyRing
	if bytes.Contains(text, []byte("-----BEGIN PGP")) {
		read = openpgp.ReadArmoredKeyRing
	}
	ring, err := read(bytes.NewReader(text))
	if err != nil {
		return errors.New("it holds no OpenPGP private key, as gpg --export-secret-keys writes it")
	}
	private := false
	for _, entity := range ring {
		if entity.PrivateKey == nil {
			continue
		}
		private = true
		if err := unlock(entity, passphrase); err != nil {
			return err
		}
		k.told = append(k.told, strings.ToUpper(fmt.Sprintf("%x", entity.PrimaryKey.Fingerprint)))
	}
	if !private {
		return errors.New("it holds public keys only: export the private one with gpg --export-secret-keys")
	}
	k.pgp = append(k.pgp, ring...)
	return nil
}

func unlock(entity *openpgp.Entity, passphrase []byte) error {
	locked := entity.PrivateKey.Encrypted
	for _, sub := range entity.Subkeys {
		locked = locked || sub.PrivateKey != nil && sub.PrivateKey.Encrypted
	}
	if !locked {
		return nil
	}
	if len(passphrase) == 0 {
		return errors.New("the OpenPGP key is locked by a passphrase, and none is given")
	}
	if err := entity.DecryptPrivateKeys(passphrase); err != nil {
		return errors.New("the passphrase does not open the OpenPGP key")
	}
	return nil
}

// dataKeySize is that of AES-256.
const dataKeySize = 32

// dataKey opens the key that a file's values are encrypted with. The error names whom the file is for, and whom this host is.
func (k *Keys) dataKey(m metadata) ([]byte, error) {
	for _, w := range m.age {
		if len(k.age) == 0 {
			break
		}
		if r, err := age.Decrypt(armor.NewReader(strings.NewReader(w.key)), k.age...); err == nil {
			if key, err := readKey(r); err == nil {
				return key, nil
			}
		}
	}
	for _, w := range m.pgp {
		if len(k.pgp) == 0 {
			break
		}
		if key, err := k.fromPGP(w.key); err == nil {
			return key, nil
		}
	}
	return nil, k.refused(m)
}

func (k *Keys) fromPGP(armored string) ([]byte, error) {
	block, err := pgparmor.Decode(strings.NewReader(armored))
	if err != nil {
		return nil, err
	}
	message, err := openpgp.ReadMessage(block.Body, k.pgp, nil, nil)
	if err != nil {
		return nil, err
	}
	return readKey(message.UnverifiedBody)
}

func readKey(r io.Reader) ([]byte, error) {
	key, err := io.ReadAll(io.LimitReader(r, dataKeySize+1))
	if err == nil && len(key) != dataKeySize {
		err = errors.New("the data key has another length")
	}
	return key, err
}

func (k *Keys) refused(m metadata) error {
	var to []string
	for _, w := range append(append([]wrapped(nil), m.age...), m.pgp...) {
		to = append(to, w.to)
	}
	to = append(to, m.others...)
	mine := "this host has no key for SOPS"
	if len(k.told) > 0 {
		mine = "this host has the keys of " + strings.Join(k.told, ", ")
	}
	return fmt.Errorf("no key of this host opens it: it is encrypted to %s, and %s", strings.Join(to, ", "), mine)
}
