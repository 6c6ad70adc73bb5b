package compose

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"github.com/zclconf/go-cty/cty"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// world is a stack on the real engine: its folders, its manifest, and a reconciler.
type world struct {
	t        *testing.T
	engine   *client.Client
	project  string
	image    string // a small server that runs until it is told to stop
	spec     *Spec
	instance *desired.Instance
	dirs     string
	outputs  map[string]desired.Value // of component "database"
	foreign  map[string]cty.Value     // what other instances publish
	secrets  map[string]string
	r        *Reconciler
	revision int

	foreignHash   bool // make stacks by hand with the hashes of another Compose
	foreignLabels map[string]string
}

func newWorld(t *testing.T, composeFile string) *world {
	t.Helper()
	engine := testbed.Engine(t)
	w := &world{
		t: t, engine: engine, project: testbed.Prefix(t), image: testbed.Image(t, testbed.Base), dirs: t.TempDir(),
		spec: &Spec{HealthTimeout: desired.Duration(40 * time.Second)}, outputs: map[string]desired.Value{}, secrets: map[string]string{},
	}
	w.spec.Project = desired.Literal(w.project)
	w.spec.Environment = map[string]desired.Expr{"IMAGE": desired.Literal(w.image), "RUN": desired.Literal(serve)}
	w.instance = &desired.Instance{Name: "deu", Digest: "1", Source: "blueprints/spoke"}
	for _, dir := range []string{"project", "secrets", "state"} {
		require.NoError(t, os.Mkdir(filepath.Join(w.dirs, dir), 0o700))
	}
	w.restart()
	w.write(map[string]string{"compose.yaml": composeFile})
	t.Cleanup(w.clean)
	return w
}

// serve is a command that runs until it is told to stop, and is ready at once.
const serve = `trap 'exit 0' TERM; echo serving; while :; do sleep 0.2 & wait $!; done`

// restart gives a reconciler that remembers nothing, as after a restart of the process.
func (w *world) restart() {
	w.r = New(reconcilers.Deps{Engine: w.engine, Clock: reconcilers.SystemClock{}, Log: slog.New(slog.DiscardHandler), Redact: w.redact, Compose: reconcilers.Compose{Allow: []string{"mount:" + os.TempDir()}}}).(*Reconciler)
}

func (w *world) redact(text string) string {
	for _, secret := range w.secrets {
		text = strings.ReplaceAll(text, secret, "(secret)")
	}
	return text
}

// write makes a new revision: a source folder of its own, with the files of the last one and these.
func (w *world) write(files map[string]string) {
	w.t.Helper()
	old := w.source()
	w.revision++
	require.NoError(w.t, os.MkdirAll(w.source(), 0o755))
	if w.revision > 1 {
		require.NoError(w.t, os.CopyFS(w.source(), os.DirFS(old)))
	}
	for name, content := range files {
		path := filepath.Join(w.source(), name)
		require.NoError(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(w.t, os.WriteFile(path, []byte(content), 0o644))
	}
}

func (w *world) source() string { return filepath.Join(w.dirs, fmt.Sprintf("revision-%d", w.revision)) }

func (w *world) target(part string) reconcilers.Target {
	secrets := map[string]desired.Value{}
	for name, value := range w.secrets {
		secrets[name] = desired.Secret(value)
	}
	component := &desired.Component{Name: "stack", Kind: Kind.Name, Spec: w.spec}
	w.instance.Components = []*desired.Component{component}
	scope := desired.NewScope(secrets).WithObject("database", w.outputs)
	scope = scope.With(map[string]desired.Value{"instances": desired.ValueOf(cty.ObjectVal(w.foreign))})
	return reconcilers.Target{
		Instance: w.instance, Component: component, Part: part, Fleet: &desired.Fleet{}, Scope: scope,
		SourceDir: w.source(), ProjectDir: filepath.Join(w.dirs, "project"), SecretsDir: filepath.Join(w.dirs, "secrets"),
		Dir: filepath.Join(w.dirs, "state"), Log: slog.New(slog.DiscardHandler),
	}
}

func (w *world) expr(text string) desired.Expr {
	e, problems := desired.ParseExpr(text, desired.Position{File: "x.yaml", Line: 1, Column: 1})
	require.Empty(w.t, problems)
	return e
}

func (w *world) set(name, text string) {
	w.spec.Environment = maps.Clone(w.spec.Environment)
	w.spec.Environment[name] = desired.Literal(text)
}

// clean removes everything of the project.
func (w *world) clean() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), time.Minute)
	defer cancel()
	list, err := w.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: projectFilter(w.project)})
	require.NoError(w.t, err)
	for _, c := range list.Items {
		_, _ = w.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}
	networks, err := w.engine.NetworkList(ctx, client.NetworkListOptions{})
	require.NoError(w.t, err)
	for _, n := range networks.Items {
		if strings.HasPrefix(n.Name, w.project) {
			_, _ = w.engine.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
		}
	}
	volumes, err := w.engine.VolumeList(ctx, client.VolumeListOptions{Filters: projectFilter(w.project)})
	require.NoError(w.t, err)
	for _, v := range volumes.Items {
		_, _ = w.engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true})
	}
}

func (w *world) observe(part string) reconcilers.Observed {
	w.t.Helper()
	o, err := w.r.Observe(w.t.Context(), w.target(part))
	require.NoError(w.t, err)
	return o
}

func (w *world) plan(part string) reconcilers.Plan {
	w.t.Helper()
	p, err := w.r.Plan(w.target(part), w.observe(part))
	require.NoError(w.t, err)
	return p
}

func (w *world) try(part string) error {
	w.t.Helper()
	p := w.plan(part)
	_, err := w.r.Apply(w.t.Context(), w.target(part), p, &heard{t: w.t})
	return err
}

// up brings the shared part and the services to their desired state, in this order, and checks that each is in sync.
func (w *world) up(services ...string) {
	w.t.Helper()
	for _, part := range append([]string{SharedPart}, services...) {
		require.NoError(w.t, w.try(part), part)
		w.inSync(part)
	}
}

func (w *world) inSync(part string) {
	w.t.Helper()
	o := w.observe(part)
	require.NoError(w.t, o.Err, part)
	p, err := w.r.Plan(w.target(part), o)
	require.NoError(w.t, err)
	require.Empty(w.t, p.Changes, part)
}

func (w *world) change(part string) reconcilers.Change {
	w.t.Helper()
	p := w.plan(part)
	require.Len(w.t, p.Changes, 1, part)
	return p.Changes[0]
}

// inspect gives the one container of a service.
func (w *world) inspect(service string) container.InspectResponse {
	w.t.Helper()
	list, err := w.engine.ContainerList(w.t.Context(), client.ContainerListOptions{
		All: true, Filters: projectFilter(w.project, "com.docker.compose.service="+service),
	})
	require.NoError(w.t, err)
	require.Len(w.t, list.Items, 1, "containers of service %s", service)
	c, err := w.engine.ContainerInspect(w.t.Context(), list.Items[0].ID, client.ContainerInspectOptions{})
	require.NoError(w.t, err)
	return c.Container
}

// commit makes an image from the test image with other Dockerfile instructions; it is removed with the test.
func (w *world) commit(tag string, changes ...string) string {
	w.t.Helper()
	made, err := w.engine.ContainerCreate(w.t.Context(), client.ContainerCreateOptions{
		Name: w.project + "-commit-" + testbed.Prefix(w.t), Config: &container.Config{Image: w.image, Cmd: []string{"true"}},
	})
	require.NoError(w.t, err)
	name := w.project + ":" + tag
	image, err := w.engine.ContainerCommit(w.t.Context(), made.ID, client.ContainerCommitOptions{Reference: name, Changes: changes})
	require.NoError(w.t, err)
	_, err = w.engine.ContainerRemove(w.t.Context(), made.ID, client.ContainerRemoveOptions{Force: true})
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), time.Minute)
		defer cancel()
		w.clean()
		_, _ = w.engine.ImageRemove(ctx, name, client.ImageRemoveOptions{Force: true})
		_, _ = w.engine.ImageRemove(ctx, image.ID, client.ImageRemoveOptions{Force: true}) // the tag may have moved
	})
	return name
}

// heard keeps what an apply says.
type heard struct {
	t       *testing.T
	mu      sync.Mutex
	said    []string
	begun   []reconcilers.Change
	started bool
}

func (h *heard) Begin(ctx context.Context, changes ...reconcilers.Change) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begun = append(h.begun, changes...)
	return ctx.Err()
}

func (h *heard) End(c reconcilers.Change, err error) {
	h.t.Logf("%s %s (%s): %v", c.Action, c.Address, c.Reason, err)
}

func (h *heard) Say(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = append(h.said, fmt.Sprintf(format, args...))
	h.t.Logf("  "+format, args...)
}

func (h *heard) Started() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.started = true
}

// stopper cancels the call as soon as the container was started.
type stopper struct {
	*heard
	cancel context.CancelCauseFunc
}

func (s *stopper) Started() { s.cancel(nil) }

func cancellable(t *testing.T) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	return ctx, cancel
}

func (w *world) eventually(what string, ask func() bool) {
	w.t.Helper()
	testbed.Eventually(w.t, 20*time.Second, what, func() error {
		if !ask() {
			return errors.New("not yet")
		}
		return nil
	})
}
