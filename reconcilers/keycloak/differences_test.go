package keycloak

import (
	"strings"
	"testing"

	tfjson "github.com/hashicorp/terraform-json"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

func TestDifferencesShowNoSecret(t *testing.T) {
	update := tfjson.Actions{tfjson.ActionUpdate}
	p := &planned{stream: &stream{}, plan: &tfjson.Plan{
		ResourceChanges: []*tfjson.ResourceChange{
			{Address: "keycloak_openid_client.app", Mode: tfjson.ManagedResourceMode, Change: &tfjson.Change{
				Actions: update,
				Before: map[string]any{
					"name": "App", "client_secret": "before-by-name", "uris": []any{"https://a<b", "https://old"}, "root_url": "https://x/hush", "marked": "mark-1", "same": "s",
					"attributes": map[string]any{"clearance": "SECRET", "org": "A", "api_token": "t-1"}, "note": nil,
				},
				After: map[string]any{
					"name": "App 2", "client_secret": "after-by-name", "uris": []any{"https://a<b", "https://c"}, "root_url": "https://x/y", "marked": "mark-2", "same": "s",
					"attributes": map[string]any{"clearance": "TOP_SECRET", "org": "A", "api_token": "t-2"}, "note": "a\nb",
					"block": []any{map[string]any{"private_key": "in-a-block", "kind": "x"}},
				},
				AfterUnknown:    map[string]any{"id": true},
				BeforeSensitive: map[string]any{}, AfterSensitive: map[string]any{"marked": true, "uris": []any{}},
			}},
			{Address: "keycloak_user.new", Mode: tfjson.ManagedResourceMode, Change: &tfjson.Change{
				Actions: tfjson.Actions{tfjson.ActionCreate}, After: map[string]any{"username": "new"},
			}},
		},
		OutputChanges: map[string]*tfjson.Change{
			"title":  {Actions: update, Before: "a", After: "b", BeforeSensitive: false, AfterSensitive: false},
			"hidden": {Actions: update, Before: "out-1", After: "out-2", BeforeSensitive: true, AfterSensitive: true},
			"secret": {Actions: update, Before: "out-3", After: "out-4", BeforeSensitive: false, AfterSensitive: false},
		},
	}}
	all := differencesOf(p, strings.NewReplacer("hush", "(secret)").Replace)
	require.Equal(t, map[string][]reconcilers.Difference{
		"keycloak_openid_client.app": {
			{Path: "attributes.api_token", Before: "(secret)", After: "(secret)"},
			{Path: "attributes.clearance", Before: "SECRET", After: "TOP_SECRET"},
			{Path: "block", After: `[{"kind":"x","private_key":"(secret)"}]`},
			{Path: "client_secret", Before: "(secret)", After: "(secret)"},
			{Path: "id", After: "(known after apply)"},
			{Path: "marked", Before: "(secret)", After: "(secret)"},
			{Path: "name", Before: "App", After: "App 2"},
			{Path: "note", After: "a b"},
			{Path: "root_url", Before: "https://x/(secret)", After: "https://x/y"},
			{Path: "uris[+]", After: "https://c"},
			{Path: "uris[-]", Before: "https://old"},
		},
		"output.title":  {{Path: "value", Before: "a", After: "b"}},
		"output.hidden": {{Path: "value", Before: "(secret)", After: "(secret)"}},
		"output.secret": {{Path: "value", Before: "(secret)", After: "(secret)"}},
	}, all)
}
