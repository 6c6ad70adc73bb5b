package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/testbed/hub"
)

// heartbeat tells the hub that the spoke lives, with the token that the service was started with: a token that is
// rotated reaches it only by a new container.
type heartbeat struct {
	client                    *http.Client
	links                     *mongo.Collection // of the spoke's own database
	partner                   string            // the hub's country
	hub, token, spokeID, code string
	report                    func() (string, map[string]result)
}

// fingerprint tells tokens apart in logs and health without showing them.
func fingerprint(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:4])
}

func (b *heartbeat) check(every time.Duration) check {
	return check{name: "heartbeat", every: every, run: b.send}
}

// post is one heartbeat.
func (b *heartbeat) post(ctx context.Context) (*http.Response, error) {
	body, err := json.Marshal(b.body())
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, join(b.hub, "/api/federation/heartbeat"), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+b.token)
	request.Header.Set("Content-Type", "application/json")
	return b.client.Do(request)
}

// persistent is post that tries again for a moment while nobody answers: a container whose names on a network are given to
// another one has no network for some milliseconds.
func (b *heartbeat) persistent(ctx context.Context) (*http.Response, error) {
	for range 8 {
		response, err := b.post(ctx)
		if err == nil || ctx.Err() != nil {
			return response, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
	return b.post(ctx)
}

// partners answers as the hub does to the service's token, with the token's fingerprint: what a caller gets who needs the
// hub at that moment. 502: it could not be asked.
func (b *heartbeat) partners() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/partners", func(w http.ResponseWriter, r *http.Request) {
		response, err := b.persistent(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, answerLimit)) // so that the connection is used again
		w.WriteHeader(response.StatusCode)
		_, _ = io.WriteString(w, fingerprint(b.token)) // fails only when the caller is gone
	})
	return mux
}

// send tells of the token in the detail only by its fingerprint.
func (b *heartbeat) send(ctx context.Context) (map[string]any, error) {
	detail := map[string]any{"token": fingerprint(b.token), "hub": b.hub}
	response, err := b.post(ctx)
	if err != nil {
		return detail, err
	}
	defer response.Body.Close()
	var answer struct {
		Error      string `json:"error"`
		SpokeID    string `json:"spokeId"`
		SyncStatus string `json:"syncStatus"`
	}
	err = json.NewDecoder(io.LimitReader(response.Body, answerLimit)).Decode(&answer)
	if response.StatusCode != http.StatusOK {
		return detail, fmt.Errorf("the hub answered %s: %s", response.Status, answer.Error)
	}
	detail["spokeId"], detail["syncStatus"] = answer.SpokeID, answer.SyncStatus
	if err == nil {
		err = b.link(ctx)
	}
	return detail, err
}

// link notes in the spoke's database that the spoke and the hub trust each other.
func (b *heartbeat) link(ctx context.Context) error {
	if b.links == nil || b.code == "" {
		return nil
	}
	return errors.Join(hub.LinkIn(ctx, b.links, b.code, b.partner), hub.LinkIn(ctx, b.links, b.partner, b.code))
}

// body reports the services by the names that the hub knows.
func (b *heartbeat) body() map[string]any {
	_, results := b.report()
	services := map[string]any{}
	for _, name := range []string{"opa", "keycloak", "mongodb"} {
		if r, ok := results[name]; ok && r.LastCheck != "" {
			services[name] = map[string]any{"healthy": r.Healthy, "lastCheck": r.LastCheck}
		}
	}
	return map[string]any{
		"spokeId": b.spokeID, "instanceCode": b.code,
		"timestamp": time.Now().UTC().Format(time.RFC3339Nano), "services": services,
	}
}
