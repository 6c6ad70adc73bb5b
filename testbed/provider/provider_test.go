package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/stretchr/testify/require"
)

// What the types do is tried on a real server with the modules of the examples, in reconcilers/keycloak. Here is what
// needs none.

func TestEverySchemaIsSound(t *testing.T) {
	names := map[string]bool{}
	for _, k := range kinds() {
		require.False(t, names[k.name], "%s is there twice", k.name)
		names[k.name] = true
		require.Empty(t, schemaOf(k).ValidateImplementation(t.Context()), k.name)
		require.NotNil(t, schemaOf(k).Attributes["id"], k.name)
		e := &engine{kind: k}
		var meta resource.MetadataResponse
		e.Metadata(t.Context(), resource.MetadataRequest{ProviderTypeName: "keycloak"}, &meta)
		require.Equal(t, "keycloak_"+k.name, meta.TypeName)
	}
	var schema provider.SchemaResponse
	(&keycloakProvider{}).Schema(t.Context(), provider.SchemaRequest{}, &schema)
	require.Empty(t, schema.Schema.ValidateImplementation(t.Context()))
}

var sample = parseFields("sample", `
enabled  bool   O   enabled true
title    string O   title
lifespan string OC  secs:lifespan
uris     set    OC  hash:attributes/uris
multi    bool   O   text:config/multi false
tags     map    O   lists:attributes
extra    map    O   own:config
secret   string OS  masked:config/secret
later    string O   -
`)

func TestNullMeansTheDefault(t *testing.T) {
	rep := object{}
	require.NoError(t, overlay(sample, nil, rep, object{"tags": object{"a": "1##2"}}, nil))
	require.Equal(t, true, rep["enabled"])
	require.Equal(t, "false", lookup(rep, "config/multi"))
	require.Equal(t, []any{"1", "2"}, lookup(rep, "attributes/a"))

	live := decodeJSON(t, `{"enabled":true,"title":"","lifespan":900,"attributes":{"a":["2","1"]},"config":{"multi":"false"}}`)
	state := observe(sample, nil, live, object{"tags": object{"a": "1##2"}, "lifespan": "15m"})
	require.Nil(t, state["enabled"], "a null that is true to the live value stays null")
	require.Equal(t, "15m", state["lifespan"], "another spelling of the same is kept")
	require.Equal(t, object{"a": "1##2"}, state["tags"], "the order of values does not count")

	changed := decodeJSON(t, `{"enabled":false,"title":"by hand","lifespan":60,"config":{"multi":"true"}}`)
	state = observe(sample, nil, changed, object{"lifespan": "15m"})
	require.Equal(t, false, state["enabled"])
	require.Equal(t, "by hand", state["title"])
	require.Equal(t, "1m0s", state["lifespan"])
	require.Equal(t, true, state["multi"])
}

func TestTakingAValueAwayEmptiesIt(t *testing.T) {
	rep := decodeJSON(t, `{"title":"old","config":{"mine":"1","theirs":"2"}}`)
	before := object{"title": "old", "extra": object{"mine": "1"}}
	require.NoError(t, overlay(sample, nil, rep, object{}, before))
	require.Equal(t, "", rep["title"])
	require.Equal(t, "", lookup(rep, "config/mine"))
	require.Equal(t, "2", lookup(rep, "config/theirs"), "what others put there is not ours")
}

func TestWhatIsNotSupportedIsRefused(t *testing.T) {
	err := overlay(sample, nil, object{}, object{"later": "x"}, nil)
	require.ErrorContains(t, err, "later is not supported")
}

func TestMaskedValuesAreNotReadBack(t *testing.T) {
	live := decodeJSON(t, `{"config":{"secret":"**********"}}`)
	require.Equal(t, "known", observe(sample, nil, live, object{"secret": "known"})["secret"])
}

func decodeJSON(t *testing.T, text string) object {
	t.Helper()
	var o object
	require.NoError(t, json.Unmarshal([]byte(text), &o))
	return o
}

// A token lives for a minute, an apply may take longer.
func TestClientSignsInAgainWhenItsTokenEnded(t *testing.T) {
	logins, current := 0, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/realms/master/protocol/openid-connect/token":
			logins++
			current = string(rune('a' + logins))
			_, _ = w.Write([]byte(`{"access_token":"` + current + `"}`))
		case r.Header.Get("Authorization") != "Bearer "+current:
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = w.Write([]byte(`{"realm":"x"}`))
		}
	}))
	defer server.Close()
	c, err := newClient(map[string]string{"url": server.URL, "client_id": "admin-cli", "username": "admin", "password": "p"})
	require.NoError(t, err)
	require.NoError(t, c.login(t.Context()))
	current = "ended"
	var realm object
	require.NoError(t, c.get(t.Context(), "/realms/x", &realm))
	require.Equal(t, 2, logins)
	require.Equal(t, "x", realm["realm"])

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.get(ctx, "/realms/x", &realm), context.Canceled)
}
