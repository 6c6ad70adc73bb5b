package secrets

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"dive-agent/desired"
)

// VaultOptions say how a Vault, or an OpenBao, is reached: HTTP API of both, "KV secrets engine, version 2" and "AppRole auth method".
type VaultOptions struct {
	Address   string // https://vault.example.org:8200; empty: there is none
	CAFile    string // its authority; empty: the system's
	Namespace string

	TokenFile string // read for each look; or
	// RoleID and SecretIDFile sign in by AppRole, mounted at AppRolePath.
	RoleID       string
	SecretIDFile string
	AppRolePath  string // default approle
}

// vaultSession is what a sign-in by AppRole gave.
type vaultSession struct {
	token string
	until time.Time // when two thirds of its life are over; it is not renewed, but another one is had
}

// vaultLook asks one Vault in one look. What one path holds is asked once.
type vaultLook struct {
	*looking
	*asker
	cancel context.CancelFunc
	token  string
	paths  map[string]vaultPath
}

type vaultPath struct {
	data map[string]any
	err  error
}

func (l *looking) lookVault(from desired.SecretSource) ([]byte, error) {
	if l.Vault.Address == "" {
		return nil, &fault{text: "this host has no Vault", do: "Name it in the host's agent.yaml (secrets.vault)"}
	}
	if _, err := l.vaultLook(); err != nil {
		return nil, err
	}
	id := from.Mount + "\x00" + from.Path + "\x00" + from.Version
	found, known := l.vault.paths[id]
	if !known {
		found.data, found.err = l.vault.read(from)
		l.vault.paths[id] = found
	}
	if found.err != nil {
		return nil, found.err
	}
	value, ok := found.data[from.Key]
	if !ok || value == nil {
		return nil, &fault{text: fmt.Sprintf("it has no key %q", from.Key), do: fmt.Sprintf("Put it there with: vault kv patch -mount=%s %s %s=-", from.Mount, from.Path, from.Key)}
	}
	switch value := value.(type) {
	case string:
		return []byte(value), nil
	case json.Number:
		return []byte(value.String()), nil
	case bool:
		return fmt.Appendf(nil, "%t", value), nil
	}
	return nil, &fault{text: fmt.Sprintf("its key %q is a map or a list", from.Key), do: "Keep each secret as a text of its own"}
}

// vaultLook begins to ask Vault, once in a look.
func (l *looking) vaultLook() (*vaultLook, error) {
	if l.vault == nil {
		ctx, cancel := context.WithTimeout(l.ctx, askLimit)
		asker, err := newAsker(ctx, l.Vault.CAFile)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("the authority of Vault: %w", err)
		}
		l.vault = &vaultLook{looking: l, asker: asker, cancel: cancel, paths: map[string]vaultPath{}}
	}
	return l.vault, nil
}

// vaultAnswer is what Vault answers with, good or bad.
type vaultAnswer struct {
	Errors []string `json:"errors"`
	Data   struct {
		Data     vaultData `json:"data"`
		Metadata struct {
			Deleted   string `json:"deletion_time"`
			Destroyed bool   `json:"destroyed"`
		} `json:"metadata"`
	} `json:"data"`
	Auth struct {
		Token string `json:"client_token"`
		Lease int    `json:"lease_duration"` // seconds; 0: it does not end
	} `json:"auth"`
}

// vaultData keeps numbers as they are written.
type vaultData map[string]any

// UnmarshalJSON is json.Unmarshaler.
func (d *vaultData) UnmarshalJSON(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return dec.Decode((*map[string]any)(d))
}

func (v *vaultLook) read(from desired.SecretSource) (map[string]any, error) {
	address := v.address(from.Mount, "data", from.Path)
	if from.Version != "" {
		address += "?version=" + url.QueryEscape(from.Version)
	}
	for again := true; ; again = false {
		held, err := v.signIn()
		if err != nil {
			return nil, err
		}
		var answer vaultAnswer
		status, err := v.ask(http.MethodGet, address, v.header(v.token), nil, &answer)
		if err != nil {
			return nil, err
		}
		if status == http.StatusForbidden && held && again { // the session may have been revoked
			v.forgetSession()
			continue
		}
		return answer.Data.Data, v.judge(status, answer, "read "+from.Mount+"/"+from.Path)
	}
}

// judge says what an answer means, and what to do about it.
func (v *vaultLook) judge(status int, answer vaultAnswer, what string) error {
	said := shortened(strings.Join(answer.Errors, "; "))
	switch {
	case status == http.StatusOK && answer.Data.Data != nil:
		return nil
	case status == http.StatusServiceUnavailable:
		return &fault{text: "Vault is sealed, or not ready: " + orStatus(said, status), do: "Unseal it: vault operator unseal"}
	case status == http.StatusForbidden:
		return &fault{text: orStatus(said, status), do: fmt.Sprintf("Give the agent's policy the right to %s, or the agent a token that is good (secrets.vault in agent.yaml)", what)}
	case answer.Data.Metadata.Destroyed:
		return &fault{text: "this version was destroyed", do: "Write another one: vault kv put"}
	case answer.Data.Metadata.Deleted != "":
		return &fault{text: "it was deleted at " + shortened(answer.Data.Metadata.Deleted), do: "Bring it back with vault kv undelete, or write another version"}
	case status == http.StatusNotFound || status == http.StatusOK:
		return &fault{text: "there is nothing: " + orStatus(said, status), do: "Look at mount and path: the mount has to be a KV engine of version 2"}
	}
	return &fault{text: orStatus(said, status)}
}

func orStatus(said string, status int) string {
	if said == "" {
		return fmt.Sprintf("status %d", status)
	}
	return fmt.Sprintf("%s (status %d)", said, status)
}

// signIn gets a token; held says that it is one of an earlier sign-in by AppRole.
func (v *vaultLook) signIn() (held bool, err error) {
	if v.Vault.TokenFile != "" {
		if v.token != "" {
			return false, nil
		}
		text, err := v.readKey(v.Vault.TokenFile)
		if err != nil {
			return false, &fault{text: "the agent's token for Vault", err: err, do: "Put a token into " + v.Vault.TokenFile}
		}
		v.token = string(bytes.TrimSpace(text))
		return false, nil
	}
	v.mu.Lock()
	session := v.session
	v.mu.Unlock()
	if session.token != "" && (session.until.IsZero() || v.Now().Before(session.until)) {
		v.token = session.token
		return true, nil
	}
	return false, v.login()
}

func (v *vaultLook) login() error {
	secret, err := v.readKey(v.Vault.SecretIDFile)
	if err != nil {
		return &fault{text: "the agent's AppRole secret ID for Vault", err: err, do: "Put one into " + v.Vault.SecretIDFile + ": vault write -f auth/approle/role/ROLE/secret-id"}
	}
	mount := v.Vault.AppRolePath
	if mount == "" {
		mount = "approle"
	}
	body, err := json.Marshal(map[string]string{"role_id": v.Vault.RoleID, "secret_id": string(bytes.TrimSpace(secret))})
	if err != nil {
		return err
	}
	var answer vaultAnswer
	status, err := v.ask(http.MethodPost, v.address("auth", mount, "login"), v.header(""), bytes.NewReader(body), &answer)
	switch {
	case err != nil:
		return err
	case status == http.StatusServiceUnavailable:
		return v.judge(status, answer, "")
	case status != http.StatusOK || answer.Auth.Token == "":
		return &fault{
			text: "it does not let the agent sign in by AppRole: " + orStatus(shortened(strings.Join(answer.Errors, "; ")), status),
			do:   "Put a secret ID that is good into " + v.Vault.SecretIDFile + ", and look at secrets.vault.roleID in agent.yaml",
		}
	}
	if v.Redactor != nil {
		v.Redactor.Add(answer.Auth.Token)
	}
	session := vaultSession{token: answer.Auth.Token}
	if answer.Auth.Lease > 0 {
		session.until = v.Now().Add(time.Duration(answer.Auth.Lease) * time.Second * 2 / 3)
	}
	v.mu.Lock()
	v.session = session
	v.mu.Unlock()
	v.token = session.token
	return nil
}

func (v *vaultLook) forgetSession() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.session = vaultSession{}
}

func (v *vaultLook) header(token string) http.Header {
	h := http.Header{"X-Vault-Request": {"true"}}
	if token != "" {
		h.Set("X-Vault-Token", token)
	}
	if v.Vault.Namespace != "" {
		h.Set("X-Vault-Namespace", v.Vault.Namespace)
	}
	return h
}

func (v *vaultLook) address(parts ...string) string {
	var path []string
	for _, part := range parts {
		for step := range strings.SplitSeq(part, "/") {
			path = append(path, url.PathEscape(step))
		}
	}
	return strings.TrimSuffix(v.Vault.Address, "/") + "/v1/" + strings.Join(path, "/")
}
