package desired

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"dive-agent/sopsfile"
)

// Sources of secrets, as SecretSpec.Source names them.
const (
	SopsSource     = "sops"
	HostFileSource = "hostFile"
	HostEnvSource  = "hostEnv"
)

const (
	sourceInterval         = 5 * time.Minute
	shortestSourceInterval = 10 * time.Second
)

// sopsSpec is a secret's field sops.
type sopsSpec struct {
	File Expr `yaml:"file" required:"true" doc:"File that SOPS encrypted, .yaml, .json or .env, in the instance's source folder; may use values, as secrets/${code}.yaml. The host's configuration names the key that opens it."`
	Key  Expr `yaml:"key" doc:"Which value of the file: its key, or the way there with dots, as database.password or users.0.token. Default: the secret's name."`
}

type hostFileSpec struct {
	Path Expr `yaml:"path" required:"true" doc:"Absolute path on the host. The host's configuration has to allow it, or a folder above it (secrets.files). A line break that ends a single line is no part of the value."`
}

type hostEnvSpec struct {
	Name Expr `yaml:"name" required:"true" doc:"Name of a variable in the agent's own environment. The host's configuration has to allow it (secrets.env)."`
}

// SecretSource is where a secret comes from that is neither made nor given by hand; expressions are evaluated.
type SecretSource struct {
	Kind     string // SopsSource, ...
	File     string // of sops: below the instance's source folder; of hostFile: absolute
	Key      string // of sops: which value of the file
	Variable string // of hostEnv
	// Interval is how often it is looked at again.
	Interval time.Duration
}

// String says where that is, for people.
func (s SecretSource) String() string {
	switch s.Kind {
	case SopsSource:
		return fmt.Sprintf("sops %s, key %s", s.File, s.Key)
	case HostFileSource:
		return "file " + s.File + " of the host"
	default:
		return "variable " + s.Variable + " of the agent's environment"
	}
}

// origins names the fields that say where a secret comes from.
var origins = []string{"generate", "provide", SopsSource, HostFileSource, HostEnvSource}

// checkOrigin holds a secret to exactly one of them.
func checkOrigin(d *Decoder, f field, spec secretSpec) {
	var found []string
	for _, name := range origins {
		if f.value.get(name) != nil && (name != "provide" || spec.Provide) {
			found = append(found, name)
		}
	}
	switch {
	case len(found) == 0:
		d.Errorf(f.at, "secret %s needs one of %s", f.name, listed(origins))
	case len(found) > 1:
		d.Errorf(f.at, "secret %s comes from one place, not from %s", f.name, strings.Join(found, " and "))
	}
}

// source evaluates where a secret comes from; nil when it is made or provided, or the field has another shape, which the
// decoder told.
func (b *builder) source(d *Decoder, f field, spec secretSpec) *SecretSource {
	eval := func(x Expr, otherwise string) string {
		return b.plainText(d, x, otherwise, "secret "+f.name, "where a secret comes from may use values")
	}
	s := &SecretSource{Interval: spec.Interval.Std()}
	switch {
	case spec.Sops != nil:
		s.Kind, s.File, s.Key = SopsSource, eval(spec.Sops.File, ""), eval(spec.Sops.Key, f.name)
		b.checkSops(d, f, spec.Sops, s)
	case spec.HostFile != nil:
		s.Kind, s.File = HostFileSource, eval(spec.HostFile.Path, "")
		if at := spec.HostFile.Path; s.File != "" && (!path.IsAbs(s.File) || path.Clean(s.File) != s.File) {
			d.Errorf(at.Position(), "path %q of secret %s must be absolute and without . and ..", s.File, f.name)
		}
	case spec.HostEnv != nil:
		s.Kind, s.Variable = HostEnvSource, eval(spec.HostEnv.Name, "")
		if s.Variable != "" && !validIdentifier(s.Variable) {
			d.Errorf(spec.HostEnv.Name.Position(), "%q is no name of a variable", s.Variable)
		}
	default:
		if spec.Interval != 0 {
			d.Errorf(f.value.get("interval").at, "interval of secret %s: only a secret that comes from elsewhere is looked at again", f.name)
		}
		return nil
	}
	switch {
	case s.Interval == 0:
		s.Interval = sourceInterval
	case s.Interval < shortestSourceInterval:
		d.Errorf(f.value.get("interval").at, "interval of secret %s must be %s or more", f.name, shortestSourceInterval)
	}
	return s
}

// checkSops looks at the file without opening it: names in it are not encrypted.
func (b *builder) checkSops(d *Decoder, f field, spec *sopsSpec, s *SecretSource) {
	name := path.Join(b.instance.Source, s.File)
	at := spec.File.Position()
	switch {
	case s.File == "":
		return
	case !fs.ValidPath(s.File) || strings.Contains(s.File, "\\"):
		d.Errorf(at, "path %q leaves the folder %s", s.File, b.instance.Source)
		return
	}
	if err := sopsfile.CheckName(s.File); err != nil {
		d.Errorf(at, "secret %s: %v", f.name, err)
		return
	}
	file, known := b.sops[name]
	if !known {
		content, err := readBounded(b.l.files, name)
		if err == nil {
			file, err = sopsfile.Parse(name, content)
		}
		if b.sops[name] = file; err != nil { // one that cannot be read is told once
			d.Errorf(at, "cannot use %s for secret %s: %v", name, f.name, cause(err))
		}
	}
	if file == nil || file.Has(s.Key) {
		return
	}
	if !spec.Key.IsZero() {
		at = spec.Key.Position()
	}
	keys := file.Keys()
	slices.Sort(keys)
	d.Errorf(at, "%s has no value %q%s", name, s.Key, HintOr(s.Key, keys))
}

// plainText evaluates an expression that may use the instance's values alone; rule says that, for people.
func (b *builder) plainText(d *Decoder, x Expr, otherwise, what, rule string) string {
	if x.IsZero() {
		return otherwise
	}
	value, err := x.Eval(b.instance.Scope(nil))
	switch {
	case err != nil:
		d.Errorf(x.Position(), "%s: %v", what, err)
	case !value.Known() || value.Secret():
		d.Errorf(x.Position(), "%s: %s of the instance alone, no secrets and no outputs", what, rule)
	default:
		return value.Text()
	}
	return ""
}
