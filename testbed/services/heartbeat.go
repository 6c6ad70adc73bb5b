package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// heartbeat tells the hub that the spoke lives, with the token that the service was started with: a token that is
// rotated reaches it only by a new container.
type heartbeat struct {
	client                    *http.Client
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

// send tells of the token in the detail only by its fingerprint.
func (b *heartbeat) send(ctx context.Context) (map[string]any, error) {
	detail := map[string]any{"token": fingerprint(b.token), "hub": b.hub}
	body, err := json.Marshal(b.body())
	if err != nil {
		return detail, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, join(b.hub, "/api/federation/heartbeat"), bytes.NewReader(body))
	if err != nil {
		return detail, err
	}
	request.Header.Set("Authorization", "Bearer "+b.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := b.client.Do(request)
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
	return detail, err
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
