package compose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dive-agent/reconcilers"
)

// Reconciler brings the parts of a Compose stack to their desired state. It is safe for concurrent use, as long as no
// two calls are about one part.
type Reconciler struct {
	engine *client.Client
	clock  reconcilers.Clock
	log    *slog.Logger
	redact func(string) string
	models *cache
	sdk    sdkHolder

	stream   stream
	witness  witness
	flapping sync.Map  // path of a service's record -> whether it flaps: Watch looks at it again
	allow    allowance // what this host allows

	certificates string        // folder with the engine's certificates for registries
	dockerConfig string        // Docker configuration with the host's credentials for registries; empty: none
	quietLimit   time.Duration // for which a pull may say nothing
	claimsMu     sync.Mutex
	claims       map[string][]string // folder of a stack -> IDs of the images that it wants
	hostPlatform atomic.Pointer[ocispec.Platform]

	addresses sync.Mutex // held from the choice of an address until a container has it
}

// modelsKept is how many models stay in memory, some 65 kB each: a stack has one for each state of its environment within a
// round (nothing known yet, the database's outputs, the token), and a host has several stacks.
const modelsKept = 64

var (
	_ reconcilers.Reconciler    = (*Reconciler)(nil)
	_ reconcilers.Watcher       = (*Reconciler)(nil)
	_ reconcilers.ServiceFinder = (*Reconciler)(nil)
	_ reconcilers.DataKeeper    = (*Reconciler)(nil)
	_ reconcilers.RollsBack     = (*Reconciler)(nil)
)

// New makes the reconciler. It does not talk to the engine yet.
func New(deps reconcilers.Deps) reconcilers.Reconciler {
	r := &Reconciler{
		engine: deps.Engine, clock: deps.Clock, log: deps.Log, redact: deps.Redact, models: newCache(modelsKept),
		dockerConfig: deps.DockerConfig, certificates: engineCertificates, quietLimit: quietLimit, allow: deps.Compose.Allow,
	}
	r.stream.Reconciler = r
	if r.clock == nil {
		r.clock = reconcilers.SystemClock{}
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.redact == nil {
		r.redact = func(text string) string { return text }
	}
	return r
}

// Registration is this kind's line in the program's list of reconcilers.
var Registration = reconcilers.Registration{Kind: Kind, New: New}

// RollsBack marks that a service is put back to its last good version by the apply that found the new one bad.
func (r *Reconciler) RollsBack() {}

// stack is one component as one call sees it.
type stack struct {
	target  reconcilers.Target
	spec    *Spec
	model   *model
	project string
	unknown map[string][]string // variable -> what it waits for, such as "registration.token"
	request request
}

// stack evaluates the environment and loads the model.
func (r *Reconciler) stack(ctx context.Context, t reconcilers.Target) (*stack, error) {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok {
		return nil, fmt.Errorf("component %s: its spec is a %T, no ComposeStack", t.Component.Name, t.Component.Spec)
	}
	s := &stack{target: t, spec: spec, unknown: map[string][]string{}}
	var err error
	if s.project, err = spec.projectName(t.Instance.Name, t.Scope); err != nil {
		return nil, err
	}
	env, err := s.environment()
	if err != nil {
		return nil, err
	}
	profiles, err := spec.profiles(t.Scope)
	if err != nil {
		return nil, err
	}
	s.request = request{
		sourceDir: t.SourceDir, projectDir: t.ProjectDir, secretsDir: t.SecretsDir, project: s.project,
		files: spec.files(), profiles: profiles, env: env, unknown: sortedKeys(s.unknown),
	}
	if s.model, err = r.models.load(ctx, s.request); err != nil {
		return nil, &reconcilers.BlockedError{
			Reason: "InvalidComposeFile", Message: "the stack's Compose file cannot be loaded", Err: err,
			Do: "Correct it in the repository",
		}
	}
	return s, nil
}

// standIn takes the place of a value that is not known yet; it is valid wherever Compose wants text or a number.
const standIn = "0"

func (s *stack) environment() (map[string]string, error) {
	env := map[string]string{secretsVariable: s.target.SecretsDir}
	for name, expr := range s.spec.Environment {
		value, err := expr.Eval(s.target.Scope)
		if err != nil {
			return nil, fmt.Errorf("environment %s: %w", name, err)
		}
		if value.Known() {
			env[name] = value.Text()
			continue
		}
		env[name], s.unknown[name] = standIn, expr.Missing(s.target.Scope)
	}
	return env, nil
}

// unknowns lists the inputs of a service that are not known yet, and the variables that they come in by.
func (s *stack) unknowns(service string) (inputs, variables []string) {
	seen := map[string]bool{}
	for _, name := range s.model.uses[service] {
		if waits, ok := s.unknown[name]; ok {
			variables = append(variables, name)
			for _, input := range waits {
				seen[input] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen)), variables
}

// recordPath is where the service's record lies. Services have names that are safe in a path.
func (s *stack) recordPath(service string) string {
	return filepath.Join(s.target.Dir, service+".json")
}

// Observe is reconcilers.Reconciler.
func (r *Reconciler) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	observed, err := r.observe(ctx, t)
	return observed, away(r.engine, err)
}

func (r *Reconciler) observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	s, err := r.stack(ctx, t)
	if err != nil {
		return reconcilers.Observed{}, err
	}
	if t.Part == SharedPart {
		return r.observeShared(ctx, s)
	}
	if _, ok := s.model.project.Services[t.Part]; !ok {
		return reconcilers.Observed{}, fmt.Errorf("the Compose file has no active service %q", t.Part)
	}
	if err := r.lawful(s, t.Part); err != nil {
		return reconcilers.Observed{}, err
	}
	return r.observeService(ctx, s)
}

// Plan is reconcilers.Reconciler.
func (r *Reconciler) Plan(_ reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	switch state := o.State.(type) {
	case *sharedState:
		return state.plan(), nil
	case *serviceState:
		return state.planAll(), nil
	}
	return reconcilers.Plan{}, errors.New("plan without an observation of this reconciler")
}

// Apply is reconcilers.Reconciler.
func (r *Reconciler) Apply(ctx context.Context, t reconcilers.Target, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	if err := ctx.Err(); err != nil {
		return reconcilers.Applied{}, err
	}
	if len(p.Unknown) > 0 {
		return reconcilers.Applied{}, &reconcilers.WaitError{For: p.Unknown[0]}
	}
	var (
		applied reconcilers.Applied
		err     error
	)
	switch state := p.State.(type) {
	case *sharedState:
		applied, err = r.applyShared(ctx, state, p, progress)
	case *serviceState:
		applied, err = r.applyService(ctx, state, p, progress)
	default:
		err = errors.New("apply without a plan of this reconciler")
	}
	return applied, away(r.engine, err)
}

func projectFilter(project string, labels ...string) client.Filters {
	filters := make(client.Filters).Add("label", "com.docker.compose.project="+project)
	for _, label := range labels {
		filters.Add("label", label)
	}
	return filters
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// toFields turns a value into its JSON fields.
func toFields(v any) (map[string]json.RawMessage, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	return fields, json.Unmarshal(text, &fields)
}
