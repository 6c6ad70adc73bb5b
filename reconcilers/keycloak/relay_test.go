package keycloak

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// relay hands connections on to a server, until they are cut.
type relay struct {
	address string

	mu   sync.Mutex
	away bool
	open map[net.Conn]bool
}

func newRelay(t *testing.T, server string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{address: listener.Addr().String(), open: map[net.Conn]bool{}}
	t.Cleanup(func() {
		_ = listener.Close()
		r.cut(true)
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go r.serve(conn, server)
		}
	}()
	return r
}

func (r *relay) serve(conn net.Conn, server string) {
	defer func() { _ = conn.Close() }()
	up, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer func() { _ = up.Close() }()
	r.mu.Lock()
	away := r.away
	if !away {
		r.open[conn], r.open[up] = true, true
	}
	r.mu.Unlock()
	if away {
		return
	}
	go func() {
		_, _ = io.Copy(up, conn)
		_ = up.Close()
	}()
	_, _ = io.Copy(conn, up)
}

// cut ends all connections and refuses new ones, or lets them through again.
func (r *relay) cut(away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = away
	if away {
		for conn := range r.open {
			_ = conn.Close()
		}
		r.open = map[net.Conn]bool{}
	}
}

// atRoles does something once, while a role is about to be made.
func atRoles(do func()) func(http.ResponseWriter, *http.Request) bool {
	var once sync.Once
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/roles") {
			once.Do(do)
		}
		return false
	}
}

// states is a database of one test, which may go.
type states struct {
	t *testing.T
	b *bed
	f *relay
}

func newStates(t *testing.T, b *bed) *states {
	t.Helper()
	c, err := b.lab.Find(t.Context(), "states")
	require.NoError(t, err)
	return &states{t: t, b: b, f: newRelay(t, c.Addr().String()+":5432")}
}

func (s *states) backend(t *testing.T) *Backend {
	t.Helper()
	return s.b.postgresAt(t, s.f.address, "realm")
}

func (s *states) away() { s.f.cut(true) }
func (s *states) back() { s.f.cut(false) }
