package secretserver

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SecretManager stands for Google's Secret Manager, and for Google's servers that give access tokens. It is safe for
// concurrent use.
type SecretManager struct {
	key   *rsa.PrivateKey
	email string
	now   func() time.Time

	mu sync.Mutex
	// what follows is under mu
	denied   bool
	secrets  map[string][]gcpVersion // "project/name" to its versions, oldest first
	tokens   map[string]bool
	issued   int
	garbled  bool
	accessed int
}

type gcpVersion struct {
	data     []byte
	disabled bool
}

// NewSecretManager makes one with a service account, whose clock is now.
func NewSecretManager(now func() time.Time) (*SecretManager, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	return &SecretManager{now: now, key: key, email: "agent@dive.iam.gserviceaccount.com", secrets: map[string][]gcpVersion{}, tokens: map[string]bool{}}, err
}

// KeyFile is the key of its service account, as gcloud iam service-accounts keys create writes it. base is the server's URL.
func (s *SecretManager) KeyFile(base string) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]string{
		"type": "service_account", "project_id": "dive", "private_key_id": "k1", "client_email": s.email, "token_uri": base + "/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
}

// Add adds a version.
func (s *SecretManager) Add(project, name, value string) {
	s.set(func() {
		s.secrets[project+"/"+name] = append(s.secrets[project+"/"+name], gcpVersion{data: []byte(value)})
	})
}

// Disable disables the newest version.
func (s *SecretManager) Disable(project, name string, disabled bool) {
	s.set(func() { list := s.secrets[project+"/"+name]; list[len(list)-1].disabled = disabled })
}

// Delete deletes a secret with all its versions.
func (s *SecretManager) Delete(project, name string) {
	s.set(func() { delete(s.secrets, project+"/"+name) })
}

// Deny takes the account's role away, or gives it back.
func (s *SecretManager) Deny(denied bool) { s.set(func() { s.denied = denied }) }

// Garble changes values on their way.
func (s *SecretManager) Garble(garbled bool) { s.set(func() { s.garbled = garbled }) }

// Revoke ends all access tokens.
func (s *SecretManager) Revoke() { s.set(func() { clear(s.tokens) }) }

// Asked counts access tokens and values that were given.
func (s *SecretManager) Asked() (tokens, values int) {
	s.set(func() { tokens, values = s.issued, s.accessed })
	return tokens, values
}

func (s *SecretManager) set(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

var accessPath = regexp.MustCompile(`^/v1/projects/([^/]+)/secrets/([^/]+)/versions/([^/:]+):access$`)

func (s *SecretManager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	switch m := accessPath.FindStringSubmatch(r.URL.Path); {
	case r.URL.Path == "/token" && r.Method == http.MethodPost:
		s.exchange(w, r)
	case r.URL.Path == "/computeMetadata/v1/instance/service-accounts/default/token":
		if r.Header.Get("Metadata-Flavor") != "Google" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		s.issue(w)
	case m != nil && r.Method == http.MethodGet:
		s.access(w, r, m[1], m[2], m[3])
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *SecretManager) issue(w http.ResponseWriter) {
	s.issued++
	token := fmt.Sprintf("ya29.access-token-%d", s.issued)
	s.tokens[token] = true
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "expires_in": 3599, "token_type": "Bearer"})
}

func (s *SecretManager) exchange(w http.ResponseWriter, r *http.Request) {
	refuse := func(why string) {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": why})
	}
	parts := strings.Split(r.FormValue("assertion"), ".")
	if r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || len(parts) != 3 {
		refuse("Invalid JWT: Failed audience check.")
		return
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || rsa.VerifyPKCS1v15(&s.key.PublicKey, crypto.SHA256, sum[:], signature) != nil {
		refuse("Invalid JWT Signature.")
		return
	}
	var claims struct {
		Iss, Aud, Scope string
		Iat, Exp        int64
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.Iss != s.email || !strings.HasSuffix(claims.Aud, "/token") || claims.Scope == "" ||
		claims.Exp-claims.Iat > 3600 || s.now().Unix() > claims.Exp || s.now().Unix() < claims.Iat-300 {
		refuse("Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.")
		return
	}
	s.issue(w)
}

func (s *SecretManager) access(w http.ResponseWriter, r *http.Request, project, name, which string) {
	refuse := func(code int, status, message string) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": message, "status": status}})
	}
	list, ok := s.secrets[project+"/"+name]
	n := len(list)
	if which != "latest" {
		n, _ = strconv.Atoi(which)
	}
	full := fmt.Sprintf("projects/%s/secrets/%s", project, name)
	switch {
	case !s.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]:
		refuse(http.StatusUnauthorized, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
	case s.denied:
		refuse(http.StatusForbidden, "PERMISSION_DENIED", fmt.Sprintf("Permission 'secretmanager.versions.access' denied for resource '%s/versions/%s' (or it may not exist).", full, which))
	case !ok:
		refuse(http.StatusNotFound, "NOT_FOUND", fmt.Sprintf("Secret [%s] not found or has no versions.", full))
	case n < 1 || n > len(list):
		refuse(http.StatusNotFound, "NOT_FOUND", fmt.Sprintf("Secret Version [%s/versions/%s] not found.", full, which))
	case list[n-1].disabled:
		refuse(http.StatusBadRequest, "FAILED_PRECONDITION", fmt.Sprintf("Secret Version [%s/versions/%d] is in DISABLED state.", full, n))
	default:
		s.accessed++
		data := list[n-1].data
		sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
		if s.garbled {
			data = append([]byte("x"), data...)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"name":    fmt.Sprintf("%s/versions/%d", full, n),
			"payload": map[string]string{"data": base64.StdEncoding.EncodeToString(data), "dataCrc32c": strconv.FormatUint(uint64(sum), 10)},
		})
	}
}
