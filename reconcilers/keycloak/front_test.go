package keycloak

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
)

// front stands between Terraform and the server, and lets a test slow down, refuse, cut or count what goes through.
type front struct {
	*httptest.Server
	away   atomic.Bool // connections are cut
	logins atomic.Int64
	proxy  *httputil.ReverseProxy
	heard  atomic.Pointer[func(*http.Response)]

	mu sync.Mutex
	do func(w http.ResponseWriter, r *http.Request) (answered bool)
}

func newFront(t *testing.T, b *bed) *front {
	t.Helper()
	server, err := url.Parse(b.url)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{
		Transport:    testbed.Whole(http.DefaultTransport),
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(server); r.Out.Host = r.In.Host },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	f := &front{proxy: proxy}
	proxy.ModifyResponse = func(resp *http.Response) error {
		if heard := f.heard.Load(); heard != nil {
			(*heard)(resp)
		}
		return nil
	}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.away.Load() {
			cut(w)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/openid-connect/token") {
			f.logins.Add(1)
		}
		f.mu.Lock()
		do := f.do
		f.mu.Unlock()
		if do == nil || !do(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(f.Close)
	return f
}

// on sets what is done with each request.
func (f *front) on(do func(w http.ResponseWriter, r *http.Request) (answered bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.do = do
}

// modify has each answer shown to a test.
func (f *front) modify(hear func(*http.Response)) { f.heard.Store(&hear) }

// cut closes a connection without an answer.
func cut(w http.ResponseWriter) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// slow lets each new role take a while.
func slow(each time.Duration) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/roles") {
			select {
			case <-time.After(each):
			case <-r.Context().Done():
			}
		}
		return false
	}
}

// late keeps back for a while that a role was made: whoever asked for it may be killed before it hears of it.
func late(each time.Duration) func(*http.Response) {
	return func(resp *http.Response) {
		if resp.Request.Method == http.MethodPost && strings.HasSuffix(resp.Request.URL.Path, "/roles") {
			<-time.After(each)
		}
	}
}

// through gives a world whose Terraform reaches the server by the front alone.
func (f *front) through(t *testing.T, b *bed, more string) *world {
	return newWorld(t, b, "url: "+f.URL+"\n"+more)
}

// apply makes one plan and applies it.
func (w *world) apply() error {
	w.t.Helper()
	observed, plan := w.look()
	require.NoError(w.t, observed.Err)
	require.NotEmpty(w.t, plan.Changes)
	_, err := w.reconciler().Apply(w.t.Context(), w.target, plan, &steps{})
	w.hear(err)
	return err
}
