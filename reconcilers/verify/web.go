package verify

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

const (
	maxBody       = 1 << 20
	discoveryPath = "/.well-known/openid-configuration"
)

// http asks once and holds status and text against what is expected.
func (t *try) http(ctx context.Context, spec *HTTP) outcome {
	address, serverName, err := t.webAddress(ctx, spec)
	if err != nil {
		return failed(err)
	}
	config, err := t.tls(spec.Trust, serverName)
	if err != nil {
		return failed(err)
	}
	contains, err := t.text(spec.Contains)
	if err != nil {
		return failed(err)
	}
	host := ""
	if spec.Service != "" {
		host = serverName
	}
	status, body, err := get(ctx, config, address, host)
	if err != nil {
		return failed(err)
	}
	want := spec.Status
	if want == 0 {
		want = http.StatusOK
	}
	if status != want {
		return fail("status %d, expected %d: %s", status, want, firstLine(body))
	}
	if contains != "" && !strings.Contains(string(body), contains) {
		return fail("status %d without %q: %s", status, contains, firstLine(body))
	}
	return pass("status %d", status)
}

// webAddress gives the URL to ask; for a service its container's, and the name to expect in its certificate.
func (t *try) webAddress(ctx context.Context, spec *HTTP) (address, serverName string, err error) {
	if spec.Service == "" {
		address, err = t.text(spec.URL)
		return address, spec.ServerName, err
	}
	at, err := t.find(ctx, spec.Service, spec.Port)
	if err != nil {
		return "", "", err
	}
	path, err := t.text(spec.Path)
	if err != nil {
		return "", "", err
	}
	scheme := spec.Scheme
	if scheme == "" {
		scheme = "http"
	}
	serverName = spec.ServerName
	if serverName == "" {
		serverName = spec.Service
	}
	return scheme + "://" + at + "/" + strings.TrimPrefix(path, "/"), serverName, nil
}

// get asks a URL over a connection of its own. Redirects are not followed and no proxy is used.
func get(ctx context.Context, config *tls.Config, address, host string) (int, []byte, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return 0, nil, errors.New("the URL is not one of http or https")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, nil, errors.New("the URL is not one of http or https")
	}
	request.Host = host
	request.Header.Set("User-Agent", "dive-agent")
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return 0, nil, fmt.Errorf("ask %s: %w", u.Redacted(), err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err != nil {
		return 0, nil, fmt.Errorf("read the answer of %s: %w", u.Redacted(), err)
	}
	return answer.StatusCode, body, nil
}

func firstLine(body []byte) string {
	text := strings.TrimSpace(string(body))
	if text == "" {
		return "(empty)"
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// tcp connects and hangs up.
func (t *try) tcp(ctx context.Context, spec *TCP) outcome {
	address, name, err := t.address(ctx, spec.Service, spec.Port, spec.Address)
	if err != nil {
		return failed(err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return failed(fmt.Errorf("connect to %s: %w", name, err))
	}
	_ = conn.Close()
	return pass("%s accepts connections", name)
}

// certificate verifies the server's chain and how long each certificate of it is still valid.
func (t *try) certificate(ctx context.Context, spec *Certificate) outcome {
	address, name, err := t.address(ctx, spec.Service, spec.Port, spec.Address)
	if err != nil {
		return failed(err)
	}
	if spec.ServerName != "" {
		name = spec.ServerName
	}
	config, err := t.tls(spec.Trust, name)
	if err != nil {
		return failed(err)
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return failed(fmt.Errorf("verify the certificate of %s: %w", name, err))
	}
	defer func() { _ = conn.Close() }()
	chains := conn.(*tls.Conn).ConnectionState().VerifiedChains
	now := t.r.deps.Clock.Now()
	longest := -1
	subject := ""
	for _, chain := range chains { // any one chain that is valid long enough will do
		shortest := -1
		for _, c := range chain {
			if days := int(c.NotAfter.Sub(now).Hours() / 24); shortest < 0 || days < shortest {
				shortest = days
			}
		}
		if shortest > longest {
			longest, subject = shortest, chain[0].Subject.CommonName
		}
	}
	if longest < spec.MinDays {
		return fail("the certificate of %s (%s) is valid for %d more days, expected %d", name, subject, longest, spec.MinDays)
	}
	return pass("valid for %d days", longest)
}

// oidc reads an OpenID provider's metadata (OpenID Connect Discovery 1.0, section 4) and its keys.
func (t *try) oidc(ctx context.Context, spec *OIDC) outcome {
	texts, err := t.texts(spec.Issuer, spec.URL)
	if err != nil {
		return failed(err)
	}
	issuer, address := strings.TrimSuffix(texts[0], "/"), texts[1]
	if address == "" {
		address = issuer
	}
	if !strings.HasSuffix(address, discoveryPath) {
		address = strings.TrimSuffix(address, "/") + discoveryPath
	}
	if issuer == "" {
		issuer = strings.TrimSuffix(address, discoveryPath)
	}
	config, err := t.tls(spec.Trust, "")
	if err != nil {
		return failed(err)
	}
	var metadata struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := getJSON(ctx, config, address, &metadata); err != nil {
		return failed(err)
	}
	if strings.TrimSuffix(metadata.Issuer, "/") != issuer {
		return fail("issuer %q, expected %q", metadata.Issuer, issuer)
	}
	var keys struct {
		Keys []struct {
			Type string `json:"kty"`
		} `json:"keys"`
	}
	if err := getJSON(ctx, config, metadata.Keys, &keys); err != nil {
		return failed(fmt.Errorf("keys: %w", err))
	}
	if len(keys.Keys) == 0 {
		return fail("%s has no keys", metadata.Keys)
	}
	return pass("issuer as expected, %d keys", len(keys.Keys))
}

func getJSON(ctx context.Context, config *tls.Config, address string, into any) error {
	status, body, err := get(ctx, config, address, "")
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s answers with status %d, expected 200: %s", address, status, firstLine(body))
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%s answers with something else than JSON: %s", address, firstLine(body))
	}
	return nil
}
