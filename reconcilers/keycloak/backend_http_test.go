package keycloak

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

// stateServer is a server of Terraform's protocol for states, as its manual has it ("Backend Type: http"): GET, POST, LOCK, UNLOCK.
// A lock that is held is answered by 423 with the holder's data. It is no server that anybody runs.
type stateServer struct {
	*httptest.Server
	mu     sync.Mutex
	states map[string][]byte
	locks  map[string][]byte
}

func newStateServer(t *testing.T) *stateServer {
	t.Helper()
	s := &stateServer{states: map[string][]byte{}, locks: map[string][]byte{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *stateServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if user, password, _ := r.BasicAuth(); user != "terraform" || password != statePassword {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	sent, _ := io.ReadAll(r.Body)
	name := r.URL.Path
	holder := func() (id string) {
		var lock struct{ ID string }
		_ = json.Unmarshal(s.locks[name], &lock)
		return lock.ID
	}
	switch r.Method {
	case http.MethodGet:
		if s.states[name] == nil {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write(s.states[name])
	case http.MethodPost:
		if s.locks[name] != nil && r.URL.Query().Get("ID") != holder() {
			w.WriteHeader(http.StatusConflict)
			return
		}
		s.states[name] = sent
	case "LOCK":
		if s.locks[name] != nil {
			w.WriteHeader(http.StatusLocked)
			_, _ = w.Write(s.locks[name])
			return
		}
		s.locks[name] = sent
	case "UNLOCK":
		delete(s.locks, name)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// lock gives the id of the lock that is held, empty when none is.
func (s *stateServer) lock(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lock struct{ ID string }
	_ = json.Unmarshal(s.locks[name], &lock)
	return lock.ID
}

func (s *stateServer) state(t *testing.T, name string) *tfState {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var state tfState
	require.NoError(t, json.Unmarshal(s.states[name], &state))
	return &state
}

// A state behind http: applied, moved there with its lineage, and the lock that a killed Terraform leaves is broken by nobody but
// who names it.
func stateBehindHTTP(t *testing.T, b *bed) {
	server := newStateServer(t)
	at := func(name string) *Backend {
		return backendOf(t, fmt.Sprintf("{kind: http, address: '%s/%s', user: terraform, password: '${STATE_PASSWORD}'}", server.URL, name))
	}
	f := newFront(t, b)
	w := f.through(t, b, "parallelism: 1\n")
	w.spec.Backend = at("deu")
	_, plan := w.look()
	f.on(atRoles(func() { w.kill(false) }))
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
	require.Error(t, err)
	f.on(nil)
	id := server.lock("/deu")
	require.NotEmpty(t, id)
	var blocked *reconcilers.BlockedError
	for range 2 {
		observed, plan := w.look()
		require.ErrorAs(t, observed.Err, &blocked)
		require.Equal(t, "StateLocked", blocked.Reason)
		require.Contains(t, blocked.Message, "an apply of this agent was cut off, and may have left it")
		require.Contains(t, blocked.Do, "spec: {components: {identity: {backend: {forceUnlock: '"+id+"'}}}}")
		require.Empty(t, plan.Changes)
		w.spec.Backend.ForceUnlock = "00000000-0000-0000-0000-000000000000" // another lock's
		require.Equal(t, id, server.lock("/deu"))
	}
	w.spec.Backend.ForceUnlock = id
	w.drive()
	require.Empty(t, server.lock("/deu"))
	require.Equal(t, 1, strings.Count(w.picture(t), "users someone"))
	was := server.state(t, "/deu")
	require.Equal(t, 6, was.managed())

	// Somebody else's lock is waited for, and told to a person when it stays.
	server.mu.Lock()
	server.locks["/deu"] = []byte(`{"ID":"7b5e0a1c-0000-0000-0000-000000000000","Operation":"OperationTypePlan","Who":"somebody@else","Created":"2026-01-01T00:00:00Z"}`)
	server.mu.Unlock()
	w.spec.Variables["title"] = tree(t, "Another title")
	observed, err := w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	var wait *reconcilers.WaitError
	require.ErrorAs(t, observed.Err, &wait)
	require.Equal(t, "the lock of the Terraform state", wait.For)
	w.clock.move(lockPatience)
	observed, _ = w.look()
	require.ErrorAs(t, observed.Err, &blocked)
	require.Contains(t, blocked.Message, "7b5e0a1c-0000-0000-0000-000000000000")
	server.mu.Lock()
	delete(server.locks, "/deu")
	server.mu.Unlock()
	require.Len(t, w.drive(), 2)
	require.NoFileExists(t, filepath.Join(w.target.Dir, "lock.json"))

	w.spec.Backend, w.spec.FormerBackend = at("moved"), w.spec.Backend
	observed, plan = w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.Equal(t, was.Lineage, server.state(t, "/moved").Lineage)
	w.nowhereWritten(statePassword)
}
