// Package hook receives push webhooks of forges. A webhook that proves to know the secret wakes the poll and does nothing
// else: its body decides nothing, since it may be forged, old or about another branch. It knows neither Git nor the agent.
package hook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Kind is how a sender proves that it knows the secret.
type Kind string

const (
	// Generic: X-Signature-256 holds "sha256=" and the HMAC-SHA-256 of the body in hexadecimal.
	Generic Kind = "generic"
	// GitHub: the same in X-Hub-Signature-256 ("Validating webhook deliveries" in GitHub's documentation).
	GitHub Kind = "github"
	// GitLab: X-Gitlab-Token is the secret itself ("Webhooks", "Secret token" in GitLab's documentation).
	GitLab Kind = "gitlab"
	// Gitea, and Forgejo: X-Gitea-Signature or X-Forgejo-Signature holds the HMAC-SHA-256 of the body
	// in hexadecimal, without a prefix ("Webhooks" in their documentations).
	Gitea Kind = "gitea"
)

const (
	// MaxBody is how much of a request is read, in bytes.
	MaxBody = 3 << 20
	// readTime bounds reading a body.
	readTime = 10 * time.Second
	// minSecret is the shortest secret that is accepted, in bytes.
	minSecret = 16
)

// Options of a receiver.
type Options struct {
	Kind Kind
	// Secrets that count; two while one is being replaced. Each has at least 16 bytes.
	Secrets [][]byte
	// Wake is called for each request that is genuine. It must not block; calling it often must be harmless.
	Wake func()
}

// Receiver is an http.Handler. It answers 202 to a genuine request and 401 to others, 405 to what is no POST, 413 to a
// body over 3 MiB.
type Receiver struct{ opts Options }

// New checks the options.
func New(opts Options) (*Receiver, error) {
	switch opts.Kind {
	case Generic, GitHub, GitLab, Gitea:
	default:
		return nil, fmt.Errorf("webhook kind %q is not known: use generic, github, gitlab or gitea (for Forgejo too)", opts.Kind)
	}
	if len(opts.Secrets) == 0 {
		return nil, errors.New("a webhook needs a secret")
	}
	for _, s := range opts.Secrets {
		if len(s) < minSecret {
			return nil, fmt.Errorf("a webhook's secret needs at least %d bytes", minSecret)
		}
	}
	if opts.Wake == nil {
		return nil, errors.New("a webhook needs somebody to wake")
	}
	return &Receiver{opts}, nil
}

// ServeHTTP verifies a request and wakes.
func (h *Receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "webhooks are POST requests", http.StatusMethodNotAllowed)
		return
	}
	genuine, err := h.genuine(w, r)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
	case err != nil:
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
	case !genuine:
		http.Error(w, "the signature is missing or wrong", http.StatusUnauthorized)
	default:
		h.opts.Wake()
		w.WriteHeader(http.StatusAccepted)
	}
}

// genuine checks what the sender proves. A request that offers no proof is not read.
func (h *Receiver) genuine(w http.ResponseWriter, r *http.Request) (bool, error) {
	if h.opts.Kind == GitLab {
		return h.knowsSecret(r.Header.Get("X-Gitlab-Token")), nil
	}
	claimed, ok := h.claimed(r.Header)
	if !ok {
		return false, nil
	}
	// Not every writer has a deadline to set; the server's own then holds.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		return false, err
	}
	return h.signed(body, claimed), nil
}

// claimed reads the signature that a request carries.
func (h *Receiver) claimed(header http.Header) ([]byte, bool) {
	var text string
	switch h.opts.Kind {
	case Gitea:
		if text = header.Get("X-Forgejo-Signature"); text == "" {
			text = header.Get("X-Gitea-Signature")
		}
	default:
		name := "X-Signature-256"
		if h.opts.Kind == GitHub {
			name = "X-Hub-Signature-256"
		}
		var ok bool
		if text, ok = strings.CutPrefix(header.Get(name), "sha256="); !ok {
			return nil, false
		}
	}
	mac, err := hex.DecodeString(text)
	return mac, err == nil && len(mac) == sha256.Size
}

// signed compares in constant time, and always with all secrets.
func (h *Receiver) signed(body, claimed []byte) bool {
	found := 0
	for _, secret := range h.opts.Secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write(body)
		found |= subtle.ConstantTimeCompare(mac.Sum(nil), claimed)
	}
	return found == 1
}

// knowsSecret compares digests, so that the time tells nothing of the length either.
func (h *Receiver) knowsSecret(token string) bool {
	got := sha256.Sum256([]byte(token))
	found := 0
	for _, secret := range h.opts.Secrets {
		want := sha256.Sum256(secret)
		found |= subtle.ConstantTimeCompare(want[:], got[:])
	}
	return found == 1
}
