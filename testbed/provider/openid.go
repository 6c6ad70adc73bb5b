package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

const clientTable = `
id                                             string OC  .
realm_id                                       string RF  .
client_id                                      string RF  clientId
name                                           string O   name
description                                    string O   description
enabled                                        bool   O   enabled true
access_type                                    string R   @accessType
client_authenticator_type                      string O   loose:clientAuthenticatorType client-secret
client_secret                                  string OCS secret
client_secret_regenerate_when_changed          map    O   -
client_secret_wo                               string OS  -
client_secret_wo_version                       string O   -
standard_flow_enabled                          bool   OC  standardFlowEnabled false
implicit_flow_enabled                          bool   OC  implicitFlowEnabled false
direct_access_grants_enabled                   bool   OC  directAccessGrantsEnabled false
service_accounts_enabled                       bool   OC  serviceAccountsEnabled false
frontchannel_logout_enabled                    bool   OC  frontchannelLogout false
frontchannel_logout_url                        string O   attributes/frontchannel.logout.url
valid_redirect_uris                            set    OC  redirectUris
valid_post_logout_redirect_uris                set    OC  hash:attributes/post.logout.redirect.uris
web_origins                                    set    OC  webOrigins
root_url                                       string O   rootUrl
admin_url                                      string O   adminUrl ""
base_url                                       string O   baseUrl
full_scope_allowed                             bool   O   fullScopeAllowed true
consent_required                               bool   OC  consentRequired false
consent_screen_text                            string O   attributes/consent.screen.text
display_on_consent_screen                      bool   OC  text:attributes/display.on.consent.screen
always_display_in_console                      bool   O   alwaysDisplayInConsole false
login_theme                                    string O   attributes/login_theme
pkce_code_challenge_method                     string O   attributes/pkce.code.challenge.method
access_token_lifespan                          string OC  attributes/access.token.lifespan
client_session_idle_timeout                    string OC  attributes/client.session.idle.timeout
client_session_max_lifespan                    string OC  attributes/client.session.max.lifespan
client_offline_session_idle_timeout            string OC  attributes/client.offline.session.idle.timeout
client_offline_session_max_lifespan            string OC  attributes/client.offline.session.max.lifespan
exclude_session_state_from_auth_response       bool   OC  text:attributes/exclude.session.state.from.auth.response
exclude_issuer_from_auth_response              bool   OC  text:attributes/exclude.issuer.from.auth.response
require_dpop_bound_tokens                      bool   OC  text:attributes/dpop.bound.access.tokens
use_refresh_tokens                             bool   O   loose,text:attributes/use.refresh.tokens true
use_refresh_tokens_client_credentials          bool   O   text:attributes/client_credentials.use_refresh_token false
standard_token_exchange_enabled                bool   O   text:attributes/standard.token.exchange.enabled false
allow_refresh_token_in_standard_token_exchange string O   attributes/standard.token.exchange.enableRefreshRequestedTokenType
backchannel_logout_url                         string O   attributes/backchannel.logout.url
backchannel_logout_session_required            bool   O   loose,text:attributes/backchannel.logout.session.required true
backchannel_logout_revoke_offline_sessions     bool   O   text:attributes/backchannel.logout.revoke.offline.tokens
oauth2_device_authorization_grant_enabled      bool   O   text:attributes/oauth2.device.authorization.grant.enabled false
oauth2_device_code_lifespan                    string O   attributes/oauth2.device.code.lifespan
oauth2_device_polling_interval                 string O   attributes/oauth2.device.polling.interval
oauth2_jwt_authorization_grant_enabled         bool   O   -
oauth2_jwt_authorization_grant_idp             string O   -
extra_config                                   map    O   own:attributes
import                                         bool   OF  -
resource_server_id                             string C   .
service_account_user_id                        string C   @serviceAccountUser
`

func clientKinds() []*kind {
	return []*kind{openidClient(), clientScope(), defaultScopes(), serviceAccountRole()}
}

// openidClient: the access type stands for two flags of the admin API; the service account's user is asked for apart.
func openidClient() *kind {
	return &kind{
		name:   "openid_client",
		fields: parseFields("openid_client", clientTable),
		blocks: []block{
			{name: "authentication_flow_binding_overrides", set: true, max: 1, fields: parseFields("overrides", "browser_id string O -\ndirect_grant_id string O -")},
			{name: "authorization", set: true, max: 1, fields: parseFields("authorization", `
allow_remote_resource_management bool   O -
decision_strategy                string O -
keep_defaults                    bool   O -
policy_enforcement_mode          string R -`)},
		},
		fixed:  object{"protocol": "openid-connect"},
		parent: func(s object) string { return inRealm(text(s, "realm_id"), "clients") },
		item:   func(s object) string { return inRealm(text(s, "realm_id"), "clients", text(s, "id")) },
		derive: func(rep, plan object) {
			rep["publicClient"] = text(plan, "access_type") == "PUBLIC"
			rep["bearerOnly"] = text(plan, "access_type") == "BEARER-ONLY"
		},
		extend: func(ctx context.Context, c *client, rep, s object) error {
			rep["@accessType"] = "CONFIDENTIAL"
			if rep["publicClient"] == true {
				rep["@accessType"] = "PUBLIC"
			} else if rep["bearerOnly"] == true {
				rep["@accessType"] = "BEARER-ONLY"
			}
			if rep["serviceAccountsEnabled"] != true {
				return nil
			}
			var user object
			err := c.get(ctx, inRealm(text(s, "realm_id"), "clients", text(s, "id"), "service-account-user"), &user)
			rep["@serviceAccountUser"] = user["id"]
			return err
		},
		adopt: realmAndID,
	}
}

// realmAndID is the import of everything that is known by its realm and its id.
func realmAndID(id string) (object, error) {
	parts, err := split(id, 2, "{realm}/{id}")
	if err != nil {
		return nil, err
	}
	return object{"id": parts[1], "realm_id": parts[0]}, nil
}

func clientScope() *kind {
	return &kind{
		name: "openid_client_scope",
		fields: parseFields("openid_client_scope", `
id                                  string OC .
realm_id                            string RF .
name                                string R  name
description                         string O  description
consent_screen_text                 string O  attributes/consent.screen.text
gui_order                           number O  text:attributes/gui.order
include_in_token_scope              bool   O  text:attributes/include.in.token.scope true
include_in_openid_provider_metadata bool   O  loose,text:attributes/include.in.openid.provider.metadata
extra_config                        map    O  own:attributes
`),
		fixed:  object{"protocol": "openid-connect"},
		parent: func(s object) string { return inRealm(text(s, "realm_id"), "client-scopes") },
		item:   func(s object) string { return inRealm(text(s, "realm_id"), "client-scopes", text(s, "id")) },
		derive: func(rep, plan object) {
			place(rep, "attributes/display.on.consent.screen", fmt.Sprint(text(plan, "consent_screen_text") != ""))
		},
		adopt: realmAndID,
	}
}

// defaultScopes says which scopes a client has without asking. The list is the whole list.
func defaultScopes() *kind {
	k := &kind{name: "openid_client_default_scopes", fields: parseFields("openid_client_default_scopes", `
id             string OC .
realm_id       string RF .
client_id      string RF .
default_scopes set    R  @names
`)}
	at := func(s object, more ...string) string {
		return inRealm(text(s, "realm_id"), append([]string{"clients", text(s, "client_id"), "default-client-scopes"}, more...)...)
	}
	k.read = func(ctx context.Context, c *client, s object) (object, error) {
		var live []any
		err := c.get(ctx, at(s), &live)
		var names []any
		for _, scope := range objects(live) {
			names = append(names, scope["name"])
		}
		return object{"@names": names}, err
	}
	apply := func(ctx context.Context, c *client, s object, wanted []string) error {
		var known, live []any
		if err := c.get(ctx, inRealm(text(s, "realm_id"), "client-scopes"), &known); err != nil {
			return err
		}
		if err := c.get(ctx, at(s), &live); err != nil {
			return err
		}
		for _, scope := range objects(live) {
			if !slices.Contains(wanted, text(scope, "name")) {
				if err := c.remove(ctx, at(s, text(scope, "id")), nil); err != nil {
					return err
				}
			}
		}
		for _, name := range wanted {
			i := slices.IndexFunc(objects(known), func(o object) bool { return o["name"] == name })
			if i < 0 {
				return fmt.Errorf("validation error: client scope %s does not exist in realm %s", name, text(s, "realm_id"))
			}
			if err := c.put(ctx, at(s, text(objects(known)[i], "id")), object{}); err != nil {
				return err
			}
		}
		return nil
	}
	k.create = func(ctx context.Context, c *client, plan object) (string, error) {
		id := strings.Join([]string{text(plan, "realm_id"), text(plan, "client_id"), "default-client-scopes"}, "/")
		return id, apply(ctx, c, plan, texts(plan["default_scopes"]))
	}
	k.update = func(ctx context.Context, c *client, plan, _ object) error {
		return apply(ctx, c, plan, texts(plan["default_scopes"]))
	}
	k.remove = func(ctx context.Context, c *client, s object) error { return apply(ctx, c, s, nil) }
	return k
}

// serviceAccountRole gives one role of a client to another client's service account.
func serviceAccountRole() *kind {
	k := &kind{name: "openid_client_service_account_role", fields: parseFields("openid_client_service_account_role", `
id                      string OC .
realm_id                string RF .
client_id               string RF .
role                    string RF .
service_account_user_id string RF .
`)}
	at := func(s object) string {
		return inRealm(text(s, "realm_id"), "users", text(s, "service_account_user_id"), "role-mappings", "clients", text(s, "client_id"))
	}
	find := func(ctx context.Context, c *client, s object) (role object, err error) {
		err = c.get(ctx, inRealm(text(s, "realm_id"), "clients", text(s, "client_id"), "roles", text(s, "role")), &role)
		return role, err
	}
	k.create = func(ctx context.Context, c *client, plan object) (string, error) {
		role, err := find(ctx, c, plan)
		if err != nil {
			return "", err
		}
		_, err = c.post(ctx, at(plan), []any{role})
		return text(plan, "service_account_user_id") + "/" + text(role, "id"), err
	}
	k.read = func(ctx context.Context, c *client, s object) (object, error) {
		var live []any
		if err := c.get(ctx, at(s), &live); err != nil {
			return nil, err
		}
		for _, role := range objects(live) {
			if role["name"] == s["role"] {
				return role, nil
			}
		}
		return nil, &apiError{method: "GET", path: at(s), status: 404, message: "the role is not mapped"}
	}
	k.update = func(context.Context, *client, object, object) error { return nil }
	k.remove = func(ctx context.Context, c *client, s object) error {
		role, err := find(ctx, c, s)
		if err != nil {
			return err
		}
		return c.remove(ctx, at(s), []any{role})
	}
	return k
}
