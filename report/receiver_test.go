package report_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"dive-agent/report"
)

type received struct {
	event event.Event
	data  report.EventData
	id    string
}

// receiver is a real HTTP server that checks each delivery by the rules of
// Standard Webhooks.
type receiver struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	got    []received
	calls  int
	status func(call int, rw http.ResponseWriter) int
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t, status: func(int, http.ResponseWriter) int { return http.StatusNoContent }}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if err != nil {
		r.t.Errorf("read a delivery: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	status := r.status(r.calls, rw)
	if status == http.StatusFound {
		rw.Header().Set("Location", r.URL+"/elsewhere")
	}
	rw.WriteHeader(status)
	if status/100 == 2 {
		r.got = append(r.got, r.check(req, body))
	}
}

func (r *receiver) check(req *http.Request, body []byte) (out received) {
	if req.Method != http.MethodPost || !strings.HasPrefix(req.Header.Get("Content-Type"), "application/cloudevents+json") {
		r.t.Errorf("%s with %q", req.Method, req.Header.Get("Content-Type"))
	}
	out.id = req.Header.Get("webhook-id")
	signed := out.id + "." + req.Header.Get("webhook-timestamp") + "." + string(body)
	found := map[string]bool{}
	for _, s := range strings.Fields(req.Header.Get("webhook-signature")) {
		found[s] = true
	}
	for _, key := range [][]byte{keyOne, keyTwo} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(signed))
		if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); !found[want] {
			r.t.Errorf("no signature %q among %v", want, found)
		}
	}
	if err := json.Unmarshal(body, &out.event); err != nil {
		r.t.Errorf("not a CloudEvent: %v", err)
	}
	if err := out.event.Validate(); err != nil {
		r.t.Errorf("not a valid CloudEvent: %v", err)
	}
	if err := out.event.DataAs(&out.data); err != nil {
		r.t.Errorf("data: %v", err)
	}
	if out.event.ID() != out.id {
		r.t.Errorf("webhook-id %q is not the event's id %q", out.id, out.event.ID())
	}
	return out
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.got...)
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

func (r *receiver) answer(status func(call int, rw http.ResponseWriter) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls, r.status = 0, status
}

func hookTo(r *receiver) func(*report.Options) {
	return func(o *report.Options) {
		o.Webhooks = []report.Webhook{{Name: "ops", URL: r.URL + "/hook?token=not-for-logs", Keys: []string{secretOf(keyOne), secretOf(keyTwo)}}}
	}
}
