package gitremote_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

// oldFront stands before a server like one of before protocol version 2: it does not pass the wish for another version on.
// It gives the repository's URL there, plain http on loopback.
func oldFront(t *testing.T, server *gitserver.Server) string {
	t.Helper()
	target, err := url.Parse(server.URL("fleet"))
	require.NoError(t, err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.CA().Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{
		Transport: testbed.Whole(transport),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: target.Scheme, Host: target.Host})
			r.Out.Header.Del("Git-Protocol")
		},
		ErrorLog: nil,
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	return front.URL + target.Path
}

// answering is a server that gives one answer to everything, with the right content type.
func answering(t testing.TB, body func(io.Writer)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/x-"+r.URL.Query().Get("service")+"-advertisement")
		} else {
			w.Header().Set("Content-Type", "application/x-"+r.URL.Path[len("/r.git/"):]+"-result")
		}
		body(w)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/r.git"
}
