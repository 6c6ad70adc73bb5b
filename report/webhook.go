package report

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dive-agent/state"
)

// Webhook is a receiver of events.
type Webhook struct {
	// Name is what the outbox knows it by; unique.
	Name string
	// URL is https, or http on a trusted network.
	URL string
	// Keys sign each delivery: one, or two while they are rotated. Written as
	// "whsec_" and base64 of 24 to 64 bytes, as Standard Webhooks has them.
	Keys []string
	// CA holds PEM certificates of authorities that the receiver's certificate
	// is checked against; empty means the system's.
	CA []byte
	// Proxy is http:// or socks5://; empty means a direct connection.
	Proxy string
	// Client replaces the connection that CA and Proxy describe. It must not
	// follow redirects.
	Client *http.Client
}

const (
	// webhookLifetime is how long an event is tried before it is given up.
	webhookLifetime = 72 * time.Hour
	// webhookLimit bounds one attempt.
	webhookLimit = 15 * time.Second
	// answerLimit is how much of an answer's body is read before the
	// connection is dropped instead of used again.
	answerLimit = 64 << 10
)

// hook is a webhook ready for use.
type hook struct {
	name    string
	url     string
	display string // without what may be secret
	keys    [][]byte
	client  *http.Client
	now     func() time.Time
}

func newHook(w Webhook, now func() time.Time) (*hook, error) {
	target, err := url.Parse(w.URL)
	if err != nil || target.Host == "" || (target.Scheme != "https" && target.Scheme != "http") {
		return nil, fmt.Errorf("webhook %q: its URL has to begin with https:// or http:// and a host", w.Name)
	}
	h := &hook{name: w.Name, url: w.URL, client: w.Client, now: now}
	h.display = (&url.URL{Scheme: target.Scheme, Host: target.Host, Path: target.Path}).String()
	if len(w.Keys) < 1 || len(w.Keys) > 2 {
		return nil, fmt.Errorf("webhook %q: one key is needed, or two while they are rotated; %d are given", w.Name, len(w.Keys))
	}
	for _, k := range w.Keys {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(k), "whsec_"))
		if err != nil || len(key) < 24 || len(key) > 64 {
			return nil, fmt.Errorf(`webhook %q: a key has to be "whsec_" and base64 of 24 to 64 bytes`, w.Name)
		}
		h.keys = append(h.keys, key)
	}
	if h.client == nil {
		if h.client, err = newClient(w); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// newClient makes a client that takes nothing from the environment.
func newClient(w Webhook) (*http.Client, error) {
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     30 * time.Second,
		ForceAttemptHTTP2:   true,
	}
	if len(w.CA) > 0 {
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(w.CA) {
			return nil, fmt.Errorf("webhook %q: its authorities are no PEM certificates", w.Name)
		}
	}
	if w.Proxy != "" {
		proxy, err := url.Parse(w.Proxy)
		if err != nil || proxy.Host == "" {
			return nil, fmt.Errorf("webhook %q: its proxy is no URL", w.Name)
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a signed event goes where it was configured to go
		},
	}, nil
}

// call delivers an event to its webhook.
func (r *Reporter) call(ctx context.Context, e state.Entry) (func(state.Tx) error, error) {
	h := r.hooks[e.Target]
	if h == nil {
		return nil, &goneError{fmt.Errorf("webhook %s is not configured any more", e.Target)}
	}
	var head struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(e.Payload, &head); err != nil || head.ID == "" {
		return nil, &goneError{errors.New("the event in the outbox cannot be read")}
	}
	return nil, h.post(ctx, head.ID, e.Payload)
}

// post sends one event. Any 2xx is success; 410 Gone ends all attempts.
func (h *hook) post(ctx context.Context, id string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, webhookLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("webhook %s at %s: the request cannot be made", h.name, h.display)
	}
	at := strconv.FormatInt(h.now().Unix(), 10)
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", "dive-agent")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", at)
	req.Header.Set("Webhook-Signature", h.sign(id, at, body))
	answer, err := h.client.Do(req)
	if err != nil {
		var ue *url.Error // its text has the whole URL
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return fmt.Errorf("webhook %s at %s: %w", h.name, h.display, err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, answerLimit)) // what it says does not matter
	if answer.StatusCode >= 200 && answer.StatusCode < 300 {
		return nil
	}
	err = fmt.Errorf("webhook %s at %s: answered %d %s", h.name, h.display, answer.StatusCode, http.StatusText(answer.StatusCode))
	if answer.StatusCode == http.StatusGone {
		return &goneError{err}
	}
	if seconds, convErr := strconv.Atoi(answer.Header.Get("Retry-After")); convErr == nil && seconds > 0 {
		return &laterError{after: time.Duration(min(seconds, int(longestPause.Seconds()))) * time.Second, err: err}
	}
	return err
}

// sign gives the signatures of all keys, as Standard Webhooks has them:
// "v1," and base64 of HMAC-SHA256 of id, timestamp and body.
func (h *hook) sign(id, at string, body []byte) string {
	var out []string
	for _, key := range h.keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + at + "."))
		mac.Write(body)
		out = append(out, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(out, " ")
}
