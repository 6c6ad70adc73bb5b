package desired

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"dive-agent/sopsfile"
)

// Sources of secrets, as SecretSpec.Source names them.
const (
	SopsSource     = "sops"
	HostFileSource = "hostFile"
	HostEnvSource  = "hostEnv"
	VaultSource    = "vault"
	GCPSource      = "gcp"
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

type vaultSpec struct {
	Mount   Expr `yaml:"mount" doc:"Where the KV engine of version 2 is mounted. Default: secret."`
	Path    Expr `yaml:"path" required:"true" doc:"Path of the secret below it, as in vault kv get -mount=MOUNT PATH; may use values, as dive/${code}."`
	Key     Expr `yaml:"key" doc:"Which of the values at that path. Default: the secret's name."`
	Version int  `yaml:"version" doc:"A version of it that does not change. Default: the newest one, looked at again."`
}

type gcpSpec struct {
	Project Expr   `yaml:"project" required:"true" doc:"Id or number of the project."`
	Secret  Expr   `yaml:"secret" doc:"Name of the secret in Secret Manager. Default: the secret's name."`
	Version string `yaml:"version" default:"latest" doc:"Number or alias of a version; latest is looked at again."`
}

// SecretSource is where a secret comes from that is neither made nor given by hand; expressions are evaluated.
type SecretSource struct {
	Kind     string // SopsSource, ...
	File     string // of sops: below the instance's source folder; of hostFile: absolute
	Key      string // of sops: which value of the file
	Variable string // of hostEnv
	Mount    string // of vault
	Path     string // of vault
	Project  string // of gcp; its secret is the Key
	Version  string // of vault and gcp; empty, of vault: the newest
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
	case VaultSource:
		return fmt.Sprintf("vault %s/%s, key %s", s.Mount, s.Path, s.Key)
	case GCPSource:
		return fmt.Sprintf("gcp project %s, secret %s, version %s", s.Project, s.Key, s.Version)
	default:
		return "variable " + s.Variable + " of the agent's environment"
	}
}

// origins names the fields that say where a secret comes from.
var origins = []string{"generate", "provide", SopsSource, VaultSource, GCPSource, HostFileSource, HostEnvSource}

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
	case spec.Vault != nil:
		v := spec.Vault
		s.Kind, s.Mount, s.Path, s.Key = VaultSource, eval(v.Mount, "secret"), eval(v.Path, ""), eval(v.Key, f.name)
		if v.Version != 0 {
			s.Version = strconv.Itoa(v.Version)
		}
		b.checkVault(d, f, v, s)
	case spec.GCP != nil:
		s.Kind, s.Project, s.Key, s.Version = GCPSource, eval(spec.GCP.Project, ""), eval(spec.GCP.Secret, f.name), spec.GCP.Version
		b.checkGCP(d, f, spec.GCP, s)
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
	for _, u := range x.uses {
		if u.path[0] == instancesName {
			d.Errorf(x.place(u.at), "%s: %s", what, importOutside(u.path))
			return ""
		}
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

// vaultPath is a path of Vault's API: no empty step, and none that leads elsewhere.
var vaultPath = regexp.MustCompile(`^[^/?#%\\\x00-\x20]+(/[^/?#%\\\x00-\x20]+)*$`)

func (b *builder) checkVault(d *Decoder, f field, spec *vaultSpec, s *SecretSource) {
	for _, one := range []struct {
		what, value string
		at          Expr
	}{{"mount", s.Mount, spec.Mount}, {"path", s.Path, spec.Path}} {
		steps := strings.Split(one.value, "/")
		if one.value != "" && (!vaultPath.MatchString(one.value) || slices.Contains(steps, "..") || slices.Contains(steps, ".")) {
			d.Errorf(one.at.Position(), "%s %q of secret %s is no path of Vault: steps with / between them, none at the ends", one.what, one.value, f.name)
		}
	}
	if spec.Version < 0 {
		d.Errorf(f.value.get(VaultSource).at, "version of secret %s must be 1 or more", f.name)
	}
}

var (
	gcpProject = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z0-9][a-z0-9-]{3,61}$`)
	gcpName    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
)

func (b *builder) checkGCP(d *Decoder, f field, spec *gcpSpec, s *SecretSource) {
	if s.Project != "" && !gcpProject.MatchString(s.Project) {
		d.Errorf(spec.Project.Position(), "%q is no project of Google Cloud", s.Project)
	}
	if s.Key != "" && !gcpName.MatchString(s.Key) {
		d.Errorf(spec.Secret.Position(), "%q is no name of a secret: letters, digits, - and _", s.Key)
	}
	if !gcpName.MatchString(s.Version) {
		d.Errorf(f.value.get(GCPSource).at, "version %q of secret %s: a number, an alias or latest", s.Version, f.name)
	}
}
