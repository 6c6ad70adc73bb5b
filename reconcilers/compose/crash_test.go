package compose

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/testbed"
)

// doomed is what a process of its own is told: which stack it is to apply, and at which of its changes to the engine it is
// killed, by SIGKILL: before it asks for the change, or when it has asked and was not answered yet.
type doomed struct {
	Project, Image, Dirs string
	Revision             int
	Environment          map[string]string
	At                   int64
	Asked                bool
}

const doomedVariable = "DIVE_TEST_DOOMED"

// TestDoomed is that process.
func TestDoomed(t *testing.T) {
	told := os.Getenv(doomedVariable)
	if told == "" {
		t.Skip("it is started by other tests")
	}
	var m doomed
	require.NoError(t, json.Unmarshal([]byte(told), &m))
	w := &world{
		t: t, project: m.Project, image: m.Image, dirs: m.Dirs, revision: m.Revision, engine: doomedEngine(t, m),
		spec: &Spec{Project: desired.Literal(m.Project), Environment: map[string]desired.Expr{}, HealthTimeout: desired.Duration(40 * time.Second)},
	}
	for name, value := range m.Environment {
		w.spec.Environment[name] = desired.Literal(value)
	}
	w.instance = &desired.Instance{Name: "deu", Digest: "1", Source: "blueprints/spoke"}
	w.restart()
	require.NoError(t, w.try("web"))
}

// doomedEngine is a client in whose requests the process is killed.
func doomedEngine(t *testing.T, m doomed) *client.Client {
	host := testbed.Engine(t).DaemonHost()
	path, ok := strings.CutPrefix(host, "unix://")
	require.True(t, ok, "the engine is at %s", host)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	engine, err := client.New(client.WithHost(host), client.WithHTTPClient(&http.Client{Transport: &killing{RoundTripper: transport, doomed: m}}))
	require.NoError(t, err)
	return engine
}

type killing struct {
	http.RoundTripper
	doomed doomed
	asked  atomic.Int64
}

func (k *killing) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodGet || request.Method == http.MethodHead || k.asked.Add(1) != k.doomed.At {
		return k.RoundTripper.RoundTrip(request)
	}
	if k.doomed.Asked {
		go func() { _, _ = k.RoundTripper.RoundTrip(request) }()
		<-time.After(100 * time.Millisecond)
	}
	fmt.Printf("killed at %s %s\n", request.Method, request.URL.Path)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// applyDoomed applies the part web in a process that is killed at a change. It says where, "" when it got through.
func (w *world) applyDoomed(at int, asked bool) string {
	w.t.Helper()
	m := doomed{Project: w.project, Image: w.image, Dirs: w.dirs, Revision: w.revision, Environment: map[string]string{}, At: int64(at), Asked: asked}
	for name, expr := range w.spec.Environment {
		value, err := expr.Eval(desired.NewScope(nil))
		require.NoError(w.t, err)
		m.Environment[name] = value.Text()
	}
	told, err := json.Marshal(m)
	require.NoError(w.t, err)
	cmd := exec.CommandContext(w.t.Context(), os.Args[0], "-test.run=^TestDoomed$", "-test.v")
	cmd.Env = append(os.Environ(), doomedVariable+"="+string(told))
	said, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	var exited *exec.ExitError
	require.ErrorAs(w.t, err, &exited)
	status, ok := exited.Sys().(syscall.WaitStatus)
	require.True(w.t, ok && status.Signaled() && status.Signal() == syscall.SIGKILL, "%s", said)
	_, where, _ := strings.Cut(string(said), "killed at ")
	where, _, _ = strings.Cut(where, "\n")
	return strings.ReplaceAll(where, w.project, "project")
}

// killedUpdate is a change of a service in whose process the agent is killed.
type killedUpdate struct {
	name, stack string
	points      int // changes to the engine, at least
	names       []string
	serves      bool // also right after it was killed
}

func killedUpdates() []killedUpdate {
	return []killedUpdate{
		{"start-first", strings.NewReplacer("stop_grace_period: 1s", "stop_grace_period: 500ms", ", back: {}", "", "networks: {back: {}}\n", "").Replace(overlappingStack), 9, []string{"web-1"}, true},
		{"stop-first with replicas", strings.NewReplacer("replicas: 3", "replicas: 2", "stop_grace_period: 1s", "stop_grace_period: 500ms").Replace(replicatedStack) + helperClient, 10, []string{"web-1", "web-2"}, false},
	}
}

// TestKilledWithinAnUpdate: wherever the agent is killed, the next one ends right: no container is left over, and none is there
// twice. With start-first the service has a name that leads to a container that is well at every moment. Here every other change
// was asked for when the agent is killed; TestSoakKilledWithinAnUpdate tries both at each.
func TestKilledWithinAnUpdate(t *testing.T) {
	t.Parallel()
	for _, c := range killedUpdates() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.everywhere(t, func(at int) bool { return at%2 == 0 })
		})
	}
}

// everywhere kills the agent at one change after the other, until it gets through; asked says whether before or after it was sent.
func (c killedUpdate) everywhere(t *testing.T, asked func(at int) bool) {
	w := newWorld(t, c.stack)
	w.up("web", "client")
	colour, killed := "red", 0
	for at := 1; ; at++ {
		require.Less(t, at, 40, "it never gets through")
		before := colour
		colour = map[string]string{"red": "blue", "blue": "red"}[before]
		w.set("COLOUR", colour)
		where := w.applyDoomed(at, asked(at))
		if where != "" {
			killed++
			t.Logf("killed at change %d, asked %t, %s", at, asked(at), where)
		}
		if c.serves {
			w.isServed()
		}
		w.restart()
		w.goesOn(where)
		w.inSync("web")
		w.holds("web", "COLOUR="+colour, c.names...)
		w.isServed()
		if where == "" {
			break
		}
	}
	require.GreaterOrEqual(t, killed, c.points)
}

// goesOn is what the next agent does. While it plans, a slow engine may still be at what the killed one asked for: a container
// comes then that was not there before, which the next pass sees.
func (w *world) goesOn(where string) {
	w.t.Helper()
	testbed.Eventually(w.t, 30*time.Second, where, func() error {
		if len(w.plan("web").Changes) == 0 {
			return nil
		}
		err := w.try("web")
		if err != nil && strings.Contains(err.Error(), "is already in use by container") {
			return err
		}
		require.NoError(w.t, err, where)
		return nil
	})
}

const helperClient = `  client: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], healthcheck: {test: [CMD, "true"], interval: 300ms}}
`

// isServed checks that both names of the service lead to containers that run and are well, and nowhere else.
func (w *world) isServed() {
	w.t.Helper()
	well := map[string]bool{}
	for _, c := range w.all("web") {
		if endpoint := c.NetworkSettings.Networks[w.project+"_default"]; endpoint != nil && isHealthy(&c) {
			well[endpoint.IPAddress.String()] = true
		}
	}
	for _, name := range []string{"web", "www"} {
		found := strings.Fields(w.exec(w.t, "client", "bash", "-c", "getent ahostsv4 "+name+" | grep STREAM | cut -d' ' -f1"))
		require.NotEmpty(w.t, found, name)
		for _, address := range found {
			require.True(w.t, well[address], "%s leads to %s, and %v are well", name, address, well)
		}
	}
}
