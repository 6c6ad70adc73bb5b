package keycloak

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// What is asked of the server itself, and of the administrators in its realm master.

const master = "master"

// version is the server's own word. It is empty for who is not an administrator of the whole server.
func (s *server) version(ctx context.Context) (string, error) {
	var info struct {
		System struct {
			Version string `json:"version"`
		} `json:"systemInfo"`
	}
	err := s.call(ctx, http.MethodGet, &info, nil, nil, "serverinfo")
	var no *refusedBody
	if errors.As(err, &no) && no.status == http.StatusForbidden {
		return "", nil
	}
	return info.System.Version, err
}

// userID finds a user of realm master.
func (s *server) userID(ctx context.Context, name string) (string, error) {
	users, err := s.list(ctx, master, url.Values{"username": {name}, "exact": {"true"}}, "users")
	if err != nil {
		return "", err
	}
	if len(users) != 1 {
		return "", errAbsent
	}
	id, _ := users[0]["id"].(string)
	if id == "" {
		return "", errors.New("the server names no id")
	}
	return id, nil
}

// resetPassword sets a password that need not be changed at the next sign-in.
func (s *server) resetPassword(ctx context.Context, id, password string) error {
	body := map[string]any{"type": "password", "value": password, "temporary": false}
	return s.call(ctx, http.MethodPut, nil, body, nil, "realms", master, "users", id, "reset-password")
}

// logOut ends all sessions of a user, which a changed password does not.
func (s *server) logOut(ctx context.Context, id string) error {
	return s.call(ctx, http.MethodPost, nil, nil, nil, "realms", master, "users", id, "logout")
}
