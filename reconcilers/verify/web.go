package verify

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
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
	texts, err := t.texts(spec.Contains, spec.Certificate)
	if err != nil {
		return failed(err)
	}
	contains := texts[0]
	bare := config.Clone()
	if config.Certificates, err = pairOf(texts[1]); err != nil {
		return failed(err)
	}
	host := ""
	if spec.Service != "" {
		host = serverName
	}
	got, err := request{config: config, address: address, host: host}.get(ctx)
	if err != nil {
		return failed(err)
	}
	want := spec.Status
	if want == 0 {
		want = http.StatusOK
	}
	o := pass("status %d", got.status)
	switch {
	case got.status != want:
		o = fail("status %d, expected %d (%s)", got.status, want, got.shape())
	case contains != "" && !strings.Contains(string(got.body), contains):
		o = fail("status %d without %q (%s)", got.status, contains, got.shape())
	case spec.Mutual:
		o = request{config: bare, address: address, host: host}.refused(ctx)
	}
	return o.count("status", int64(got.status)).count("bytes", int64(len(got.body)))
}

// pairOf is what a connection shows, of key and certificate in PEM; nothing of an empty text.
func pairOf(pem string) ([]tls.Certificate, error) {
	if pem == "" {
		return nil, nil
	}
	pair, err := tls.X509KeyPair([]byte(pem), []byte(pem))
	if err != nil { // it may quote what it read
		return nil, errors.New("certificate is no key and certificate in PEM")
	}
	return []tls.Certificate{pair}, nil
}

// refused asks a server that has just answered who showed a certificate. By TLS 1.3 it refuses others only after its own part of
// the handshake, with an alert or by closing the connection (RFC 8446, sections 4.4.2.4 and 6.2).
func (r request) refused(ctx context.Context) outcome {
	got, err := r.get(ctx)
	var op *net.OpError
	switch {
	case err == nil:
		return fail("who shows no certificate is answered too, with status %d", got.status)
	case ctx.Err() != nil || errors.As(err, &op) && op.Op == "dial":
		return failed(fmt.Errorf("look whether who shows no certificate is refused: %w", err))
	}
	return pass("answers who shows a certificate, and nobody else")
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

// request is one GET.
type request struct {
	config   *tls.Config
	address  string
	host     string // of the header Host; empty: the address's
	adminKey string // of a hub; empty: none is sent
	bearer   string // a token; empty: none is sent
	limit    int64  // of the body; 0: maxBody
}

// reply is what came.
type reply struct {
	status int
	kind   string // media type
	body   []byte
}

// shape is what may be told of a body: its size and type, and never its content.
func (r reply) shape() string {
	kind, _, err := mime.ParseMediaType(r.kind)
	if err != nil {
		kind = "no type"
	}
	if len(r.body) == 0 {
		return "an empty body"
	}
	return fmt.Sprintf("%d bytes of %s", len(r.body), kind)
}

// get asks over a connection of its own. Redirects are not followed and no proxy is used.
func (r request) get(ctx context.Context) (reply, error) {
	u, err := url.Parse(r.address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return reply{}, errors.New("the URL is not one of http or https")
	}
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, r.address, nil)
	if err != nil {
		return reply{}, errors.New("the URL is not one of http or https")
	}
	ask.Host = r.host
	ask.Header.Set("User-Agent", "dive-agent")
	if r.adminKey != "" {
		ask.Header.Set("X-Admin-Key", r.adminKey)
	}
	if r.bearer != "" {
		ask.Header.Set("Authorization", "Bearer "+r.bearer)
	}
	transport := &http.Transport{TLSClientConfig: r.config, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(ask)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return reply{}, fmt.Errorf("ask %s: %w", u.Redacted(), err)
	}
	defer func() { _ = answer.Body.Close() }()
	limit := r.limit
	if limit == 0 {
		limit = maxBody
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, limit))
	if err != nil {
		return reply{}, fmt.Errorf("read the answer of %s: %w", u.Redacted(), err)
	}
	return reply{answer.StatusCode, answer.Header.Get("Content-Type"), body}, nil
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
	var until time.Time // of that chain
	subject := ""
	for _, chain := range chains { // any one chain that is valid long enough will do
		ends := chain[0].NotAfter
		for _, c := range chain {
			if c.NotAfter.Before(ends) {
				ends = c.NotAfter
			}
		}
		if days := int(ends.Sub(now).Hours() / 24); days > longest {
			longest, until, subject = days, ends, chain[0].Subject.CommonName
		}
	}
	o := pass("valid for %d days", longest)
	if longest < spec.MinDays {
		o = fail("the certificate of %s (%s) is valid for %d more days, expected %d", name, subject, longest, spec.MinDays)
	}
	return o.count("days", int64(longest)).date("notAfter", until)
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
	return pass("issuer as expected, %d %s", len(keys.Keys), plural(len(keys.Keys), "key", "keys")).count("keys", int64(len(keys.Keys)))
}

func getJSON(ctx context.Context, config *tls.Config, address string, into any) error {
	got, err := request{config: config, address: address}.get(ctx)
	if err != nil {
		return err
	}
	return got.json(address, into)
}

// json reads the body of a success.
func (r reply) json(address string, into any) error {
	if r.status != http.StatusOK {
		return fmt.Errorf("%s answers with status %d, expected 200 (%s)", address, r.status, r.shape())
	}
	if err := json.Unmarshal(r.body, into); err != nil {
		return fmt.Errorf("%s answers with something else than JSON (%s)", address, r.shape())
	}
	return nil
}
