// Package hostkeys keeps the private keys of a host: pairs of an SSH key that signs its status commits and an age identity
// that opens what is sealed to it. They are made once, on the host, and never leave it; what others need to know of them is
// their public halves, in hosts/<host>.yaml of the fleet repository. The package knows neither that file nor Git.
//
// Each pair is a folder, which appears as a whole or not at all and goes as a whole:
//
//	<dir>/0001/signing-key   ed25519, in the PEM of OpenSSH
//	<dir>/0001/identity      X25519, as age-keygen writes it
//
// Files are 0600, folders 0700. A pair with a higher number is newer.
package hostkeys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
)

// ErrNone says that no keys were made in the folder, or that all of them are gone.
var ErrNone = errors.New("this host has no keys yet: dive-agent enroll makes them")

// DamagedError says that keys were made in the folder and one of their files is lost, unreadable or broken. Nothing is made
// in its place: what is sealed to a lost key cannot be opened with another one.
type DamagedError struct {
	Path string // the file
	Err  error  // why; never its content
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("the key of this host in %s cannot be used: %v", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// Do is the way out.
func (e *DamagedError) Do() string {
	return fmt.Sprintf("Put %s back from a backup of the state folder. Where there is none: dive-agent enroll --anew makes other keys, and prints the host's file to be merged with them", filepath.Dir(e.Path))
}

// PublicPair is what everybody may know of a pair.
type PublicPair struct {
	Recipient  string    `json:"recipient"`  // age1...
	SigningKey string    `json:"signingKey"` // ssh-ed25519 AAAA..., without a comment
	Made       time.Time `json:"made"`
}

// Keys are the keys of a host as they were when they were read. They do not change afterwards.
type Keys struct {
	pairs []pair // newest first
}

type pair struct {
	PublicPair
	number   int
	folder   string
	pem      []byte
	identity *age.X25519Identity
}

// String hides the keys from careless prints.
func (k *Keys) String() string { return fmt.Sprintf("%d pairs of keys", len(k.pairs)) }

// GoString hides the keys from %#v.
func (k *Keys) GoString() string { return k.String() }

// Public gives the public halves, the newest first; at least one.
func (k *Keys) Public() []PublicPair {
	out := make([]PublicPair, len(k.pairs))
	for i, p := range k.pairs {
		out[i] = p.PublicPair
	}
	return out
}

// Signer gives the private key that signs, in PEM: the newest whose public half is allowed, comments aside. With nothing
// allowed it is the newest of all. False: none of the host's keys is allowed.
func (k *Keys) Signer(allowed []string) (pem []byte, ok bool) {
	for _, p := range k.pairs {
		if len(allowed) == 0 || Lists(allowed, p.SigningKey) {
			return bytes.Clone(p.pem), true
		}
	}
	return nil, false
}

// Identities give all that opens what is sealed to this host, the newest first.
func (k *Keys) Identities() []age.Identity {
	out := make([]age.Identity, len(k.pairs))
	for i, p := range k.pairs {
		out[i] = p.identity
	}
	return out
}

// Current are the public halves without those that are rotated out: pairs older than the newest one of which both halves are
// listed, and of which neither half is listed any more. Without a pair that is listed none is rotated out.
func (k *Keys) Current(recipients, signingKeys []string) []PublicPair {
	former := k.former(recipients, signingKeys)
	out := k.Public()
	return slices.DeleteFunc(out, func(p PublicPair) bool {
		return slices.ContainsFunc(former, func(f pair) bool { return f.PublicPair == p })
	})
}

func (k *Keys) former(recipients, signingKeys []string) (out []pair) {
	successor := false
	for _, p := range k.pairs {
		recipient, signs := Lists(recipients, p.Recipient), Lists(signingKeys, p.SigningKey)
		if successor && !recipient && !signs {
			out = append(out, p)
		}
		successor = successor || recipient && signs
	}
	return out
}

// Lists says whether a public key is among others, comments aside.
func Lists(keys []string, key string) bool {
	return slices.ContainsFunc(keys, func(one string) bool { return withoutComment(one) == withoutComment(key) })
}

func withoutComment(key string) string {
	words := strings.Fields(key)
	return strings.Join(words[:min(2, len(words))], " ")
}

// Open reads the keys in a folder. It makes nothing. Errors: ErrNone; a *DamagedError, when a pair that was made is not whole.
func Open(dir string) (*Keys, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, &DamagedError{Path: filepath.Join(dir, "*"), Err: bare(err)}
	}
	k := &Keys{}
	for _, entry := range entries {
		if !pairName.MatchString(entry.Name()) {
			continue
		}
		p, err := readPair(filepath.Join(dir, entry.Name()))
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		k.pairs = append(k.pairs, p)
	}
	if len(k.pairs) == 0 {
		return nil, ErrNone
	}
	slices.SortFunc(k.pairs, func(a, b pair) int { return b.number - a.number })
	return k, nil
}

const (
	signingFile  = "signing-key"
	identityFile = "identity"
	createdMark  = "# created: "
	longestFile  = 16 << 10
)

var pairName = regexp.MustCompile(`^[0-9]{4,8}$`)

// errGone says that a pair was taken out while it was read.
var errGone = errors.New("the pair is gone")

func readPair(folder string) (p pair, err error) {
	p.folder = folder
	if p.number, err = strconv.Atoi(filepath.Base(folder)); err != nil {
		return p, err
	}
	if p.pem, err = readKey(filepath.Join(folder, signingFile)); err != nil {
		return p, err
	}
	if p.SigningKey, err = PublicOf(p.pem); err != nil {
		return p, &DamagedError{filepath.Join(folder, signingFile), err}
	}
	path := filepath.Join(folder, identityFile)
	text, err := readKey(path)
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if made, ok := strings.CutPrefix(line, createdMark); ok {
			p.Made, _ = time.Parse(time.RFC3339, made) // without it the key opens as well
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if p.identity, err = age.ParseX25519Identity(line); err != nil {
			return p, &DamagedError{path, errors.New("it holds no age identity")} // the cause may repeat the line
		}
	}
	if p.identity == nil {
		return p, &DamagedError{path, errors.New("it holds no age identity")}
	}
	p.Recipient = p.identity.Recipient().String()
	return p, nil
}

// readKey reads a file that only its owner may read, and takes away what a hand, or a backup that was put back, has opened.
func readKey(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
			return nil, errGone
		}
		return nil, &DamagedError{path, errors.New("the file is lost")}
	}
	switch {
	case err != nil:
		return nil, &DamagedError{path, bare(err)}
	case !info.Mode().IsRegular():
		return nil, &DamagedError{path, errors.New("it is no regular file")}
	case info.Size() > longestFile:
		return nil, &DamagedError{path, errors.New("it is too big for a key")}
	case info.Mode().Perm()&0o077 != 0:
		if err := os.Chmod(path, 0o600); err != nil {
			return nil, &DamagedError{path, fmt.Errorf("others may read it, and that cannot be changed: %w", bare(err))}
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &DamagedError{path, bare(err)}
	}
	return text, nil
}

// bare takes the path out of a file error: the place is told already.
func bare(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// PublicOf gives the public half of an SSH private key in PEM, "type base64". The error never repeats the key.
func PublicOf(pem []byte) (string, error) {
	signer, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return "", errors.New("it holds no SSH private key without a passphrase")
	}
	public := signer.PublicKey()
	return public.Type() + " " + base64.StdEncoding.EncodeToString(public.Marshal()), nil
}
