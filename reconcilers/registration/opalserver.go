package registration

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"dive-agent/reconcilers"
)

// opalAgain is how soon an OPAL server that made no token is asked again.
const opalAgain = 10 * time.Second

// opalServer calls one OPAL server.
type opalServer struct {
	base   string
	master string
	key    string // public, PEM
	http   *http.Client
}

// newOPALClient follows no redirect: its one request carries the master token. It is made so seldom that each has a connection of its own.
func newOPALClient() *http.Client {
	return &http.Client{
		Timeout: callLimit, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// token has the server make a token for a client. Every error is a WaitError: what is wrong may be set right on the server's side as
// well as in the manifest. The server repeats in its answers what it was sent, so that no error quotes one.
func (s *opalServer) token(ctx context.Context, lifetime time.Duration, claims map[string]string) (mintedToken, error) {
	body, err := json.Marshal(map[string]any{"type": "client", "ttl": fmt.Sprintf("PT%dS", int(lifetime.Seconds())), "claims": claims})
	if err != nil {
		return mintedToken{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+"/token", bytes.NewReader(body))
	if err != nil {
		return mintedToken{}, s.waits("", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+s.master)
	answer, err := s.http.Do(request)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return mintedToken{}, s.waits("", err)
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return mintedToken{}, s.waits("opal.masterToken must be the OPAL_AUTH_MASTER_TOKEN that it runs with.", fmt.Errorf("it refuses the master token (%d)", answer.StatusCode))
	case http.StatusServiceUnavailable:
		return mintedToken{}, s.waits("Give it a key: OPAL_AUTH_PRIVATE_KEY and OPAL_AUTH_PUBLIC_KEY.", errors.New("it runs without keys and makes no tokens (503)"))
	default:
		return mintedToken{}, s.waits("", fmt.Errorf("POST /token is answered with %d", answer.StatusCode))
	}
	var made struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&made); err != nil {
		return mintedToken{}, s.waits("", errors.New("POST /token is answered with something that is not the JSON of an OPAL server"))
	}
	ends, ok := endOf(made.Token)
	if !ok {
		return mintedToken{}, s.waits("", errors.New("POST /token is answered without a token that says when it ends"))
	}
	if !signedBy(made.Token, s.key) {
		return mintedToken{}, s.waits("", errors.New("it signs with another key than opal.publicKey, as one that is still to be made anew with it"))
	}
	return mintedToken{Token: made.Token, ExpiresAt: ends}, nil
}

// signedBy says whether a key, in PEM, checks the token's signature by RS256 (RFC 7518, section 3.3), which is what an OPAL server uses
// unless told otherwise. Of other ways nothing is checked.
func signedBy(token, public string) bool {
	signed, signature, _ := strings.Cut(token[strings.Index(token, ".")+1:], ".")
	header, _, _ := strings.Cut(token, ".")
	var kind struct {
		Algorithm string `json:"alg"`
	}
	text, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil || json.Unmarshal(text, &kind) != nil {
		return false
	}
	if kind.Algorithm != "RS256" {
		return true
	}
	block, _ := pem.Decode([]byte(public))
	sum, err := base64.RawURLEncoding.DecodeString(signature)
	if block == nil || err != nil {
		return false
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok {
		return false
	}
	digest := sha256.Sum256([]byte(header + "." + signed))
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], sum) == nil
}

func (s *opalServer) waits(do string, err error) error {
	return &reconcilers.WaitError{For: "a token of the OPAL server at " + s.base, Again: opalAgain, Do: do, Err: err}
}

// endOf reads the claim exp of a JSON Web Token (RFC 7519, section 4.1.4), unchecked: it comes from the server that signed it.
func endOf(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Exp <= 0 {
		return time.Time{}, false
	}
	return time.Unix(int64(claims.Exp), 0).UTC(), true
}
