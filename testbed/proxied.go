package testbed

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// wholeLimit is how long a body may be that is read before it is passed on.
const wholeLimit = 1 << 20

// Whole is the transport of a reverse proxy in tests: it reads a request's body, when that is known to be short, before it passes the
// request on. The usual transport writes the body and then looks whether more follows; a server that answers in between has Go's
// server close that body, and the transport its connection for it, in the middle of the answer.
func Whole(next http.RoundTripper) http.RoundTripper { return whole{next} }

type whole struct{ next http.RoundTripper }

// RoundTrip is http.RoundTripper.
func (t whole) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil || r.ContentLength <= 0 || r.ContentLength > wholeLimit {
		return t.next.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("read the body to pass on: %w", err)
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return t.next.RoundTrip(r)
}
