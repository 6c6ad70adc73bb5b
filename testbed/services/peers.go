package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

const answerLimit = 1 << 20

// getJSON asks for a document and decodes it; into may be nil.
func getJSON(ctx context.Context, client *http.Client, address string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body := io.LimitReader(response.Body, answerLimit)
	if response.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, body) // so that the connection can be used again
		return fmt.Errorf("%s answered %s", address, response.Status)
	}
	if into == nil {
		_, err = io.Copy(io.Discard, body)
		return err
	}
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("%s answered no JSON: %w", address, err)
	}
	return nil
}

// urlCheck expects 200.
func urlCheck(name string, client *http.Client, address string) check {
	return check{name: name, run: func(ctx context.Context) (map[string]any, error) { return nil, getJSON(ctx, client, address, nil) }}
}

// oidcCheck reads the metadata of the realm, and the keys that it names.
func oidcCheck(client *http.Client, keycloak, realm string) check {
	address := join(keycloak, "/realms/"+url.PathEscape(realm)+"/.well-known/openid-configuration")
	return check{name: "keycloak", run: func(ctx context.Context) (map[string]any, error) {
		var metadata struct {
			Issuer        string `json:"issuer"`
			TokenEndpoint string `json:"token_endpoint"`
		}
		if err := getJSON(ctx, client, address, &metadata); err != nil {
			return nil, err
		}
		if metadata.Issuer == "" || metadata.TokenEndpoint == "" {
			return nil, fmt.Errorf("%s names no issuer or token endpoint", address)
		}
		return map[string]any{"issuer": metadata.Issuer}, nil
	}}
}
