package keycloak

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
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

// person is a user of realm master.
type person struct {
	ID         string
	Enabled    bool
	Attributes map[string][]string
}

// temporary says whether Keycloak made the user as its first administrator (since 26.0), or by `bootstrap-admin user`.
func (p person) temporary() bool { return slices.Contains(p.Attributes["is_temporary_admin"], "true") }

// user finds a user of realm master; errAbsent when there is none.
func (s *server) user(ctx context.Context, name string) (person, error) {
	var users []person
	if err := s.read(ctx, &users, master, url.Values{"username": {name}, "exact": {"true"}}, "users"); err != nil {
		return person{}, err
	}
	if len(users) != 1 {
		return person{}, errAbsent
	}
	if users[0].ID == "" {
		return person{}, errors.New("the server names no id")
	}
	return users[0], nil
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
