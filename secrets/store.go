package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"dive-agent/atomicfile"
	"dive-agent/desired"
)

// Options say where the secrets of one instance are kept.
type Options struct {
	Instance string
	// Dir is the instance's secrets folder; it is made when missing, 0700.
	// Values are kept below Dir/.store, rendered files are placed in Dir.
	Dir string
	// Random is crypto/rand.Reader outside of tests.
	Random io.Reader
	Now    func() time.Time
	// Keys encrypt what is kept; nil: it is kept plain.
	Keys *HostKey
}

// Store keeps the secrets of one instance. It is safe for concurrent use, also
// by several stores and processes.
type Store struct {
	instance string
	dir      string
	random   io.Reader
	now      func() time.Time
	keys     *HostKey
}

// Open makes the folders. It reads no secret.
func Open(opts Options) (*Store, error) {
	s := &Store{instance: opts.Instance, dir: opts.Dir, random: opts.Random, now: opts.Now, keys: opts.Keys}
	return s, s.makeFolders()
}

func (s *Store) makeFolders() error {
	for _, dir := range []string{s.dir, s.storeDir(), s.valuesDir(), s.formerDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the secrets folder of %s: %w", s.instance, err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("close the secrets folder of %s to others: %w", s.instance, err)
		}
	}
	return nil
}

// lock keeps other stores of the folder out, those of other processes too: the
// agent makes secrets while a person sets one. It waits as long as ctx lasts
// and 10 s at most; the kernel gives the lock back when the process ends.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.storeDir(), "lock"), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the secrets of %s: %w", s.instance, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock the secrets of %s: %w", s.instance, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("the secrets of %s are in use by another process: %w", s.instance, ctx.Err())
		case <-retry.C:
		}
	}
}

// sweep removes what a killed process left half-written; under the lock.
func (s *Store) sweep() error {
	for _, dir := range []string{s.dir, s.storeDir(), s.valuesDir(), s.formerDir()} {
		if err := atomicfile.Sweep(dir); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) storeDir() string             { return filepath.Join(s.dir, ".store") }
func (s *Store) valuesDir() string            { return filepath.Join(s.storeDir(), "values") }
func (s *Store) valuePath(name string) string { return filepath.Join(s.valuesDir(), name) }
func (s *Store) manifestPath() string         { return filepath.Join(s.storeDir(), "manifest.json") }

// read gives a value as it is kept. The error is an fs.ErrNotExist when there is none.
func (s *Store) read(name string) ([]byte, error) {
	value, err := s.load(s.valuePath(name))
	if err != nil {
		return nil, fmt.Errorf("read secret %s of %s: %w", name, s.instance, err)
	}
	return value, nil
}

func (s *Store) keyPath() string { return filepath.Join(s.storeDir(), "fingerprint.key") }

var validName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,127}$`)

func checkName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("%q is no name for a secret: letters, digits, _ and - are possible", name)
	}
	return nil
}

func checkSpec(spec desired.SecretSpec) error {
	if err := checkName(spec.Name); err != nil {
		return err
	}
	if !spec.Provide && spec.Generate == nil && spec.Source == nil {
		return fmt.Errorf("secret %s is neither generated nor provided, and comes from nowhere else", spec.Name)
	}
	return nil
}

func kindOf(spec desired.SecretSpec) string {
	switch {
	case spec.Provide:
		return "provided"
	case spec.Source != nil:
		return spec.Source.Kind
	case spec.Generate.Kind == "":
		return "password"
	}
	return spec.Generate.Kind
}

func oneLine(value []byte) []byte {
	line := bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r"))
	if bytes.ContainsAny(line, "\r\n") {
		return value
	}
	return line
}

// Info is what may be told of a secret.
type Info struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind"`
	Made    time.Time `json:"made"`
	Present bool      `json:"present"`
	Ends    time.Time `json:"ends,omitzero"` // of a certificate or an authority: until when it is valid
	// Replaced says how far a new value is in taking the former one's place, for people; empty when nothing of the kind goes on.
	Replaced string `json:"replaced,omitempty"`
	// Generation counts the values that it has had here, from 1.
	Generation int `json:"generation"`
	// Failing is since when it cannot be had where it comes from, and Why the reason; zero: it can, or comes from nowhere else.
	Failing time.Time `json:"failing,omitzero"`
	Why     string    `json:"why,omitempty"`
}

// Has says whether there is a value of a secret.
func (s *Store) Has(name string) bool {
	info, err := os.Stat(s.valuePath(name))
	return err == nil && info.Size() > 0
}

// List tells names, kinds and ages of all secrets that were ever made or set
// here, by name; never a value.
func (s *Store) List() ([]Info, error) {
	m, _, err := s.readManifest()
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(s.valuesDir())
	if err != nil {
		return nil, fmt.Errorf("list the secrets of %s: %w", s.instance, err)
	}
	all := map[string]Info{}
	for name, e := range m.Secrets {
		info := Info{Name: name, Kind: e.Kind, Made: e.Made, Generation: e.generation()}
		if e.Failing != nil {
			info.Failing, info.Why = e.Failing.Since, e.Failing.Why
		}
		all[name] = info
	}
	for _, f := range files {
		info, ok := all[f.Name()]
		if !validName.MatchString(f.Name()) {
			continue
		}
		if !ok {
			info = Info{Name: f.Name(), Kind: "provided", Generation: 1}
			if st, err := f.Info(); err == nil {
				info.Made = st.ModTime().UTC()
			}
		}
		info.Present = true
		value, err := s.read(info.Name)
		var sealed *SealedError
		if errors.As(err, &sealed) { // its name and age are known all the same
			all[info.Name] = info
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Kind == desired.AuthorityKind || info.Kind == desired.CertificateKind {
			info.Ends = endOf(value)
		}
		if info.Replaced, err = s.replaced(m.Secrets[info.Name], info.Name, value); err != nil {
			return nil, err
		}
		all[info.Name] = info
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Info) int { return strings.Compare(a.Name, b.Name) }), nil
}
