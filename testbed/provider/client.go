package main

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
	"path"
	"strings"
	"sync"
	"time"
)

// maxAnswer bounds what is read of one answer.
const maxAnswer = 32 << 20

// client speaks Keycloak's admin API. It signs in by itself, and once more when a token is refused. It does
// not repeat anything else: what a cut connection did is for the next plan to find out.
type client struct {
	http     *http.Client
	base     string // the server's URL with base path, without a slash at the end
	admin    string // the same for the admin API
	realm    string
	settings map[string]string

	mu    sync.Mutex
	token string
}

// apiError is an answer of the admin API other than a success. Its text has the server's own words and no
// part of what was sent.
type apiError struct {
	method, path string
	status       int
	message      string
}

func (e *apiError) Error() string {
	return fmt.Sprintf("error sending %s request to %s: %d %s. Response body: %s",
		e.method, e.path, e.status, http.StatusText(e.status), e.message)
}

// notFound tells whether the admin API answered that there is no such thing.
func notFound(err error) bool {
	var api *apiError
	return errors.As(err, &api) && api.status == http.StatusNotFound
}

// newClient checks the settings as the real provider does, and in its words where a user meets them. It does not log in.
func newClient(settings map[string]string) (*client, error) {
	server := strings.TrimSuffix(settings["url"], "/")
	if u, err := url.Parse(server); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("url %q is not an http or https URL", server)
	}
	timeout, err := seconds(settings["client_timeout"], 15*time.Second)
	if err != nil {
		return nil, err
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: settings["tls_insecure_skip_verify"] == "true"}
	if ca := settings["root_ca_certificate"]; ca != "" {
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("root_ca_certificate has no PEM certificate")
		}
	}
	if settings["client_id"] == "" {
		return nil, errors.New("client_id is not set (admin-cli for a user with a password)")
	}
	if settings["client_secret"] == "" && (settings["username"] == "" || settings["password"] == "") {
		return nil, errors.New("must specify client id, username and password for password grant, or client id and secret for client credentials grant")
	}
	realm := settings["realm"]
	if realm == "" {
		realm = "master"
	}
	admin := strings.TrimSuffix(settings["admin_url"], "/")
	if admin == "" {
		admin = server
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = trust
	transport.MaxIdleConnsPerHost = 32
	return &client{
		http: &http.Client{Timeout: timeout, Transport: transport},
		base: server + settings["base_path"], admin: admin + settings["base_path"], realm: realm, settings: settings,
	}, nil
}

// login gets a token, by password when there is a user, else with the client's own secret.
func (c *client) login(ctx context.Context) error {
	form := url.Values{"client_id": {c.settings["client_id"]}}
	if secret := c.settings["client_secret"]; secret != "" {
		form.Set("client_secret", secret)
	}
	if c.settings["username"] != "" {
		form.Set("grant_type", "password")
		form.Set("username", c.settings["username"])
		form.Set("password", c.settings["password"])
	} else {
		form.Set("grant_type", "client_credentials")
	}
	at := c.base + "/realms/" + url.PathEscape(c.realm) + "/protocol/openid-connect/token"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("cannot sign in at %s: %w", at, err)
	}
	defer resp.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&answer); err != nil {
		return fmt.Errorf("cannot sign in at %s: status %d, and not JSON: %w", at, resp.StatusCode, err)
	}
	if answer.AccessToken == "" {
		return fmt.Errorf("cannot sign in at %s: status %d, %s: %s", at, resp.StatusCode, answer.Error, answer.Description)
	}
	c.mu.Lock()
	c.token = answer.AccessToken
	c.mu.Unlock()
	return nil
}

// get reads the JSON at a path below /admin into out.
func (c *client) get(ctx context.Context, at string, out any) error {
	_, err := c.send(ctx, http.MethodGet, at, nil, out)
	return err
}

// post creates and answers the last segment of the Location header, which is the new thing's id.
func (c *client) post(ctx context.Context, at string, body any) (string, error) {
	location, err := c.send(ctx, http.MethodPost, at, body, nil)
	if err != nil || location == "" {
		return "", err
	}
	u, err := url.Parse(location)
	if err != nil {
		return "", fmt.Errorf("%s answered a Location that is no URL: %w", at, err)
	}
	return path.Base(u.Path), nil
}

func (c *client) put(ctx context.Context, at string, body any) error {
	_, err := c.send(ctx, http.MethodPut, at, body, nil)
	return err
}

// remove deletes; what is gone already is no error.
func (c *client) remove(ctx context.Context, at string, body any) error {
	_, err := c.send(ctx, http.MethodDelete, at, body, nil)
	if notFound(err) {
		return nil
	}
	return err
}

func (c *client) send(ctx context.Context, method, at string, body, out any) (location string, err error) {
	var sent []byte
	if body != nil {
		if sent, err = json.Marshal(body); err != nil {
			return "", err
		}
	}
	for attempt := 0; ; attempt++ {
		resp, err := c.once(ctx, method, at, sent)
		if err != nil {
			return "", fmt.Errorf("error sending %s request to %s: %w", method, at, err)
		}
		if resp.StatusCode == http.StatusUnauthorized && attempt == 0 {
			resp.Body.Close()
			if err := c.login(ctx); err != nil {
				return "", err
			}
			continue
		}
		return finish(resp, method, at, out)
	}
}

func (c *client) once(ctx context.Context, method, at string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.admin+"/admin"+at, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	c.mu.Lock()
	req.Header.Set("Authorization", "Bearer "+c.token)
	c.mu.Unlock()
	return c.http.Do(req)
}

func finish(resp *http.Response, method, at string, out any) (string, error) {
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("error sending %s request to %s: %w", method, at, err)
	}
	if resp.StatusCode >= 300 {
		return "", &apiError{method: method, path: at, status: resp.StatusCode, message: string(data)}
	}
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			return "", fmt.Errorf("%s %s: the answer is not what it should be: %w", method, at, err)
		}
	}
	return resp.Header.Get("Location"), nil
}
