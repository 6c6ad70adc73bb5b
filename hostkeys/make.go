package hostkeys

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"dive-agent/atomicfile"
)

// Ensure gives the keys in a folder and makes the first pair, durably, when there is none. Keys that are there but damaged
// are a *DamagedError, and nothing is made. Processes that call it at the same time get the same keys. The randomness is the
// system's.
func Ensure(dir string, now time.Time) (keys *Keys, made bool, err error) {
	err = alone(dir, func() error {
		keys, err = Open(dir)
		if errors.Is(err, ErrNone) {
			made = true
			keys, err = add(dir, 1, now)
		}
		if made && err == nil {
			err = atomicfile.SyncDir(filepath.Dir(dir)) // the folder itself is new
		}
		return err
	})
	return keys, made, err
}

// Rotate makes another pair beside those that are there, newer than all of them. Errors: ErrNone; a *DamagedError.
func Rotate(dir string, now time.Time) (keys *Keys, err error) {
	err = alone(dir, func() error {
		have, err := Open(dir)
		if err != nil {
			return err
		}
		keys, err = add(dir, have.pairs[0].number+1, now)
		return err
	})
	return keys, err
}

// Anew puts what is in the folder aside, whole or damaged, and makes a first pair. It gives the place where the old keys are
// kept; empty when there were none.
func Anew(dir string, now time.Time) (keys *Keys, aside string, err error) {
	if _, err := os.Lstat(dir); err == nil {
		aside = freeName(dir + ".until-" + now.UTC().Format("20060102T150405Z"))
		if err := os.Rename(dir, aside); err != nil {
			return nil, "", fmt.Errorf("put the former keys of this host aside: %w", err)
		}
	}
	keys, _, err = Ensure(dir, now)
	return keys, aside, err
}

// freeName is a path that is not taken.
func freeName(path string) string {
	for n := 1; ; n++ {
		name := path
		if n > 1 {
			name = fmt.Sprintf("%s-%d", path, n)
		}
		if _, err := os.Lstat(name); err != nil {
			return name
		}
	}
}

// Prune deletes the pairs that are rotated out by what is listed (see Current), and gives what it deleted.
func Prune(dir string, recipients, signingKeys []string) (gone []PublicPair, err error) {
	err = alone(dir, func() error {
		keys, err := Open(dir)
		if err != nil {
			return err
		}
		for _, p := range keys.former(recipients, signingKeys) {
			if err := remove(dir, p.folder); err != nil {
				return err
			}
			gone = append(gone, p.PublicPair)
		}
		return nil
	})
	return gone, err
}

// Names of what is made or deleted begin so until it is done.
const (
	makingMark   = ".making-"
	deletingMark = ".deleting-"
)

// remove deletes a pair: its name first, at once and durably, then what it held.
func remove(dir, folder string) error {
	doomed := filepath.Join(dir, deletingMark+filepath.Base(folder))
	if err := os.Rename(folder, doomed); err != nil {
		return fmt.Errorf("delete a former key of this host: %w", err)
	}
	if err := atomicfile.SyncDir(dir); err != nil {
		return err
	}
	return os.RemoveAll(doomed)
}

// add makes a pair and gives all of them.
func add(dir string, number int, now time.Time) (*Keys, error) {
	folder, err := os.MkdirTemp(dir, makingMark)
	if err != nil {
		return nil, fmt.Errorf("make a key of this host: %w", err)
	}
	if err := fill(folder, now); err != nil {
		return nil, errors.Join(fmt.Errorf("make a key of this host: %w", err), os.RemoveAll(folder))
	}
	if err := os.Rename(folder, filepath.Join(dir, fmt.Sprintf("%04d", number))); err != nil {
		return nil, errors.Join(fmt.Errorf("make a key of this host: %w", err), os.RemoveAll(folder))
	}
	if err := atomicfile.SyncDir(dir); err != nil {
		return nil, err
	}
	return Open(dir)
}

// fill writes the files of a new pair.
func fill(folder string, now time.Time) error {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "dive-agent")
	if err != nil {
		return err
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s%s\n# public key: %s\n%s\n", createdMark, now.UTC().Format(time.RFC3339), identity.Recipient(), identity)
	for name, content := range map[string][]byte{signingFile: pem.EncodeToMemory(block), identityFile: []byte(text)} {
		if _, err := atomicfile.Write(filepath.Join(folder, name), content, atomicfile.Options{}); err != nil {
			return err
		}
	}
	return nil
}

// alone does what changes the folder while no other process does, and clears away what a crash left half made or half deleted.
func alone(dir string, do func() error) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of this host's keys: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("close the folder of this host's keys to others: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the folder of this host's keys: %w", err)
	}
	defer lock.Close() // and with it the lock
	if err := take(lock); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the folder of this host's keys: %w", err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), makingMark) || strings.HasPrefix(entry.Name(), deletingMark) {
			if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
				return fmt.Errorf("clear away what a crash left: %w", err)
			}
		}
	}
	return do()
}

// lockLimit bounds the wait for another process, which holds the lock for as long as a key takes to be made.
const lockLimit = 10 * time.Second

// take waits for the lock.
func take(lock *os.File) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.NewTimer(lockLimit)
	defer limit.Stop()
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return err
		}
		select {
		case <-again.C:
		case <-limit.C:
			return fmt.Errorf("another process works on the keys of this host and does not end: see who holds %s (fuser)", lock.Name())
		}
	}
}
