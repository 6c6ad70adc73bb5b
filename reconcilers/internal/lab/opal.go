package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

// OPAL is a real OPAL server with keys in a lab, as service opal-server; it follows branch main of a Git repository on this machine.
type OPAL struct {
	*Lab
	Repo      *gitserver.Repository
	Git       *gitserver.Server
	Master    string
	PublicKey string // PEM
}

// What the server signs into tokens.
const opalAudience = "https://opal.test/"

// NewOPAL starts a Git server whose repository has the files, and an OPAL server, and waits until that hands out policies.
func NewOPAL(l *Lab, files gitserver.Files) *OPAL {
	l.tb.Helper()
	gateway := l.gateway()
	o := &OPAL{Lab: l, Master: "master-" + l.prefix}
	o.Git = gitserver.Start(l.tb, gitserver.Options{Listen: gateway + ":0", ListenSSH: "off", Names: []string{gateway}})
	o.Repo = o.Git.NewRepository(l.tb, "policies")
	o.Repo.Commit(l.tb, "main", "Begin", files)
	o.Renew()
	return o
}

// Renew starts the OPAL server with another key, in place of the one that is there.
func (o *OPAL) Renew() {
	o.tb.Helper()
	private, public, err := NewKey()
	if err != nil {
		o.tb.Fatal(err)
	}
	o.PublicKey = public
	repository, err := url.Parse(o.Git.URL("policies"))
	if err != nil {
		o.tb.Fatal(err)
	}
	repository.User = url.UserPassword(o.Git.Reader().Name, o.Git.Reader().Password)
	o.Run("opal-server", Service{
		Image: testbed.Image(o.tb, testbed.OPALServer),
		Env: []string{
			"OPAL_SERVER_HOST=0.0.0.0", "OPAL_SERVER_PORT=7002", "OPAL_SERVER_WORKER_COUNT=1",
			"OPAL_AUTH_PRIVATE_KEY=/etc/opal/key.pem", "OPAL_AUTH_PUBLIC_KEY=/etc/opal/public.pem", "OPAL_AUTH_PUBLIC_KEY_FORMAT=pem",
			"OPAL_AUTH_MASTER_TOKEN=" + o.Master, "OPAL_AUTH_JWT_AUDIENCE=" + opalAudience, "OPAL_AUTH_JWT_ISSUER=" + opalAudience,
			"OPAL_POLICY_REPO_URL=" + repository.String(), "OPAL_POLICY_REPO_MAIN_BRANCH=main", "OPAL_POLICY_REPO_POLLING_INTERVAL=1",
			"GIT_SSL_CAINFO=/etc/opal/git-ca.pem", `OPAL_DATA_CONFIG_SOURCES={"config":{"entries":[]}}`,
		},
		Files: map[string]File{
			"/etc/opal/key.pem":    {private, 0o400, 1000},
			"/etc/opal/public.pem": {o.PublicKey, 0o444, 0},
			"/etc/opal/git-ca.pem": {string(o.Git.CA().PEM()), 0o444, 0},
		},
		Publish: []uint16{7002},
	})
	testbed.Eventually(o.tb, time.Minute, "the OPAL server hands out policies", func() error {
		token, err := o.token(time.Minute)
		if err != nil {
			return err
		}
		return o.ask(http.MethodGet, "/policy", token, nil, nil)
	})
}

// NewKey makes an RSA key; both halves are PEM.
func NewKey() (private, public string, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", "", err
	}
	own, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	others, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", "", err
	}
	inPEM := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return inPEM("PRIVATE KEY", own), inPEM("PUBLIC KEY", others), nil
}

// URL is the server's address on this machine.
func (o *OPAL) URL() string { return "http://" + o.Published("opal-server", 7002).String() }

// Token makes a token for a client.
func (o *OPAL) Token(lifetime time.Duration) string {
	o.tb.Helper()
	token, err := o.token(lifetime)
	if err != nil {
		o.tb.Fatal(err)
	}
	return token
}

// Takes says whether the server takes a client's token.
func (o *OPAL) Takes(token string) error { return o.ask(http.MethodGet, "/policy", token, nil, nil) }

// Client runs an OPA, as service opa, and the OPAL client that fills it, as service opal-client.
func (o *OPAL) Client(token string) {
	o.tb.Helper()
	o.Run("opa", Service{
		Image:   testbed.Image(o.tb, testbed.OPA),
		Command: []string{"run", "--server", "--addr", "0.0.0.0:8181", "--skip-version-check", "--log-level", "error"},
		Publish: []uint16{8181},
	})
	o.Run("opal-client", Service{
		Image: testbed.Image(o.tb, testbed.OPALClient),
		Env: []string{
			"OPAL_SERVER_URL=http://opal-server:7002", "OPAL_CLIENT_TOKEN=" + token, "OPAL_DATA_UPDATER_ENABLED=false",
			"OPAL_INLINE_OPA_ENABLED=false", "OPAL_POLICY_STORE_URL=http://opa:8181", "OPAL_OPA_HEALTH_CHECK_POLICY_ENABLED=true",
			"OPAL_CLIENT_API_SERVER_HOST=0.0.0.0", "OPAL_CLIENT_API_SERVER_PORT=7000", "OPAL_CLIENT_API_SERVER_WORKER_COUNT=1",
		},
		Publish: []uint16{7000},
	})
}

func (o *OPAL) token(lifetime time.Duration) (string, error) {
	var made struct {
		Token string `json:"token"`
	}
	err := o.ask(http.MethodPost, "/token", o.Master, map[string]any{"type": "client", "ttl": lifetime.Seconds()}, &made)
	return made.Token, err
}

func (o *OPAL) ask(method, path, token string, send, into any) error {
	ctx, cancel := context.WithTimeout(o.tb.Context(), 10*time.Second)
	defer cancel()
	c, err := o.Find(ctx, "opal-server")
	if err != nil {
		return err
	}
	body, err := json.Marshal(send)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.Published[7002].String()+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, answer.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

// gateway is this machine's address on the lab's network.
func (l *Lab) gateway() string {
	l.tb.Helper()
	found, err := l.engine.NetworkInspect(l.tb.Context(), l.prefix, client.NetworkInspectOptions{})
	if err == nil && len(found.Network.IPAM.Config) == 0 {
		err = errors.New("it has no address")
	}
	if err != nil {
		l.tb.Fatalf("look at network %s: %v", l.prefix, err)
	}
	return strings.TrimSpace(found.Network.IPAM.Config[0].Gateway.String())
}
