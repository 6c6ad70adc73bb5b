package testbed

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Call is one question to an engine.
type Call struct {
	At     time.Time
	Took   time.Duration // until its answer ended
	Method string
	Path   string // without the version of the API
	Query  string // as it was sent
}

// Kind is what the call asks, the same for all containers, images, networks and volumes: "GET /containers/*/json".
func (c Call) Kind() string { return c.Method + " " + object.ReplaceAllString(c.Path, "/$1/*$2") }

var (
	object     = regexp.MustCompile(`^/(containers|images|networks|volumes|exec)/[^/].*?(/(?:json|start|stop|kill|rename|wait|update|pause|unpause|restart|connect|disconnect|archive|history|tag|exec|logs))?$`)
	collection = regexp.MustCompile(`^/(containers|images|networks|volumes)/?(json|create|prune)?$`)
	version    = regexp.MustCompile(`^/v1\.\d+`)
)

// Calls is a door to an engine that counts who goes through it. It is safe for concurrent use.
type Calls struct {
	Host string // DOCKER_HOST for those who are to be counted

	server *http.Server
	mu     sync.Mutex
	all    []Call
}

// CountCalls opens a door, a socket in the folder, to the engine at a Unix socket. It is there until Close.
func CountCalls(host, dir string) (*Calls, error) {
	socket, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return nil, fmt.Errorf("count calls to the engine at %s: it has no socket", host)
	}
	path := filepath.Join(dir, "counted.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("count calls to the engine: %w", err)
	}
	c := &Calls{Host: "unix://" + path}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine" },
		FlushInterval: -1,
		Transport: Whole(&http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	c.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := Call{At: time.Now(), Method: r.Method, Path: version.ReplaceAllString(r.URL.Path, ""), Query: r.URL.RawQuery}
		c.mu.Lock()
		i := len(c.all)
		c.all = append(c.all, call)
		c.mu.Unlock()
		defer func() {
			c.mu.Lock()
			c.all[i].Took = time.Since(call.At)
			c.mu.Unlock()
		}()
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = c.server.Serve(listener) }() // it ends with Close
	return c, nil
}

// Since gives the calls that began after a number of them, in their order.
func (c *Calls) Since(n int) []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Call(nil), c.all[n:]...)
}

// Len is how many calls there were.
func (c *Calls) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all)
}

// Close shuts the door.
func (c *Calls) Close() error {
	err := c.server.Close()
	_ = os.Remove(strings.TrimPrefix(c.Host, "unix://")) // the listener has removed it already
	return err
}

// ByKind counts calls by their kind.
func ByKind(calls []Call) map[string]int {
	kinds := map[string]int{}
	for _, c := range calls {
		if collection.MatchString(c.Path) {
			kinds[c.Method+" "+c.Path]++
		} else {
			kinds[c.Kind()]++
		}
	}
	return kinds
}
