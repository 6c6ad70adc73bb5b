package testbed

import (
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// quietLog takes what servers say of clients that go away.
var quietLog = log.New(io.Discard, "", 0)

// registryFront stands before a registry: it hands requests on, counts them, and lets them hang.
type registryFront struct {
	proxy *httputil.ReverseProxy
	mu    sync.Mutex
	asked map[string]int
	hang  chan struct{} // closed when requests go on; nil while none hangs
	issue http.Handler  // of tokens; nil without them
}

func newRegistryFront(inner string) *registryFront {
	target := &url.URL{Scheme: "http", Host: inner}
	return &registryFront{
		asked: map[string]int{},
		proxy: &httputil.ReverseProxy{
			Transport: Whole(http.DefaultTransport),
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Host = r.In.Host
			},
			ErrorLog: quietLog,
		},
	}
}

// ServeHTTP is http.Handler.
func (f *registryFront) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	f.mu.Lock()
	issue := f.issue
	f.mu.Unlock()
	if issue != nil && request.URL.Path == "/token" {
		issue.ServeHTTP(w, request)
		return
	}
	what := "root"
	for _, part := range []string{"manifests", "blobs", "tags"} {
		if strings.Contains(request.URL.Path, "/"+part+"/") {
			what = part
		}
	}
	f.mu.Lock()
	f.asked[request.Method+" "+what]++
	wait := f.hang
	f.mu.Unlock()
	if wait != nil && what == "blobs" {
		select {
		case <-wait:
		case <-request.Context().Done():
			return
		}
	}
	f.proxy.ServeHTTP(w, request)
}

// token has tokens given out at /token.
func (f *registryFront) token(issuer http.Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.issue = issuer
}

// Hang makes requests for blobs wait, or lets them go on.
func (f *registryFront) Hang(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hang != nil {
		close(f.hang)
		f.hang = nil
	}
	if on {
		f.hang = make(chan struct{})
	}
}

// Asked counts the requests.
func (f *registryFront) Asked() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.asked)
}
