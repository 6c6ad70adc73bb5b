package certificates_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/certificates"
)

// world is a fleet as it is merged: the hub signs what the spokes publish, and each reads its own.
type world struct {
	t     *testing.T
	clock *clock
	key   string
	hub   *subject
	spoke map[string]*subject
}

const head = "apiVersion: dive/v1alpha1\nkind: "

// files are the fleet's; over replaces some.
func files(over map[string]string) map[string]string {
	all := map[string]string{
		"fleet.yaml":        head + "Fleet\nmetadata: {name: coalition}\n",
		"hosts/usa-01.yaml": head + "Host\nmetadata: {name: usa-01}\nspec: {}\n",
		"instances/usa.yaml": head + `Instance
metadata: {name: usa}
spec:
  role: hub
  host: usa-01
  secrets: {FLEET_CA_KEY: {generate: {kind: rsa}}}
  components:
    authority:
      kind: CertificateAuthority
      key: ${FLEET_CA_KEY}
      requests: "${{for s in fleet.spokes : s.name => s.outputs.certificate.request}}"
      publish: [ca, certificates]
`,
	}
	for _, name := range []string{"deu", "fra"} {
		all["hosts/"+name+"-01.yaml"] = head + "Host\nmetadata: {name: " + name + "-01}\nspec: {}\n"
		all["instances/"+name+".yaml"] = head + `Instance
metadata: {name: ` + name + `}
spec:
  role: spoke
  host: ` + name + `-01
  components:
    certificate:
      kind: Certificate
      names: [` + name + `.test, 127.0.0.1]
      issued: ${instances.usa.authority.certificates}
      publish: [request]
`
	}
	for name, text := range over {
		all[name] = text
	}
	return all
}

var kinds = []desired.Kind{certificates.HolderKind, certificates.AuthorityKind}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{}, key: newKey(t), spoke: map[string]*subject{}}
	w.load(files(nil))
	return w
}

func newKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return privatePEM(t, key)
}

func privatePEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// load merges a fleet; folders of components stay.
func (w *world) load(all map[string]string) {
	w.t.Helper()
	dir := w.t.TempDir()
	for name, text := range all {
		file := filepath.Join(dir, name)
		require.NoError(w.t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(w.t, os.WriteFile(file, []byte(text), 0o600))
	}
	fleet, err := desired.Load(dir, desired.Options{Kinds: kinds})
	require.NoError(w.t, err)
	w.hub = w.subject(fleet, "usa", w.hub, certificates.NewAuthority)
	for name := range fleet.Instances {
		if name != "usa" {
			w.spoke[name] = w.subject(fleet, name, w.spoke[name], certificates.NewHolder)
		}
	}
}

func (w *world) subject(fleet *desired.Fleet, name string, before *subject, make func(reconcilers.Deps) reconcilers.Reconciler) *subject {
	instance := fleet.Instances[name]
	s := &subject{world: w, reconciler: make(w.deps()), target: reconcilers.Target{
		Instance: instance, Component: instance.Components[0], Fleet: fleet, Dir: w.t.TempDir(), Log: slog.New(slog.DiscardHandler),
	}}
	if before != nil {
		s.target.Dir = before.target.Dir
	}
	secrets := map[string]desired.Value{}
	for _, secret := range instance.Secrets {
		secrets[secret.Name] = desired.Secret(w.key)
	}
	s.target.Scope = instance.Scope(secrets)
	return s
}

func (w *world) deps() reconcilers.Deps {
	return reconcilers.Deps{Clock: w.clock, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler), Redact: func(s string) string { return s }}
}

// cross brings to the hub what the spokes publish, and to the spokes what the hub publishes.
func (w *world) cross() {
	w.t.Helper()
	requests := map[string]map[string]map[string]desired.Value{}
	for name, s := range w.spoke {
		requests[name] = map[string]map[string]desired.Value{"certificate": s.observe().Outputs}
	}
	w.hub.target.Scope = w.hub.target.Scope.WithInstances(requests)
	issued, ok := w.hub.observe().Outputs["certificates"]
	if !ok {
		return
	}
	all, ok := issued.Fields()
	require.True(w.t, ok)
	for name, s := range w.spoke {
		if own, ok := all[name]; ok {
			s.target.Scope = s.target.Scope.WithInstances(map[string]map[string]map[string]desired.Value{"usa": {"authority": {"certificates": own}}})
		}
	}
}

// settle goes on until nobody has anything to do.
func (w *world) settle() {
	w.t.Helper()
	for range 6 {
		for _, s := range w.spoke {
			s.step()
		}
		w.cross()
		w.hub.step()
		w.cross()
	}
}

// subject is a reconciler with its target, driven as the agent does.
type subject struct {
	*world
	target     reconcilers.Target
	reconciler reconcilers.Reconciler
}

func (s *subject) observe() reconcilers.Observed {
	s.t.Helper()
	o, err := s.reconciler.Observe(s.t.Context(), s.target)
	require.NoError(s.t, err)
	return o
}

func (s *subject) plan() []reconcilers.Change {
	s.t.Helper()
	p, err := s.reconciler.Plan(s.target, s.observe())
	require.NoError(s.t, err)
	return p.Changes
}

func (s *subject) pass() error {
	s.t.Helper()
	o := s.observe()
	p, err := s.reconciler.Plan(s.target, o)
	require.NoError(s.t, err)
	if len(p.Changes) == 0 {
		return o.Err
	}
	_, err = s.reconciler.Apply(s.t.Context(), s.target, p, silent{})
	return err
}

// step is a pass that may end with a wait.
func (s *subject) step() {
	s.t.Helper()
	var wait *reconcilers.WaitError
	if err := s.pass(); err != nil {
		require.ErrorAs(s.t, err, &wait)
	}
}

func (s *subject) ready() map[string]desired.Value {
	s.t.Helper()
	require.NoError(s.t, s.pass())
	require.Empty(s.t, s.plan())
	return s.observe().Outputs
}

// picture is what a component's file says, without what differs from run to run.
func picture(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		require.NoError(t, err)
		var content map[string]any
		require.NoError(t, json.Unmarshal(data, &content))
		for name, value := range content {
			line := entry.Name() + " " + name
			if name == "signed" {
				var of []string
				for _, one := range value.(map[string]any) {
					of = append(of, one.(map[string]any)["instance"].(string))
				}
				sort.Strings(of)
				line += " " + strings.Join(of, " ")
			}
			lines = append(lines, line)
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

type silent struct{}

func (silent) Begin(ctx context.Context, _ ...reconcilers.Change) error { return ctx.Err() }
func (silent) End(reconcilers.Change, error)                            {}
func (silent) Say(string, ...any)                                       {}
func (silent) Started()                                                 {}

// clock is the machine's, set forward at will.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *clock) After(d time.Duration) <-chan time.Time { return time.After(d) }

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}
