package keycloak

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
	"time"

	"dive-agent/reconcilers"
)

// probeLimit bounds one question to the server.
const probeLimit = 10 * time.Second

// server asks a Keycloak server what needs no Terraform: is it ready, is a realm there.
type server struct {
	base   string
	http   *http.Client
	probe  *http.Client // for what is asked at each look
	health string       // URL at which its management interface tells whether it is ready; empty: not known
	token  string
	renew  func(ctx context.Context) error // signs in as the last login did
}

func newServer(base, ca string) (*server, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("url %q of the Keycloak server is not an http or https URL", base)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.DisableKeepAlives = true
	if ca != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("ca of the Keycloak server has no PEM certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	client := &http.Client{Timeout: probeLimit, Transport: transport}
	return &server{base: strings.TrimSuffix(base, "/"), http: client, probe: client}, nil
}

// realm tells whether a realm is there. While the server does not answer as a ready one does, the error is a WaitError.
func (s *server) realm(ctx context.Context, name string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/realms/"+url.PathEscape(name), nil)
	if err != nil {
		return false, err
	}
	resp, err := s.probe.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		return false, s.away(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // a connection is used again when its answer was read
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	default:
		return false, s.away(fmt.Errorf("GET /realms/%s answered %s", name, resp.Status))
	}
}

func (s *server) away(err error) error {
	return &reconcilers.WaitError{For: "Keycloak at " + s.base, Again: 2 * time.Second, Err: err}
}

// patient turns the lack of an answer into a wait, as realm does: a server that was just started may take its time. It is for requests
// that change nothing.
func (s *server) patient(ctx context.Context, err error) error {
	var unanswered *url.Error
	if ctx.Err() == nil && errors.As(err, &unanswered) {
		return s.away(err)
	}
	return err
}

// ready asks the management interface, and where that does not tell the master realm, which answers from the same moment on.
func (s *server) ready(ctx context.Context) error {
	if told, err := s.healthy(ctx); told || ctx.Err() != nil {
		return err
	}
	there, err := s.realm(ctx, "master")
	if err == nil && !there {
		err = s.away(errors.New("it has no realm master"))
	}
	return err
}

// healthy asks the management interface; told is false where there is none, or one that does not speak plain HTTP.
func (s *server) healthy(ctx context.Context) (told bool, err error) {
	if s.health == "" {
		return false, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.health, nil)
	if err != nil {
		return false, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return false, ctx.Err()
	}
	defer resp.Body.Close()
	var answer struct {
		Checks []struct{ Name, Status string }
	}
	_ = json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&answer) // says more, where it does
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusServiceUnavailable:
		var down []string
		for _, check := range answer.Checks {
			if check.Status != "UP" {
				down = append(down, check.Name)
			}
		}
		return true, s.away(fmt.Errorf("it is not ready (%s)", strings.Join(down, ", ")))
	}
	return false, nil
}

// signIn gets a token as who the module signs in as.
func (s *server) signIn(ctx context.Context, in *inputs) error {
	if in.account.id != "" {
		return s.loginClient(ctx, in.account.id, in.account.secret)
	}
	return s.login(ctx, in.admin.user, in.admin.password)
}

// login gets a token for the admin API.
func (s *server) login(ctx context.Context, user, password string) error {
	return s.getToken(ctx, user, url.Values{"client_id": {"admin-cli"}, "grant_type": {"password"}, "username": {user}, "password": {password}})
}

// loginClient gets one for a client with a service account.
func (s *server) loginClient(ctx context.Context, client, secret string) error {
	return s.getToken(ctx, "client "+client, url.Values{"client_id": {client}, "grant_type": {"client_credentials"}, "client_secret": {secret}})
}

func (s *server) getToken(ctx context.Context, who string, form url.Values) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+"/realms/master/protocol/openid-connect/token", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := s.ask(req, &answer); err != nil {
		return s.patient(ctx, fmt.Errorf("sign in to Keycloak at %s as %s: %w", s.base, who, err))
	}
	s.token = answer.Token
	s.renew = func(ctx context.Context) error { return s.getToken(ctx, who, form) }
	return nil
}

var (
	// errAbsent says that the admin API has no such thing.
	errAbsent = errors.New("not there")
	// errRefused says that the server did not accept who asked.
	errRefused = errors.New("not accepted (401)")
)

// list reads a list below the admin API's realms.
func (s *server) list(ctx context.Context, realm string, query url.Values, parts ...string) ([]map[string]any, error) {
	var list []map[string]any
	return list, s.read(ctx, &list, realm, query, parts...)
}

func (s *server) read(ctx context.Context, into any, realm string, query url.Values, parts ...string) error {
	return s.call(ctx, http.MethodGet, into, nil, query, append([]string{"realms", realm}, parts...)...)
}

// call asks the admin API with what login got. body and into may be nil. A question that the server fails to answer is asked once more.
func (s *server) call(ctx context.Context, method string, into, body any, query url.Values, parts ...string) error {
	at := s.base + "/admin"
	for _, part := range parts {
		at += "/" + url.PathEscape(part)
	}
	if len(query) > 0 {
		at += "?" + query.Encode()
	}
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	ask := func() error {
		req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(content))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+s.token)
		req.Header.Set("Content-Type", "application/json")
		return s.ask(req, into)
	}
	err := ask()
	if errors.Is(err, errRefused) && s.renew != nil { // a token lives for a minute; a password that was good is tried once more
		if err := s.renew(ctx); err != nil {
			return err
		}
		err = ask()
	}
	if method != http.MethodGet {
		return err
	}
	var no *refusedBody
	if errors.As(err, &no) && no.status/100 == 5 {
		err = ask()
	}
	return s.patient(ctx, err)
}

// refusedBody is an answer that is none of success, with what the server said.
type refusedBody struct {
	what   string // that was asked
	status int
	said   string
}

func (e *refusedBody) Error() string {
	text := fmt.Sprintf("%s answered %d %s", e.what, e.status, http.StatusText(e.status))
	if e.said != "" {
		text += ": " + e.said
	}
	return text
}

func (s *server) ask(req *http.Request, into any) error {
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, 32<<20)
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return errAbsent
	case resp.StatusCode == http.StatusUnauthorized:
		return errRefused
	case resp.StatusCode/100 != 2:
		var answer struct {
			Text string `json:"error_description"`
		}
		_ = json.NewDecoder(body).Decode(&answer) // says more, where it does
		return &refusedBody{what: req.Method + " " + req.URL.Path, status: resp.StatusCode, said: answer.Text}
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(body).Decode(into)
}
