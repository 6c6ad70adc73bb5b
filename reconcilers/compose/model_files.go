package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// contents are the files and inline texts that one service gets, beyond its definition.
type contents struct {
	placed  []placed          // files of the source folder that are copied into the project folder
	secrets []string          // files of the secrets folder, which change without a new revision
	folders []string          // folders that the service binds and the source folder does not have
	digest  map[string]string // what it is -> digest of the content, less the secret files
	files   map[string]string // those of them that are files of the source folder
}

// placed is one file or folder that containers bind from the project folder.
type placed struct {
	from string // in the snapshot
	to   string // in the project folder
}

// stamp is how a file looked when the model was loaded.
type stamp struct {
	path string
	size int64
	time time.Time
	gone bool
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{path: path, gone: true}
	}
	return stamp{path: path, size: info.Size(), time: info.ModTime()}
}

// resolvePaths turns the paths of the Compose file, which are relative to it, into paths of the project folder.
func (m *model) resolvePaths(r request) error {
	for name, service := range m.project.Services {
		for i, volume := range service.Volumes {
			if volume.Type != types.VolumeTypeBind {
				continue
			}
			path, err := r.stable(volume.Source)
			if err != nil {
				return fmt.Errorf("service %s binds %s: %w", name, volume.Source, err)
			}
			service.Volumes[i].Source = path
		}
		for i, file := range service.EnvFiles {
			path, err := r.inside(file.Path)
			if err != nil {
				return fmt.Errorf("env_file %s of service %s: %w", file.Path, name, err)
			}
			service.EnvFiles[i].Path = path
		}
		for i, file := range service.LabelFiles {
			path, err := r.inside(file)
			if err != nil {
				return fmt.Errorf("label_file %s of service %s: %w", file, name, err)
			}
			service.LabelFiles[i] = path
		}
		m.project.Services[name] = service
	}
	for name, config := range m.project.Configs {
		if config.File == "" {
			continue
		}
		path, err := r.stable(config.File)
		if err != nil {
			return fmt.Errorf("file %s of config %s: %w", config.File, name, err)
		}
		config.File = path
		m.project.Configs[name] = config
	}
	for name, secret := range m.project.Secrets {
		if secret.File == "" {
			continue
		}
		path, err := r.stable(secret.File)
		if err != nil {
			return fmt.Errorf("file %s of secret %s: %w", secret.File, name, err)
		}
		secret.File = path
		m.project.Secrets[name] = secret
	}
	return nil
}

// stable gives the path that a container binds: absolute paths of the host as they are, those of the source folder in
// the project folder.
func (r request) stable(path string) (string, error) {
	if strings.HasPrefix(path, "~") {
		return "", errors.New("~ depends on who runs the agent: write the whole path")
	}
	if filepath.IsAbs(path) {
		if !within(r.base(), path) {
			return filepath.Clean(path), nil
		}
	}
	in, err := r.inside(path)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(r.base(), in)
	if err != nil {
		return "", err
	}
	return filepath.Join(r.projectDir, rel), nil
}

// resolveEnvFiles reads env and label files into the services and forgets where they were, so that the definition does
// not change with the snapshot's path.
func (m *model) resolveEnvFiles() error {
	for name, service := range m.project.Services {
		for _, file := range service.EnvFiles {
			if err := checkSize(file.Path); err != nil {
				return fmt.Errorf("env_file of service %s: %w", name, err)
			}
			m.stamps = append(m.stamps, stampOf(file.Path))
		}
		for _, file := range service.LabelFiles {
			if err := checkSize(file); err != nil {
				return fmt.Errorf("label_file of service %s: %w", name, err)
			}
			m.stamps = append(m.stamps, stampOf(file))
		}
	}
	project, err := m.project.WithServicesEnvironmentResolved(true)
	if err != nil {
		return err
	}
	if project, err = project.WithServicesLabelsResolved(true); err != nil {
		return err
	}
	m.project = project
	return nil
}

// collectContents finds the files of one service and digests those that only change with the revision.
func (m *model) collectContents(name string, service types.ServiceConfig, r request) error {
	c := contents{digest: map[string]string{}, files: map[string]string{}}
	bind := func(what, path string) error { return c.bind(m, what, path, r) }
	for _, volume := range service.Volumes {
		if volume.Type != types.VolumeTypeBind {
			continue
		}
		if err := bind("bind "+volume.Target, volume.Source); err != nil {
			return fmt.Errorf("service %s: %w", name, err)
		}
	}
	for _, option := range service.SecurityOpt {
		profile, ok := seccompProfile(option)
		if !ok {
			continue
		}
		path, err := r.stable(profile)
		if err == nil {
			err = bind("seccomp profile", path)
		}
		if err != nil {
			return fmt.Errorf("service %s: seccomp profile %s: %w", name, profile, err)
		}
	}
	for _, used := range service.Configs {
		config := m.project.Configs[used.Source]
		if config.File != "" {
			if err := bind("config "+used.Source, config.File); err != nil {
				return fmt.Errorf("service %s: %w", name, err)
			}
			continue
		}
		c.digest["config "+used.Source] = digestText(inlineConfig(m.project, config))
	}
	for _, used := range service.Secrets {
		secret := m.project.Secrets[used.Source]
		if secret.File != "" {
			if err := bind("secret "+used.Source, secret.File); err != nil {
				return fmt.Errorf("service %s: %w", name, err)
			}
			continue
		}
		c.digest["secret "+used.Source] = digestText(m.project.Environment[secret.Environment])
	}
	m.content[name] = c
	return nil
}

// seccompProfile gives the file of a seccomp profile that an entry of security_opt names.
func seccompProfile(option string) (string, bool) {
	name, value, _ := strings.Cut(strings.Replace(option, "=", ":", 1), ":")
	return value, name == "seccomp" && value != "unconfined" && value != "builtin"
}

func inlineConfig(project *types.Project, config types.ConfigObjConfig) string {
	if config.Content != "" {
		return config.Content
	}
	return project.Environment[config.Environment]
}

// bind records what a mount of the host's files brings: the digest of what comes from the fleet repository, the name of a
// secret, nothing of what is the host's own. A folder of the repository that is not there is made, as Docker does.
func (c *contents) bind(m *model, what, path string, r request) error {
	if within(r.secretsDir, path) {
		c.secrets = append(c.secrets, path)
		return nil
	}
	if !within(r.projectDir, path) {
		return nil // the host's own
	}
	rel, err := filepath.Rel(r.projectDir, path)
	if err != nil {
		return err
	}
	from := filepath.Join(r.base(), rel)
	m.stamps = append(m.stamps, stampOf(from))
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		if !strings.HasPrefix(what, "bind ") {
			return fmt.Errorf("%s: the file %s is not there", what, rel)
		}
		c.folders = append(c.folders, path)
		return nil
	}
	digest, err := digestTree(from, func(path string) { m.stamps = append(m.stamps, stampOf(path)) })
	if err != nil {
		return fmt.Errorf("read %s: %w", rel, cause(err))
	}
	c.placed = append(c.placed, placed{from: from, to: path})
	c.digest[what], c.files[what] = digest, digest
	return nil
}

func within(dir, path string) bool {
	if dir == "" {
		return false
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func digestText(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

func digestJSON(values ...any) (string, error) {
	text, err := json.Marshal(values)
	if err != nil {
		return "", err
	}
	return digestText(string(text)), nil
}

// digestTree digests a file, or all files below a folder with their names and whether they are executable.
func digestTree(root string, visit func(path string)) (string, error) {
	var lines []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		visit(path)
		if d.IsDir() {
			return nil
		}
		sum, err := digestFile(path)
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		lines = append(lines, fmt.Sprintf("%q %t %x", rel, info.Mode()&0o111 != 0, sum))
		return nil
	})
	if err != nil {
		return "", err
	}
	sort.Strings(lines)
	return digestText(strings.Join(lines, "\n")), nil
}

// digestFile reads a file of any size piece by piece.
func digestFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}

// contentDigest joins what the model knows with the secret files as they are now. changed gives each part by name.
func (c contents) contentDigest() (digest string, parts map[string]string, err error) {
	parts = map[string]string{}
	for what, value := range c.digest {
		parts[what] = value
	}
	for _, path := range c.secrets {
		value, err := digestTree(path, func(string) {})
		if err != nil {
			return "", nil, fmt.Errorf("secret file %s: %w", filepath.Base(path), cause(err))
		}
		parts["secret file "+filepath.Base(path)] = value
	}
	if len(parts) == 0 {
		return "", parts, nil
	}
	lines := make([]string, 0, len(parts))
	for what, value := range parts {
		lines = append(lines, what+"="+value)
	}
	sort.Strings(lines)
	return digestText(strings.Join(lines, "\n")), parts, nil
}
