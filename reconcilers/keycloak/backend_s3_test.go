package keycloak

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// objects answers as S3 does for what Terraform asks: objects by path, lists, a PUT that only makes what is not there. It checks no
// signature, and is no server that anybody runs.
type objects struct {
	mu    sync.Mutex
	named map[string][]byte
	asked []string
}

func (o *objects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, r.Method+" "+r.URL.String()+" "+r.Header.Get("Authorization"))
	data, there := o.named[r.URL.Path]
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Get("list-type") == "2":
		_, _ = fmt.Fprint(w, `<?xml version="1.0"?><ListBucketResult><Name>states</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>`)
	case r.Method == http.MethodPut && there && r.Header.Get("If-None-Match") == "*":
		w.WriteHeader(http.StatusPreconditionFailed)
		_, _ = fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>PreconditionFailed</Code><Message>it is there</Message></Error>`)
	case r.Method == http.MethodPut:
		o.named[r.URL.Path], _ = io.ReadAll(r.Body)
	case r.Method == http.MethodDelete:
		delete(o.named, r.URL.Path)
		w.WriteHeader(http.StatusNoContent)
	case !there:
		w.WriteHeader(http.StatusNotFound)
		if r.Method == http.MethodGet {
			_, _ = fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>`)
		}
	default:
		_, _ = w.Write(data)
	}
}

// newSite is a place of a state with a look of its own, which has neither a module nor a server.
func newSite(t *testing.T, backend string, values map[string]desired.Value) *site {
	t.Helper()
	w := &world{t: t, clock: &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, spec: decode(t, "service: keycloak\nmodule: realm\nbackend: "+backend+"\n")}
	dir := t.TempDir()
	config := filepath.Join(dir, "tool.rc")
	require.NoError(t, os.WriteFile(config, nil, 0o600))
	target := reconcilers.Target{
		Instance: &desired.Instance{Name: "deu", Position: desired.Position{File: "instances/deu.yaml"}}, Component: &desired.Component{Name: "identity"},
		Scope: desired.NewScope(values), Log: slog.New(slog.DiscardHandler),
	}
	given, unknown, err := w.spec.Backend.values(target.Scope)
	require.NoError(t, err)
	require.Empty(t, unknown)
	r, err := newRemote(w.spec.Backend.Kind, given)
	require.NoError(t, err)
	l := &look{Reconciler: New(reconcilers.Deps{Clock: w.clock}), target: target, spec: w.spec, record: &record{}, in: &inputs{backend: r}}
	l.work = &workspace{
		memory: &memory{},
		dir:    dir, module: filepath.Join(dir, "module"), run: filepath.Join(dir, "run"), copies: filepath.Join(dir, "copies"),
		tool: reconcilers.Terraform{Path: toolPath(t), CLIConfig: config}, toolName: testedTool(),
	}
	for _, folder := range []string{l.work.module, l.work.run} {
		require.NoError(t, os.MkdirAll(folder, 0o700))
	}
	l.work.keepsIn(l.here(), false)
	return l.here()
}

// A state goes to S3 and back with its lineage, with a lock beside it that is told and broken by its id, and no key is written down.
func TestAStateInS3(t *testing.T) {
	t.Parallel()
	o := &objects{named: map[string][]byte{}}
	server := httptest.NewServer(o)
	defer server.Close()
	const id, key = "s3-Id-66aa", "s3-Secret-77bb"
	values := map[string]desired.Value{"ID": desired.Secret(id), "KEY": desired.Secret(key)}
	s := newSite(t, "{kind: s3, bucket: states, key: deu/state, region: eu-west-1, address: '"+server.URL+"', accessKey: '${ID}', secretKey: '${KEY}'}", values)
	_, _, err := s.read(t.Context())
	require.ErrorIs(t, err, errNoState)
	data := stateOf(7, "one", "a", "b")
	state, err := parseState(data)
	require.NoError(t, err)
	require.NoError(t, s.write(t.Context(), data, state))
	_, there, err := s.read(t.Context())
	require.NoError(t, err)
	require.Equal(t, "one", there.Lineage)
	require.GreaterOrEqual(t, there.Serial, int64(7))
	require.Equal(t, state.ids(), there.ids())
	require.Contains(t, strings.Join(o.asked, "\n"), "Credential="+id)

	// An older one of its own is written over, another's is not.
	require.NoError(t, s.put(t, stateOf(20, "one", "a")))
	const lock = "7b5e0a1c-0000-0000-0000-000000000000"
	keepsToItself(t, s, stateOf(30, "one", "a", "b"), lock, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.named["/states/deu/state.tflock"] = []byte(`{"ID":"` + lock + `","Operation":"OperationTypeApply","Who":"somebody@else","Created":"2026-01-01T00:00:00Z"}`)
	})

	require.NoError(t, filepath.WalkDir(s.l.work.dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NotContains(t, string(data), key, name)
		require.NotContains(t, string(data), id, name)
		return nil
	}))
}

// put writes a state of which the text is given.
func (s *site) put(t *testing.T, data []byte) error {
	t.Helper()
	state, err := parseState(data)
	require.NoError(t, err)
	return s.write(t.Context(), data, state)
}

// keepsToItself holds a place that has a state of lineage one to refusing another lineage, and to a lock by somebody else, which
// is waited for, told, and broken by its id alone.
func keepsToItself(t *testing.T, s *site, next []byte, id string, lock func()) {
	t.Helper()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, s.put(t, stateOf(40, "two", "c")), &blocked)
	require.Equal(t, "BackendTaken", blocked.Reason)

	lock()
	var wait *reconcilers.WaitError
	require.ErrorAs(t, s.put(t, next), &wait)
	s.l.deps.Clock.(*clock).move(lockPatience)
	require.ErrorAs(t, s.put(t, next), &blocked)
	require.Equal(t, "StateLocked", blocked.Reason)
	require.Contains(t, blocked.Message, "id "+id+", OperationTypeApply, somebody@else")
	s.l.spec.Backend.ForceUnlock = id
	require.ErrorAs(t, s.put(t, next), &wait)
	require.NoError(t, s.put(t, next))
}

// A service that is away is waited for, and one that refuses is told.
func TestAStateInS3ThatCannotBeRead(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>`)
	}))
	defer server.Close()
	values := map[string]desired.Value{"ID": desired.Secret("a"), "KEY": desired.Secret("b")}
	s := newSite(t, "{kind: s3, bucket: states, key: deu/state, region: eu-west-1, address: '"+server.URL+"', accessKey: '${ID}', secretKey: '${KEY}'}", values)
	_, _, err := s.read(t.Context())
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, err, &blocked)
	require.Equal(t, "BackendRefused", blocked.Reason)
}

// stateOf is a state with some roles, whose ids are their names.
func stateOf(serial int, lineage string, roles ...string) []byte {
	var instances []string
	for _, role := range roles {
		instances = append(instances, fmt.Sprintf(`{"index_key":%q,"schema_version":0,"attributes":{"id":%q}}`, role, role))
	}
	return []byte(fmt.Sprintf(`{"version":4,"terraform_version":"1.9.0","serial":%d,"lineage":%q,"outputs":{},"resources":[{"mode":"managed","type":"keycloak_role","name":"each","provider":"provider[\"registry.terraform.io/keycloak/keycloak\"]","instances":[%s]}],"check_results":null}`,
		serial, lineage, strings.Join(instances, ",")))
}

func parseState(data []byte) (*tfState, error) {
	dir, err := os.MkdirTemp("", "state")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	name := filepath.Join(dir, "state")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		return nil, err
	}
	return readState(name)
}

// A place that knows no locks is told at once, and not waited for.
func TestAPlaceWithoutLocks(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "LOCK" {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	s := newSite(t, "{kind: http, address: '"+server.URL+"/deu'}", nil)
	data := stateOf(7, "one", "a")
	state, err := parseState(data)
	require.NoError(t, err)
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, s.write(t.Context(), data, state), &blocked)
	require.Equal(t, "BackendRefused", blocked.Reason)
	require.Contains(t, blocked.Message, "lock the Terraform state at http ")
}
