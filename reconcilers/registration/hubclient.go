package registration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"dive-agent/reconcilers"
)

// callLimit bounds each call. Every call of the hub but those that change a record answers in under 50 ms; those are
// looked after by reading the record.
const callLimit = 10 * time.Second

// answerLimit bounds what is read of an answer; a list of a thousand records stays far below.
const answerLimit = 16 << 20

// answerError is an answer of the hub that is no success.
type answerError struct {
	call   string
	status int
	text   string
}

func (e *answerError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("%s: the hub answered %d: %s", e.call, e.status, e.text), ": ")
}

// clients keeps one HTTP client for each hub, so that polls use a connection again. Another authority takes the place of the
// one before.
type clients struct {
	mu   sync.Mutex
	made map[string]hubLine // by base URL
}

type hubLine struct {
	ca     string
	client *http.Client
}

// get trusts the given authority alone, not the machine's, and follows no redirect: requests carry tokens.
func (c *clients) get(base, ca string) (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, ok := c.made[base]
	if ok && before.ca == ca {
		return before.client, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(ca)) {
		return nil, &reconcilers.BlockedError{
			Reason: "HubAuthority", Message: "the hub's certificate authority is missing or no PEM certificate",
			Do: "Set hub.caFile in fleet.yaml, or hub.ca in the component.",
		}
	}
	client := &http.Client{
		Timeout: callLimit,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second,
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if ok {
		before.client.CloseIdleConnections()
	}
	if c.made == nil {
		c.made = map[string]hubLine{}
	}
	c.made[base] = hubLine{ca, client}
	return client, nil
}

func (c *clients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, made := range c.made {
		made.client.CloseIdleConnections()
	}
	c.made = nil
}

// hubClient calls one hub.
type hubClient struct {
	base     string
	http     *http.Client
	adminKey string
	bearer   string // of a spoke's call; empty: none
}

// call sends JSON and reads JSON. Errors never hold the admin key, a token, or what was sent.
func (c *hubClient) call(ctx context.Context, method, path string, send, into any) error {
	name := method + " " + path
	var body io.Reader
	if send != nil {
		data, err := json.Marshal(send)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.base, "/")+"/api/federation"+path, body)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if send != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.adminKey != "" {
		request.Header.Set("X-Admin-Key", c.adminKey)
	}
	if c.bearer != "" {
		request.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	response, err := c.http.Do(request)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, answerLimit+1))
	if err != nil {
		return fmt.Errorf("%s: read the answer: %w", name, err)
	}
	if len(data) > answerLimit {
		return &answerError{call: name, status: response.StatusCode, text: "with more than 16 MiB"}
	}
	if response.StatusCode/100 != 2 {
		return &answerError{call: name, status: response.StatusCode, text: errorText(data)}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return &answerError{call: name, status: response.StatusCode, text: "with something that is not the JSON of a hub"}
	}
	return nil
}

// errorText is the hub's word on why it refused.
func errorText(data []byte) string {
	var said struct {
		Error   string          `json:"error"`
		Message string          `json:"message"`
		Details json.RawMessage `json:"details"`
	}
	if json.Unmarshal(data, &said) != nil {
		return ""
	}
	text := said.Error
	if said.Message != "" {
		text += ": " + said.Message
	}
	if len(said.Details) > 0 {
		text += " " + string(said.Details)
	}
	const limit = 500
	if len(text) > limit {
		text = text[:limit] + "…"
	}
	return strings.ToValidUTF8(text, "")
}

// policy gives an error of a call its type: what passes by itself waits, what a person must mend is blocked.
func (c *hubClient) policy(err error) error {
	var answer *answerError
	var certificate *tls.CertificateVerificationError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &certificate):
		return &reconcilers.BlockedError{
			Reason: "HubCertificate", Message: "the certificate of " + c.base + " is not to be trusted", Err: certificate.Err,
			Do: "Put the authority that signed it into hub.caFile of fleet.yaml, or mend the hub's certificate.",
		}
	case !errors.As(err, &answer):
		return &reconcilers.WaitError{For: "the hub at " + c.base, Err: err}
	case answer.status == http.StatusUnauthorized || answer.status == http.StatusForbidden:
		return &reconcilers.BlockedError{
			Reason: "WrongAdminKey", Message: "the hub refuses the admin key", Err: err,
			Do: "adminKey must be the FEDERATION_ADMIN_KEY that the hub's backend runs with.",
		}
	case answer.status/100 == 4 && answer.status != http.StatusTooManyRequests && answer.status != http.StatusRequestTimeout:
		return &reconcilers.BlockedError{Reason: "HubRefused", Message: "the hub refuses the request", Err: err, Do: "Mend the manifest."}
	default:
		return &reconcilers.WaitError{For: "the hub at " + c.base, Err: err}
	}
}

func isNotFound(err error) bool { return statusOf(err) == http.StatusNotFound }

// statusOf is the status of an answer that is no success; 0: there was none.
func statusOf(err error) int {
	if answer := (*answerError)(nil); errors.As(err, &answer) {
		return answer.status
	}
	return 0
}
