package secrets

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dive-agent/desired"
)

// SourceOptions are what the host lets secrets be taken from. The zero value lets none be taken from anywhere.
type SourceOptions struct {
	AgeKeyFiles       []string // identities as age-keygen writes them
	PGPKeyFile        string   // private keys as gpg --export-secret-keys writes them
	PGPPassphraseFile string
	Files             []string // absolute paths that manifests may name, or folders above them
	Env               []string // names of variables that manifests may name
	Vault             VaultOptions
	GCP               GCPOptions

	Getenv   func(name string) (string, bool) // os.LookupEnv outside of tests
	Now      func() time.Time
	Redactor *Redactor // learns what the sources themselves are opened with; nil: nobody asks
}

// Sources looks secrets up where their manifests say. It changes nothing anywhere, and keeps no value: what was found is
// kept by the Store. It is safe for concurrent use.
type Sources struct {
	SourceOptions
	mu   sync.Mutex
	seen map[string]sighting // by instance and secret

	session    vaultSession
	gcpSession gcpSession
}

// sighting is when a secret was looked up last.
type sighting struct {
	at   time.Time
	from desired.SecretSource
	mark string // what a look that costs nothing would find changed
	err  error
}

// NewSources reads nothing yet: a key that is put in place later is found then.
func NewSources(o SourceOptions) *Sources {
	return &Sources{SourceOptions: o, seen: map[string]sighting{}}
}

// Looked is what a look found: a value, or why there is none. The error tells no value.
type Looked struct {
	Value []byte
	Err   error
}

// String keeps a value out of logs.
func (l Looked) String() string { return "(looked up)" }

// fault is why a source gives no value, with the way out of it.
type fault struct {
	text string
	do   string
	err  error
}

func (f *fault) Error() string {
	if f.err != nil {
		return f.text + ": " + f.err.Error()
	}
	return f.text
}
func (f *fault) Unwrap() error { return f.err }

// maxSourced is the length in bytes up to which a value is taken from a source.
const maxSourced = 1 << 20

// LookOptions say what is looked up.
type LookOptions struct {
	Instance string
	Dir      string                 // the instance's source folder in the snapshot of its revision
	Missing  func(name string) bool // the store has no value of the secret: it is looked up, due or not
	All      bool                   // a person asked: each is looked up, due or not
}

// Look looks those up that are due: never looked up since the start, their interval over, or changed where that costs nothing to
// see. Of those that failed in the last look and are not due yet it gives the same error again. It ends within 10 s for each
// server that is asked.
func (s *Sources) Look(ctx context.Context, specs []desired.SecretSpec, o LookOptions) map[string]Looked {
	found := map[string]Looked{}
	l := &looking{Sources: s, LookOptions: o, ctx: ctx, files: map[string]openedFile{}}
	defer l.close()
	for _, spec := range specs {
		if spec.Source == nil {
			continue
		}
		id := o.Instance + "/" + spec.Name
		mark := l.mark(*spec.Source)
		s.mu.Lock()
		last, ok := s.seen[id]
		s.mu.Unlock()
		fresh := ok && last.from == *spec.Source && last.mark == mark && s.Now().Sub(last.at) < spec.Source.Interval
		if fresh && !o.All && (last.err != nil || !o.Missing(spec.Name)) {
			if last.err != nil {
				found[spec.Name] = Looked{Err: last.err}
			}
			continue
		}
		value, err := l.look(*spec.Source)
		if err == nil && len(value) < minHidden {
			err = &fault{text: fmt.Sprintf("the value has %d bytes, too few to be kept out of logs", len(value)), do: fmt.Sprintf("Give it %d bytes or more there", minHidden)}
		}
		if ctx.Err() != nil {
			return found // it was not the source that failed
		}
		found[spec.Name] = Looked{value, err}
		s.mu.Lock()
		s.seen[id] = sighting{s.Now(), *spec.Source, mark, err}
		s.mu.Unlock()
	}
	return found
}

// looking is one call of Look.
type looking struct {
	*Sources
	LookOptions
	ctx   context.Context
	files map[string]openedFile // of SOPS, opened once for all secrets in them
	vault *vaultLook            // nil: not asked yet
	gcp   *gcpLook
}

func (l *looking) close() {
	if l.vault != nil {
		l.vault.cancel()
	}
	if l.gcp != nil {
		l.gcp.cancel()
	}
}

func (l *looking) look(from desired.SecretSource) ([]byte, error) {
	switch from.Kind {
	case desired.SopsSource:
		return l.lookSops(from)
	case desired.HostFileSource:
		return l.lookFile(from.File)
	case desired.HostEnvSource:
		return l.lookEnv(from.Variable)
	case desired.VaultSource:
		return l.lookVault(from)
	case desired.GCPSource:
		return l.lookGCP(from)
	}
	return nil, fmt.Errorf("this agent knows no source %q", from.Kind)
}

// mark tells two looks apart without opening anything: a file that was written anew, or a key.
func (l *looking) mark(from desired.SecretSource) string {
	switch from.Kind {
	case desired.SopsSource:
		return stamps(append([]string{l.sopsPath(from.File), l.PGPKeyFile, l.PGPPassphraseFile}, l.AgeKeyFiles...)...)
	case desired.HostFileSource:
		return stamps(from.File)
	}
	return ""
}

// SourceError says that a secret cannot be had where it comes from, and that no value of it was ever here.
type SourceError struct {
	Instance string
	Name     string
	From     string
	Err      error
}

func (e *SourceError) Error() string {
	return fmt.Sprintf("secret %s of %s cannot be had from %s: %v", e.Name, e.Instance, e.From, e.Err)
}

func (e *SourceError) Unwrap() error { return e.Err }

// Reason implements Resolvable.
func (e *SourceError) Reason() string { return "SecretNotFound" }

// Do is the way out.
func (e *SourceError) Do() string {
	var f *fault
	if errors.As(e.Err, &f) && f.do != "" {
		return f.do
	}
	return fmt.Sprintf("See that %s can be read. It is asked again by itself, and at once with: dive-agent sync %s", e.From, e.Instance)
}

var _ Resolvable = (*SourceError)(nil)
