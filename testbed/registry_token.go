package testbed

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dive-agent/testbed/pki"
)

// tokenIssuer gives out what docker-registry takes in place of a password: JSON Web Tokens for one repository, as the registries of
// forges and Docker Hub do (https://distribution.github.io/distribution/spec/auth/jwt/).
type tokenIssuer struct {
	user, password string
	leaf           tls.Certificate
}

const tokenService = "testbed"

// newTokenIssuer makes an issuer, and a file with the authority of its key.
func newTokenIssuer(dir, user, password string) (*tokenIssuer, string, error) {
	ca, err := pki.New("tokens")
	if err != nil {
		return nil, "", err
	}
	certificate, key, err := ca.Issue(tokenService)
	if err != nil {
		return nil, "", err
	}
	leaf, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, "", err
	}
	bundle := filepath.Join(dir, "tokens.pem")
	return &tokenIssuer{user: user, password: password, leaf: leaf}, bundle, os.WriteFile(bundle, ca.PEM(), 0o600)
}

// ServeHTTP is http.Handler. Who is not the one user gets nothing.
func (i *tokenIssuer) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if err := request.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	user, password, ok := request.BasicAuth()
	if !ok {
		user, password = request.Form.Get("username"), request.Form.Get("password")
	}
	if user != i.user || password != i.password {
		http.Error(w, "unauthorized: incorrect username or password", http.StatusUnauthorized)
		return
	}
	token, err := i.issue(request.Form["scope"]...)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300})
}

// issue makes a token for scopes such as repository:app:pull,push.
func (i *tokenIssuer) issue(scopes ...string) (string, error) {
	access := []map[string]any{}
	for _, scope := range strings.Fields(strings.Join(scopes, " ")) {
		parts := strings.SplitN(scope, ":", 3)
		if len(parts) == 3 {
			access = append(access, map[string]any{"type": parts[0], "name": parts[1], "actions": strings.Split(parts[2], ",")})
		}
	}
	now := time.Now()
	header, err := json.Marshal(map[string]any{
		"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(i.leaf.Certificate[0])},
	})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"iss": tokenService, "aud": tokenService, "sub": i.user, "jti": rand.Text(), "access": access,
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
	key, ok := i.leaf.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return "", errors.New("the issuer's key is not ECDSA")
	}
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
