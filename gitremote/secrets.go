package gitremote

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// secretFile reads a credential; one newline at the end belongs to the file, not to the value.
func secretFile(what, path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", ofKind(Misconfigured, "reading the %s: %w", what, err)
	}
	v := strings.TrimRight(string(b), "\r\n")
	if v == "" {
		return "", ofKind(Misconfigured, "the %s file %s is empty", what, path)
	}
	return v, nil
}

// authorize sets the header for the configured HTTPS credentials and makes the redactor know them.
func (r *Remote) authorize(h http.Header) error {
	token, password := r.cfg.Token, r.cfg.Password
	var err error
	if r.cfg.TokenFile != "" {
		if token, err = secretFile("token", r.cfg.TokenFile); err != nil {
			return err
		}
	}
	if r.cfg.PasswordFile != "" {
		if password, err = secretFile("password", r.cfg.PasswordFile); err != nil {
			return err
		}
	}
	switch {
	case token != "":
		h.Set("Authorization", "Bearer "+token)
		r.hide(token)
	case password != "" || r.cfg.Username != "":
		basic := base64.StdEncoding.EncodeToString([]byte(r.cfg.Username + ":" + password))
		h.Set("Authorization", "Basic "+basic)
		r.hide(basic, password)
	}
	return nil
}

// hide makes scrub replace these values, in the forms in which a server could repeat them.
func (r *Remote) hide(values ...string) {
	if old := r.secrets.Load(); old != nil && r.hidden(old, values) {
		return
	}
	var pairs []string
	for _, v := range append(values, r.urlSecrets...) {
		if v == "" {
			continue
		}
		pairs = append(pairs, v, "***")
		if q := url.QueryEscape(v); q != v {
			pairs = append(pairs, q, "***")
		}
	}
	r.secrets.Store(strings.NewReplacer(pairs...))
}

func (r *Remote) hidden(old *strings.Replacer, values []string) bool {
	for _, v := range values {
		if v != "" && old.Replace(v) != "***" {
			return false
		}
	}
	return true
}

func (c Config) checkHTTPCredentials() error {
	token := c.Token != "" || c.TokenFile != ""
	password := c.Password != "" || c.PasswordFile != ""
	switch {
	case token && password:
		return fmt.Errorf("both a token and a password are configured: keep one")
	case password && c.Username == "":
		return fmt.Errorf("a password without a user name is configured: set username")
	case (c.ClientCertFile == "") != (c.ClientKeyFile == ""):
		return fmt.Errorf("a client certificate needs both its certificate and its key file")
	}
	return nil
}
