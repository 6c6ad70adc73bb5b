package compose

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/compose/v5/pkg/api"
	sdk "github.com/docker/compose/v5/pkg/compose"
)

// contentLabel is the container label that holds a digest of everything the Compose SDK does not look at: contents of
// configs, secrets and bound files. It is no part of Compose's own config hash.
const contentLabel = "dive.content"

// request is everything that shapes a loaded model.
type request struct {
	sourceDir  string // where files are read: the sealed snapshot
	projectDir string // where containers bind them from: stable between revisions
	secretsDir string
	project    string
	files      []string
	profiles   []string
	env        map[string]string // values for the interpolation; a stand-in for those not known yet
	unknown    []string          // the names of those, sorted
	shallow    bool              // leave out env files and file contents

	named map[string]bool // files that gather found, see gatherer; follows from the others
}

// model is a loaded stack. It is shared and must not be changed; mutable copies come from narrowed and friends.
type model struct {
	project *types.Project // paths lead into the project folder, labels are set, env files are resolved
	hashes  map[string]string
	content map[string]contents
	uses    map[string][]string // service -> variables that its definition uses, sorted
	// written digests what the revision says of each service: its definition with its variables still in it, and its files.
	written map[string]string
	// imageUses are the variables in the image's name of each service.
	imageUses map[string][]string
	builds    map[string]*building // image -> how it is built
	stamps    []stamp              // files on disk that shaped the model

	updates    map[string]types.UpdateConfig // service -> its deploy.update_config
	replicated map[string]bool               // services with deploy.replicas
}

func (r request) base() string { return filepath.Clean(r.sourceDir) }

// load reads the stack. Errors name the file and the place in it as far as they are known; they never hold values.
func load(ctx context.Context, r request) (*model, error) {
	raw, err := unresolved.load(ctx, r)
	if err != nil {
		return nil, err
	}
	m := &model{
		hashes: map[string]string{}, content: map[string]contents{}, written: map[string]string{}, builds: map[string]*building{}, stamps: slices.Clone(raw.stamps),
	}
	r.named = raw.named
	if err := r.checkPorts(raw.dict); err != nil {
		return nil, err
	}
	details := raw.details
	details.ConfigFiles = slices.Clone(details.ConfigFiles)
	details.Environment = types.Mapping{}
	maps.Copy(details.Environment, r.env)
	for _, name := range r.unknown {
		if raw.sources[name] { // a plain 0 would be the name of a volume
			details.Environment[name] = "/" + standIn
		}
	}
	casts := func(o *loader.Options) { o.Interpolate.TypeCastMapping = raw.prune(o.Interpolate.TypeCastMapping) }
	var project *types.Project
	err = recovered(func() (err error) {
		project, err = loader.LoadWithContext(ctx, details, r.options, casts)
		return err
	})
	if err != nil {
		return nil, r.explain(err)
	}
	m.project = project
	if err := m.resolvePaths(r); err != nil {
		return nil, err
	}
	if err := m.prepareBuilds(r); err != nil {
		return nil, err
	}
	if !r.shallow {
		if err := m.resolveEnvFiles(); err != nil {
			return nil, r.explain(err)
		}
	}
	m.takePolicies()
	m.label(r)
	m.uses, m.imageUses = usedVariables(raw.dict, m.project, r)
	if r.shallow {
		return m, nil
	}
	for name, service := range m.project.Services {
		if m.hashes[name], err = sdk.ServiceHash(service); err != nil {
			return nil, fmt.Errorf("hash the definition of service %s: %w", name, err)
		}
		if err := m.collectContents(name, service, r); err != nil {
			return nil, err
		}
		definition, _ := section(raw.dict, "services", name).(map[string]any)
		said := []any{definition, envFiles(definition, r), m.content[name].files}
		if b := m.builds[service.Image]; b != nil {
			said = append(said, b.repository())
		}
		if m.written[name], err = digestJSON(said...); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// details reads the Compose files within the limits; compose-go then reads what they include or extend.
func (r request) details() (details types.ConfigDetails, named map[string]bool, err error) {
	details = types.ConfigDetails{WorkingDir: r.base(), Environment: types.Mapping{}}
	read, err := r.gather()
	if err != nil {
		return details, nil, err
	}
	content := map[string][]byte{}
	for _, file := range read.files {
		content[file.path] = file.content
	}
	for _, name := range r.files {
		path, err := r.inside(name)
		if err != nil {
			return details, nil, fmt.Errorf("find Compose file %s: %w", name, err)
		}
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: path, Content: content[path]})
	}
	return details, read.named, nil
}

// recovered turns a panic into an error: compose-go takes some files that are not as its schema wants them for what they are not.
func recovered(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it is nothing that Compose can read: %v", p)
		}
	}()
	return f()
}

func (r request) options(o *loader.Options) {
	o.SetProjectName(r.project, true)
	o.ResolvePaths = false
	o.SkipResolveEnvironment = true
	o.SkipResolveLabels = true
	o.Profiles = r.profiles
	o.Interpolate.Substitute = substituteStrictly
	o.ResourceLoaders = append(o.ResourceLoaders, guard{r})
}

// rawOptions load the merged model with its variables still in it.
func (r request) rawOptions(o *loader.Options) {
	r.options(o)
	o.SkipInterpolation = true
	o.SkipValidation = true
	o.SkipNormalization = true
	o.SkipConsistencyCheck = true
	o.SkipDefaultValues = true
}

// guard refuses files to include or extend that lie outside the source folder and that gather did not find in it. compose-go
// asks it before its own loader.
type guard struct{ r request }

func (g guard) Accept(path string) bool {
	_, err := g.r.inside(path)
	return err != nil && !g.r.named[path] && !g.r.named[strings.TrimLeft(path, "./")]
}

func (g guard) Load(_ context.Context, path string) (string, error) {
	_, err := g.r.inside(path)
	return "", fmt.Errorf("%s: %w", path, err)
}

func (g guard) Dir(path string) string { return filepath.Dir(path) }

var errOutside = errors.New("the path leaves the source folder: keep what the stack needs beside its Compose file")

// inside gives the place of a file of the source folder on disk.
func (r request) inside(name string) (string, error) {
	if strings.Contains(name, "://") {
		return "", errors.New("remote files are not read: keep the file beside the Compose file")
	}
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.base(), name)
	}
	if rel, err := filepath.Rel(r.base(), path); err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", errOutside
	}
	return filepath.Clean(path), nil
}

// unsetError is a variable that the manifest's environment does not have.
type unsetError struct{ name string }

func (e *unsetError) Error() string {
	return fmt.Sprintf("variable %s is not set: add it to the component's environment, or write $$ for a plain $", e.name)
}

var variableName = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)

// substituteStrictly interpolates as Compose does, but a variable without a value and a default is an error.
func substituteStrictly(text string, mapping template.Mapping) (string, error) {
	return template.SubstituteWithOptions(text, mapping, template.WithoutLogging,
		template.WithReplacementFunction(func(found string, mapping template.Mapping, config *template.Config) (string, error) {
			value, applied, err := template.DefaultReplacementAppliedFunc(found, mapping, config)
			if err == nil && !applied {
				return "", &unsetError{variableName.FindString(found)}
			}
			return value, err
		}))
}

// label sets what `docker compose` finds its containers by, and our own content label.
func (m *model) label(r request) {
	var files []string
	for _, file := range r.files {
		files = append(files, filepath.Join(r.projectDir, file))
	}
	m.project.WorkingDir = r.projectDir
	m.project.ComposeFiles = files
	for name, service := range m.project.Services {
		service.CustomLabels = types.Labels{
			api.ProjectLabel:     m.project.Name,
			api.ServiceLabel:     name,
			api.VersionLabel:     api.ComposeVersion,
			api.WorkingDirLabel:  r.projectDir,
			api.ConfigFilesLabel: strings.Join(files, ","),
			api.OneoffLabel:      "False",
		}
		m.project.Services[name] = service
	}
}

// narrowed gives a copy of the project with one service and what it uses.
func (m *model) narrowed(service string) (*types.Project, error) {
	project, err := m.project.WithSelectedServices([]string{service}, types.IgnoreDependencies)
	if err != nil {
		return nil, fmt.Errorf("select service %s: %w", service, err)
	}
	return project.WithoutUnnecessaryResources(), nil
}

// onlyNetwork and onlyVolume give a copy of the project without services and with one shared resource.
func (m *model) onlyNetwork(key string) *types.Project {
	project := m.project.WithServicesDisabled(m.project.ServiceNames()...)
	project.Networks = types.Networks{key: m.project.Networks[key]}
	project.Volumes = types.Volumes{}
	return project
}

func (m *model) onlyVolume(key string) *types.Project {
	project := m.project.WithServicesDisabled(m.project.ServiceNames()...)
	project.Networks = types.Networks{}
	project.Volumes = types.Volumes{key: m.project.Volumes[key]}
	return project
}

// images lists the images of the active services, sorted, each once.
func (m *model) images() []string {
	seen := map[string]bool{}
	for _, service := range m.project.Services {
		seen[service.Image] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// oneShot says whether a service is done once it has exited with 0: it is marked so, a service waits for its
// completion, or it has nothing that a lasting service has.
func (m *model) oneShot(name string) bool {
	service := m.project.Services[name]
	if service.Labels[classLabel] == "init" || service.Labels["dive.service.type"] == "init" {
		return true
	}
	for _, other := range m.project.Services {
		if d, ok := other.DependsOn[name]; ok && d.Condition == types.ServiceConditionCompletedSuccessfully {
			return true
		}
	}
	return false
}

// mayComplete says whether a service that has exited with 0 counts as done although nothing says that it must exit.
func mayComplete(service types.ServiceConfig) bool {
	return service.Restart == types.RestartPolicyNo && service.HealthCheck == nil && len(service.Ports) == 0
}

// cause takes the operating system's word out of an error that also holds the path of the snapshot.
func cause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// explain takes the snapshot's path, which changes with each revision, out of an error of the loader.
func (r request) explain(err error) error {
	if err == nil {
		return nil
	}
	return &loadError{text: strings.ReplaceAll(err.Error(), r.base()+string(filepath.Separator), ""), err: err}
}

type loadError struct {
	text string
	err  error
}

func (e *loadError) Error() string { return e.text }
func (e *loadError) Unwrap() error { return e.err }
