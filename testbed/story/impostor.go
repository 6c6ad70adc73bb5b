package story

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"dive-agent/testbed/browser"
	"dive-agent/testbed/stored"
)

// isNotTheirs has one side make a person with the name and the address of one of the other side, as who is root there can, and sign in
// with it: the other side gives nobody an account that is somebody else's.
func (w *world) isNotTheirs(ctx context.Context, b *browser.Browser, at, of side) error {
	victim := "testuser-" + at.name + "-4" // who has not signed in at the other side yet, which would have made the account there
	password := "Demo-1-" + rand.Text()
	if err := w.makeUser(ctx, of, victim, victim+"@"+at.name+".example", password); err != nil {
		return err
	}
	page, err := chooseProvider(b, at, of)
	if err != nil {
		return err
	}
	defer page.Close()
	if err := fillIn(page, victim, password); err != nil {
		return err
	}
	said, err := page.Text(signedIn + ", " + failed)
	if err != nil {
		return err
	}
	if !strings.Contains(said, "already exists") {
		return fmt.Errorf("with the name of %s of %s, made at %s, the sign-in ends with %q", victim, at.code(), of.code(), said)
	}
	said, _, _ = strings.Cut(said, "\n")
	note("a %s made by %s is not let in as the one of %s: %q", victim, of.code(), at.code(), said)
	return w.picture(page, "not-let-in-at-"+at.name)
}

// makeUser makes a person in a side's realm, as the administrator of its Keycloak.
func (w *world) makeUser(ctx context.Context, of side, user, email, password string) error {
	secrets, err := stored.Values(w.path(of.host, "state"), of.name)
	if err != nil {
		return err
	}
	answer, err := send(ctx, of.idp+"/realms/master/protocol/openid-connect/token", "application/x-www-form-urlencoded", "", []byte(url.Values{
		"client_id": {"admin-cli"}, "grant_type": {"password"}, "username": {"admin"}, "password": {secrets["KEYCLOAK_ADMIN_PASSWORD"]},
	}.Encode()))
	if err != nil {
		return fmt.Errorf("sign in as administrator of %s: %w", of.code(), err)
	}
	var token struct {
		Access string `json:"access_token"`
	}
	if err := json.Unmarshal(answer, &token); err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{
		"username": user, "email": email, "emailVerified": true, "enabled": true, "firstName": "Test3", "lastName": of.code(),
		"credentials": []map[string]any{{"type": "password", "value": password, "temporary": false}},
	})
	if err != nil {
		return err
	}
	if _, err := send(ctx, of.idp+"/admin/realms/dive-v3-broker-"+of.name+"/users", "application/json", token.Access, body); err != nil {
		return fmt.Errorf("make %s at %s: %w", user, of.code(), err)
	}
	return nil
}

// send posts a body, and gives the answer to what was accepted.
func send(ctx context.Context, address, kind, token string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", kind)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s", address, response.Status)
	}
	return answer, err
}
