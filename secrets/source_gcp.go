package secrets

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dive-agent/desired"
)

// GCPOptions say how Google's Secret Manager is reached: its REST API, "projects.secrets.versions.access", with a token by "OAuth
// 2.0 for server to server applications".
type GCPOptions struct {
	Use             bool   // false: this host has none
	CredentialsFile string // key of a service account, JSON; empty: the account of the virtual machine
	Endpoint        string // default https://secretmanager.googleapis.com; a regional one, https://secretmanager.REGION.rep.googleapis.com
	MetadataHost    string // default metadata.google.internal
	CAFile          string
}

// gcpSession is an access token.
type gcpSession struct {
	token string
	until time.Time
}

type gcpLook struct {
	*looking
	*asker
	cancel context.CancelFunc
}

func (l *looking) lookGCP(from desired.SecretSource) ([]byte, error) {
	if !l.GCP.Use {
		return nil, &fault{text: "this host does not use Secret Manager", do: "Say secrets.gcp in the host's agent.yaml"}
	}
	g, err := l.gcpLook()
	if err != nil {
		return nil, err
	}
	token, err := g.signIn()
	if err != nil {
		return nil, err
	}
	return g.access(from, token)
}

// gcpLook begins to ask Google, once in a look.
func (l *looking) gcpLook() (*gcpLook, error) {
	if l.gcp == nil {
		ctx, cancel := context.WithTimeout(l.ctx, askLimit)
		asker, err := newAsker(ctx, l.GCP.CAFile)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("the authority of Secret Manager: %w", err)
		}
		l.gcp = &gcpLook{looking: l, asker: asker, cancel: cancel}
	}
	return l.gcp, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (g *gcpLook) access(from desired.SecretSource, token string) ([]byte, error) {
	endpoint := strings.TrimSuffix(g.GCP.Endpoint, "/")
	if endpoint == "" {
		endpoint = "https://secretmanager.googleapis.com"
	}
	address := fmt.Sprintf("%s/v1/projects/%s/secrets/%s/versions/%s:access", endpoint, url.PathEscape(from.Project), url.PathEscape(from.Key), url.PathEscape(from.Version))
	var answer struct {
		Payload struct {
			Data []byte `json:"data"` // base64, as encoding/json has it
			Sum  string `json:"dataCrc32c"`
		} `json:"payload"`
		Error gcpError `json:"error"`
	}
	status, err := g.ask(http.MethodGet, address, http.Header{"Authorization": {"Bearer " + token}}, nil, &answer)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusOK && answer.Payload.Sum != "" && answer.Payload.Sum != strconv.FormatUint(uint64(crc32.Checksum(answer.Payload.Data, castagnoli)), 10):
		return nil, errors.New("its checksum does not fit: it was changed on the way")
	case status == http.StatusOK:
		return answer.Payload.Data, nil
	case status == http.StatusUnauthorized:
		g.mu.Lock()
		g.gcpSession = gcpSession{}
		g.mu.Unlock()
	}
	return nil, answer.Error.fault(status, from)
}

type gcpError struct {
	Message string `json:"message"`
	Status  string `json:"status"`
}

func (e gcpError) fault(status int, from desired.SecretSource) error {
	f := &fault{text: orStatus(shortened(strings.TrimSpace(e.Status+": "+e.Message)), status)}
	switch e.Status {
	case "PERMISSION_DENIED", "UNAUTHENTICATED":
		f.do = fmt.Sprintf("Give the agent's account the role roles/secretmanager.secretAccessor on %s of project %s", from.Key, from.Project)
	case "NOT_FOUND":
		f.do = fmt.Sprintf("Make it, or a version of it: gcloud secrets versions add %s --project=%s --data-file=-", from.Key, from.Project)
	case "FAILED_PRECONDITION":
		f.do = fmt.Sprintf("The version is disabled or destroyed: enable it, or add another one: gcloud secrets versions add %s --project=%s --data-file=-", from.Key, from.Project)
	}
	return f
}

// gcpKey is what of a service account's key file is used.
type gcpKey struct {
	Type     string `json:"type"`
	Email    string `json:"client_email"`
	KeyID    string `json:"private_key_id"`
	Key      string `json:"private_key"`
	TokenURI string `json:"token_uri"`
}

type gcpToken struct {
	Token   string `json:"access_token"`
	Expires int    `json:"expires_in"` // seconds
	Error   string `json:"error"`
	Why     string `json:"error_description"`
}

// signIn gives an access token: the last one until a minute before its end, else a new one.
func (g *gcpLook) signIn() (string, error) {
	g.mu.Lock()
	session := g.gcpSession
	g.mu.Unlock()
	if session.token != "" && g.Now().Before(session.until) {
		return session.token, nil
	}
	var answer gcpToken
	var status int
	var err error
	way := "Look at the key file " + g.GCP.CredentialsFile + ": the key may be disabled or deleted, or the host's clock wrong"
	if g.GCP.CredentialsFile == "" {
		way = "Give the virtual machine a service account, or name a key file (secrets.gcp.credentialsFile in agent.yaml)"
		host := g.GCP.MetadataHost
		if host == "" {
			host = "metadata.google.internal"
		}
		status, err = g.ask(http.MethodGet, "http://"+host+"/computeMetadata/v1/instance/service-accounts/default/token", http.Header{"Metadata-Flavor": {"Google"}}, nil, &answer)
	} else {
		status, err = g.exchange(&answer)
	}
	if err != nil {
		return "", &fault{text: "the agent's account at Google", err: err, do: way}
	}
	if status != http.StatusOK || answer.Token == "" {
		return "", &fault{text: "the agent's account at Google is refused: " + orStatus(shortened(strings.TrimSpace(answer.Error+" "+answer.Why)), status), do: way}
	}
	if g.Redactor != nil {
		g.Redactor.Add(answer.Token)
	}
	g.mu.Lock()
	g.gcpSession = gcpSession{answer.Token, g.Now().Add(time.Duration(answer.Expires)*time.Second - time.Minute)}
	g.mu.Unlock()
	return answer.Token, nil
}

// exchange signs in with the key of a service account (RFC 7523).
func (g *gcpLook) exchange(answer *gcpToken) (status int, err error) {
	text, err := readFile(g.GCP.CredentialsFile)
	if err != nil {
		return 0, err
	}
	var key gcpKey
	if json.Unmarshal(text, &key) != nil || key.Type != "service_account" || key.TokenURI == "" {
		return 0, errors.New("it is no key of a service account: JSON with type service_account")
	}
	if g.Redactor != nil {
		g.Redactor.Add(key.Key)
	}
	assertion, err := key.assertion(g.Now())
	if err != nil {
		return 0, err
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
	return g.ask(http.MethodPost, key.TokenURI, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, strings.NewReader(form.Encode()), answer)
}

// assertion is a signed JSON Web Token, good for an hour.
func (k gcpKey) assertion(now time.Time) (string, error) {
	block, _ := pem.Decode([]byte(k.Key))
	if block == nil {
		return "", errors.New("its private_key is no PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return "", errors.New("its private_key is no RSA key")
	}
	encode := func(part map[string]any) string {
		text, _ := json.Marshal(part) // texts and numbers
		return base64.RawURLEncoding.EncodeToString(text)
	}
	head := encode(map[string]any{"alg": "RS256", "typ": "JWT", "kid": k.KeyID})
	claims := encode(map[string]any{
		"iss": k.Email, "scope": "https://www.googleapis.com/auth/cloud-platform", "aud": k.TokenURI, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	sum := sha256.Sum256([]byte(head + "." + claims))
	signature, err := rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	return head + "." + claims + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
