package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// opalToken asks the OPAL server for a client token. It is null when OPAL is not configured, and when the server does
// not give one: approval goes on without.
func (h *Hub) opalToken(ctx context.Context) any {
	if h.OPALURL == "" || h.OPALMasterToken == "" {
		return nil
	}
	token, expires, err := h.askOPAL(ctx)
	if err != nil {
		h.Log.Warn("OPAL token", "error", err.Error())
		return nil
	}
	return fields{"token": token, "expiresAt": expires, "type": "opal_client"}
}

// askOPAL asks the OPAL server for a client's token, as the real hub does; expires is in the server's own words.
func (h *Hub) askOPAL(ctx context.Context) (token, expires string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(h.OPALURL, "/")+"/token",
		bytes.NewReader([]byte(`{"type": "client"}`)))
	if err != nil {
		return "", "", err
	}
	request.Header.Set("Authorization", "Bearer "+h.OPALMasterToken)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	var body struct {
		Token   string `json:"token"`
		Details struct {
			Expired string `json:"expired"`
		} `json:"details"`
	}
	if response.StatusCode != http.StatusOK {
		return "", "", fmt.Errorf("the OPAL server answered %s", response.Status)
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, response.Body, 1<<20)).Decode(&body); err != nil {
		return "", "", err
	}
	return body.Token, body.Details.Expired, nil
}
