package testbed

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// proxied is a reverse proxy before a server; seen is shown each request's body.
func proxied(t *testing.T, transport http.RoundTripper, server http.HandlerFunc, seen func(io.ReadCloser) io.ReadCloser) string {
	t.Helper()
	inner := httptest.NewServer(server)
	t.Cleanup(inner.Close)
	target, err := url.Parse(inner.URL)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, ErrorLog: quietLog, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = seen(r.Body)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front.URL
}

// TestWholePassesOn: bodies short, long and of unknown length arrive as they were sent.
func TestWholePassesOn(t *testing.T) {
	t.Parallel()
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}
	front := proxied(t, Whole(http.DefaultTransport), echo, func(body io.ReadCloser) io.ReadCloser { return body })
	long := strings.Repeat("x", 2*wholeLimit)
	for want, body := range map[string]io.Reader{
		"": http.NoBody, "client_id=x": strings.NewReader("client_id=x"), long: strings.NewReader(long),
		"of unknown length": io.MultiReader(strings.NewReader("of unknown "), strings.NewReader("length")),
	} {
		resp, err := http.Post(front, "text/plain", body)
		require.NoError(t, err)
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.True(t, want == string(got), "%d bytes of %d", len(got), len(want))
	}
}

// lingering is a body of which nobody hears the end before the answer has begun, or a while has passed.
type lingering struct {
	io.ReadCloser
	left  int
	begun <-chan struct{}
}

func (l *lingering) Read(p []byte) (int, error) {
	if l.left == 0 {
		select {
		case <-l.begun:
		case <-time.After(200 * time.Millisecond):
		}
	}
	n, err := l.ReadCloser.Read(p[:min(len(p), max(1, l.left))])
	l.left -= n
	return n, err
}

// TestWholeKeepsAnAnswerThatComesAtOnce: the transport that it is for breaks off an answer that begins before it looked for more of
// the request.
func TestWholeKeepsAnAnswerThatComesAtOnce(t *testing.T) {
	t.Parallel()
	const question = "client_id=x"
	for name, c := range map[string]struct {
		transport http.RoundTripper
		fails     bool
	}{"usual": {http.DefaultTransport, true}, "whole": {Whole(http.DefaultTransport), false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun, looked := make(chan struct{}), make(chan struct{})
			front := proxied(t, c.transport, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.ReadAll(r.Body)
				_, _ = io.WriteString(w, "at once, ")
				_ = http.NewResponseController(w).Flush()
				select {
				case <-looked:
				case <-r.Context().Done():
				}
				_, _ = io.WriteString(w, "and whole")
			}, func(body io.ReadCloser) io.ReadCloser { return &lingering{body, len(question), begun} })
			resp, err := http.Post(front, "text/plain", strings.NewReader(question))
			require.NoError(t, err)
			defer resp.Body.Close()
			close(begun)
			if !c.fails {
				close(looked)
			}
			got, err := io.ReadAll(resp.Body)
			require.Equal(t, c.fails, err != nil, "%q %v", got, err)
		})
	}
}
