package compose

import (
	"fmt"
	"regexp"
	"time"

	"dive-agent/desired"
)

// Kind is the manifest kind that this package reconciles.
var Kind = desired.Kind{
	Name: "ComposeStack",
	Doc:  "A Compose file whose services are started one by one, as soon as what each of them needs is ready.",
	New:  func() any { return &Spec{} },
}

// Spec is the manifest of a ComposeStack.
type Spec struct {
	Project       desired.Expr            `yaml:"project" doc:"Compose project name; default dive-<instance>. Containers, networks and volumes carry it, so it must not change."`
	Files         []string                `yaml:"files" doc:"Compose files relative to the source folder, later ones override earlier ones; default compose.yaml."`
	Environment   map[string]desired.Expr `yaml:"environment" doc:"Variables for the interpolation of the Compose files. A service whose definition uses one waits for the outputs it is made of. SECRETS_DIR, the folder of the secret files, is always set."`
	Profiles      []desired.Expr          `yaml:"profiles" doc:"Active Compose profiles; may use values, as ${policyRepo == \"\" ? \"\" : \"policy\"}. An empty text is none."`
	After         map[string][]string     `yaml:"after" doc:"Service -> components it waits for, where the data does not say so already."`
	HealthTimeout desired.Duration        `yaml:"healthTimeout" default:"3m" doc:"How long a new container may take to become healthy before the last good version is put back."`
	Pull          string                  `yaml:"pull" default:"missing" enum:"missing,always,never" doc:"When images are pulled: those the host lacks, all at each new revision, or none. What a service says itself (pull_policy) comes first."`

	Track         string           `yaml:"track" default:"off" enum:"off,digest" doc:"digest: the registry is asked again and again what the tags of the images lead to (by HEAD of the manifest, nothing is pulled for it); one that has moved is a planned change with the old and the new digest."`
	TrackEvery    desired.Duration `yaml:"trackEvery" default:"15m" doc:"How often registries are asked; 1m at least."`
	TrackServices []string         `yaml:"trackServices" doc:"Services whose images are followed; default all. Images with a digest in their name, and those that are never pulled, cannot move."`
	MakeExternal  []string         `yaml:"makeExternal" doc:"Networks and volumes, as the Compose file calls them, that it declares as external and that are made where the host lacks them, with the engine's defaults. They are never changed or removed. Without it the stack waits for them."`

	PruneImages desired.Duration `yaml:"pruneImages" doc:"Images that this stack pulled are removed this long after its Compose file named them last, unless a container of the host is made of them or a service may be put back to them. Default: never."`

	Registries map[string]RegistryAccount `yaml:"registries" doc:"Registry, named as images name it -> who images are pulled as. Registries that are not named are asked with the host's own credentials, where the agent's configuration has them (dockerConfig)."`

	Drift       string              `yaml:"drift" default:"correct" enum:"correct,report,ignore" doc:"What is done about what was changed by hand: correct puts it back; report tells what differs, and since when, and changes nothing until the next change of the service in the manifest or the Compose file; ignore does not tell either. A service that was stopped, paused or removed is left so by the last two, and is not ready."`
	Ignore      []string            `yaml:"ignore" doc:"Fields of containers that may be changed by hand, in the words of a plan's reasons: memory limit, environment LOG_LEVEL, label team, mount /cache, network monitoring; environment, label, mount, network or port alone stands for all of them."`
	MaxRestarts int                 `yaml:"maxRestarts" default:"20" doc:"How often a service may end in a row, although nobody stopped it, before it is given up: it is left stopped and the instance is Blocked, until the service changes, somebody starts it, or a service that it depends on is started. One that ran for five minutes, or twice as long as between its ends, is counted anew. From 3 on the agent starts it ever later. 0: it is never given up."`
	Services    map[string]Settings `yaml:"services" doc:"Service -> what is different for it."`
	Update      map[string]Update   `yaml:"update" doc:"Service -> how it goes from one version to the next, over deploy.update_config of the Compose file."`
}

// SharedPart is the part that holds what all services of a stack share.
const SharedPart = "@resources"

// secretsVariable names the instance's secrets folder in every Compose file, unless the manifest sets it itself.
const secretsVariable = "SECRETS_DIR"

// validProject is what Compose takes for a project's name.
var validProject = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)

func (s *Spec) files() []string {
	if len(s.Files) == 0 {
		return []string{"compose.yaml"}
	}
	return s.Files
}

func (s *Spec) drift() string {
	if s.Drift == "" {
		return driftCorrect
	}
	return s.Drift
}

func (s *Spec) healthTimeout() time.Duration {
	if s.HealthTimeout <= 0 {
		return 3 * time.Minute
	}
	return s.HealthTimeout.Std()
}

// profiles evaluates the active profiles. They never depend on an output: they say what the stack consists of.
func (s *Spec) profiles(scope *desired.Scope) (names []string, err error) {
	for _, profile := range s.Profiles {
		value, err := profile.Eval(scope)
		if err != nil {
			return nil, fmt.Errorf("evaluate a profile: %w", err)
		}
		if !value.Known() || value.Secret() {
			return nil, fmt.Errorf("the profile %q must be known from the start and no secret", profile.Source())
		}
		if name := value.Text(); name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// projectName evaluates the project's name. It never depends on an output: the name finds what already runs.
func (s *Spec) projectName(instance string, scope *desired.Scope) (string, error) {
	if s.Project.IsZero() {
		return "dive-" + instance, nil
	}
	value, err := s.Project.Eval(scope)
	if err != nil {
		return "", fmt.Errorf("evaluate the project name: %w", err)
	}
	if !value.Known() || value.Secret() {
		return "", fmt.Errorf("the project name %q must be known from the start and no secret", s.Project.Source())
	}
	name := value.Text()
	if !validProject.MatchString(name) {
		return "", fmt.Errorf("project name %q: use lower-case letters, digits, - and _, starting with a letter or digit", name)
	}
	return name, nil
}
