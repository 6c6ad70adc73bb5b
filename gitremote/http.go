package gitremote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// httpWire is the smart HTTP transport, gitprotocol-http(5). Every operation is one POST without the
// discovery request before it; that one is only asked for by servers without protocol version 2.
type httpWire struct {
	r      *Remote
	base   *url.URL
	client *http.Client
	// old is set once a server turned out to speak only version 0.
	old atomic.Bool
}

// newHTTPWire refuses what would send credentials in clear, and takes from the URL what must not be shown: the user, and
// the values of a query, which may be tokens.
func newHTTPWire(r *Remote, u *url.URL) (*httpWire, error) {
	cfg := r.cfg
	if u.Scheme == "http" {
		if !isLoopback(u.Hostname()) || !cfg.AllowLoopbackHTTP {
			return nil, errors.New("plain http is refused: use https (http is possible to a loopback address, when the configuration allows it)")
		}
	}
	if err := cfg.checkHTTPCredentials(); err != nil {
		return nil, err
	}
	if u.User != nil {
		if r.cfg.Username == "" {
			r.cfg.Username = u.User.Username()
		}
		u.User = nil
	}
	t, err := newHTTPTransport(cfg)
	if err != nil {
		return nil, err
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.Fragment = ""
	for _, values := range u.Query() {
		r.urlSecrets = append(r.urlSecrets, values...)
	}
	r.hide()
	return &httpWire{r: r, base: u, client: &http.Client{
		Transport: t,
		// A POST cannot be redirected without losing its body, and credentials must not travel to another place.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// newHTTPTransport reads the client certificate once to refuse a bad one at the start, and again for each connection, so
// that a renewed one needs no restart.
func newHTTPTransport(cfg Config) (*http.Transport, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate authority: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", cfg.CAFile)
		}
	}
	if cfg.ClientCertFile != "" {
		load := func() (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(cfg.ClientCertFile, cfg.ClientKeyFile)
			if err != nil {
				return nil, fmt.Errorf("loading the client certificate: %w", err)
			}
			return &c, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		tlsConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	var proxy func(*http.Request) (*url.URL, error)
	if cfg.Proxy != "" {
		u, err := parseProxy(cfg.Proxy, "http", "https", "socks5")
		if err != nil {
			return nil, err
		}
		proxy = http.ProxyURL(u)
	}
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    15 * time.Second,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // packs are compressed; nothing else is large
		MaxIdleConns:           2,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        10 * time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		// A network that dropped an idle connection without a word is found out before the next poll waits for it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 10 * time.Second},
	}, nil
}

func parseProxy(raw string, schemes ...string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return nil, errors.New("the proxy is not a URL")
	}
	for _, s := range schemes {
		if u.Scheme == s {
			return u, nil
		}
	}
	return nil, fmt.Errorf("a proxy of scheme %q is not supported here: use %s", u.Scheme, strings.Join(schemes, ", "))
}

func (h *httpWire) close() { h.client.CloseIdleConnections() }

// exchange is one request; limit bounds the answer. The caller reads body and closes it.
func (h *httpWire) exchange(ctx context.Context, svc service, discover, v2 bool, body []byte, limit int64) (io.ReadCloser, error) {
	u := *h.base
	method, want := http.MethodPost, "application/x-"+string(svc)+"-result"
	if discover {
		method, want = http.MethodGet, "application/x-"+string(svc)+"-advertisement"
		u.Path += "/info/refs"
		q := u.Query()
		q.Set("service", string(svc))
		u.RawQuery = q.Encode()
	} else {
		u.Path += "/" + string(svc)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, ofKind(Misconfigured, "the URL cannot be used")
	}
	req.Header.Set("User-Agent", h.r.cfg.UserAgent)
	req.Header.Set("Accept", want)
	if !discover {
		req.Header.Set("Content-Type", "application/x-"+string(svc)+"-request")
	}
	if v2 {
		req.Header.Set("Git-Protocol", "version=2")
	}
	if err := h.r.authorize(req.Header); err != nil {
		return nil, err
	}
	res, err := h.do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, httpStatus(res)
	}
	if got := res.Header.Get("Content-Type"); got != want {
		res.Body.Close()
		return nil, protocolError("the content type is %q instead of %q; is this the URL of a repository?", clip([]byte(got)), want)
	}
	return &drained{Reader: &limitedReader{r: res.Body, limit: limit}, body: res.Body}, nil
}

// do sends a request, and once more on a new connection when one that was idle turned out to be dead. That is safe for
// a push too: its lease lets it happen once, and the ref is read when it is in doubt.
func (h *httpWire) do(req *http.Request) (*http.Response, error) {
	reused := false
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
	res, err := h.client.Do(req.WithContext(ctx))
	if err == nil || !reused || req.Context().Err() != nil {
		return res, err
	}
	h.client.CloseIdleConnections()
	again := req.Clone(req.Context())
	if req.GetBody != nil {
		if again.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return h.client.Do(again)
}

// ends checks that nothing follows an answer's flush: what does is not Git, and what preceded it is not to be believed.
func ends(body io.Reader) error {
	var more [1]byte
	switch n, err := io.ReadFull(body, more[:]); {
	case n > 0:
		return protocolError("more bytes after the end of the answer")
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

// drained reads the little that may be left of an answer on Close, so that the connection is used again.
type drained struct {
	io.Reader
	body io.ReadCloser
}

func (d *drained) Close() error {
	_, _ = io.CopyN(io.Discard, d.body, 4<<10)
	return d.body.Close()
}

func httpStatus(res *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBody))
	text := ""
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
		text = ": " + string(body)
	}
	k := ServerError
	switch c := res.StatusCode; {
	case c == http.StatusUnauthorized:
		return ofKind(Authentication, "the remote does not accept the credentials (401)%s", text)
	case c == http.StatusForbidden:
		return ofKind(Forbidden, "the remote refuses this operation (403)%s", text)
	case c == http.StatusNotFound || c == http.StatusGone:
		return ofKind(NotFound, "there is no such repository, or the credentials may not see it (%d)%s", c, text)
	case c == http.StatusProxyAuthRequired:
		return ofKind(Misconfigured, "the proxy demands credentials (407)")
	case c >= 300 && c < 400:
		return ofKind(Misconfigured, "the remote redirects to %s; redirects are not followed: configure that URL", redirectTarget(res))
	}
	retry := time.Duration(0)
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 && s < 24*3600 {
		retry = time.Duration(s) * time.Second
	}
	return &kindError{kind: k, retryAfter: retry, err: fmt.Errorf("the remote answers with status %d%s", res.StatusCode, text)}
}

func redirectTarget(res *http.Response) string {
	u, err := url.Parse(res.Header.Get("Location"))
	if err != nil || u.Path == "" {
		return "another place"
	}
	d := url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/info/refs")}
	return d.String()
}

func (h *httpWire) list(ctx context.Context, request []byte, _ []string) (*advertisement, error) {
	if !h.old.Load() {
		adv, err := h.listV2(ctx, request)
		if !errors.Is(err, ErrEmptyAnswer) {
			return adv, err
		}
	}
	// A server without version 2 does not understand ls-refs and answers with nothing.
	adv, err := h.discover(ctx, uploadPack)
	if err != nil {
		return nil, err
	}
	h.old.Store(!adv.v2)
	return adv, nil
}

func (h *httpWire) listV2(ctx context.Context, request []byte) (*advertisement, error) {
	body, err := h.exchange(ctx, uploadPack, false, true, request, h.r.cfg.Limits.Refs)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	refs, err := readLsRefs(newPktReader(body))
	if errors.Is(err, io.EOF) && len(refs) == 0 && body.(*drained).Reader.(*limitedReader).read == 0 {
		return nil, ErrEmptyAnswer
	}
	if err == nil {
		err = ends(body)
	}
	if err != nil {
		return nil, cutShort(err)
	}
	return &advertisement{refs: refs, v2: true}, nil
}

func (h *httpWire) discover(ctx context.Context, svc service) (*advertisement, error) {
	body, err := h.exchange(ctx, svc, true, false, nil, h.r.cfg.Limits.Refs)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	adv, err := readAdvertisement(newPktReader(body))
	if errors.Is(err, io.EOF) && body.(*drained).Reader.(*limitedReader).read == 0 {
		return nil, ErrEmptyAnswer
	}
	if err == nil {
		err = ends(body)
	}
	return adv, cutShort(err)
}

func (h *httpWire) fetch(ctx context.Context, req fetchRequest) (*packAnswer, error) {
	v2 := !h.old.Load()
	answer, err := h.fetchAs(ctx, req, v2)
	if v2 && errors.Is(err, ErrEmptyAnswer) {
		var adv *advertisement
		if adv, err = h.discover(ctx, uploadPack); err != nil {
			return nil, err
		}
		if adv.v2 {
			return nil, ErrEmptyAnswer
		}
		h.old.Store(true)
		return h.fetchAs(ctx, req, false)
	}
	return answer, err
}

func (h *httpWire) fetchAs(ctx context.Context, req fetchRequest, v2 bool) (*packAnswer, error) {
	body, err := h.exchange(ctx, uploadPack, false, v2, req.encode(v2, h.r.cfg.UserAgent), h.r.cfg.Limits.Wire)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	answer, err := readPackAnswer(newPktReader(body), v2, req.depth > 0)
	if errors.Is(err, io.EOF) && body.(*drained).Reader.(*limitedReader).read == 0 {
		return nil, ErrEmptyAnswer
	}
	if err == nil {
		err = ends(body)
	}
	return answer, cutShort(err)
}

func (h *httpWire) push(ctx context.Context, req pushRequest) (*pushReport, error) {
	body, err := h.exchange(ctx, receivePack, false, false, req.encode(h.r.cfg.UserAgent), h.r.cfg.Limits.Refs)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	report, err := readPushReport(newPktReader(body))
	if errors.Is(err, io.EOF) && body.(*drained).Reader.(*limitedReader).read == 0 {
		return nil, ErrEmptyAnswer
	}
	return report, cutShort(err)
}

// cutShort makes an end at a packet's border an error too: every answer ends with a flush.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
