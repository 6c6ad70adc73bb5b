package main

import (
	"context"
	"fmt"
)

const providerOfIdentityTable = `
id                                      string OC  .
realm                                   string RF  .
alias                                   string RF  alias
internal_id                             string C   internalId
provider_id                             string O   providerId oidc
display_name                            string OC  displayName
enabled                                 bool   O   enabled true
store_token                             bool   O   storeToken true
add_read_token_role_on_create           bool   OF  addReadTokenRoleOnCreate false
authenticate_by_default                 bool   O   authenticateByDefault false
link_only                               bool   O   linkOnly false
trust_email                             bool   O   trustEmail false
first_broker_login_flow_alias           string O   firstBrokerLoginFlowAlias
post_broker_login_flow_alias            string O   postBrokerLoginFlowAlias
organization_id                         string O   -
org_domain                              string O   -
org_redirect_mode_email_matches         bool   O   -
hide_on_login_page                      bool   O   hideOnLogin false
gui_order                               string O   config/guiOrder
sync_mode                               string O   config/syncMode LEGACY
issuer                                  string O   config/issuer
authorization_url                       string R   config/authorizationUrl
token_url                               string R   config/tokenUrl
logout_url                              string O   config/logoutUrl
user_info_url                           string O   config/userInfoUrl
jwks_url                                string O   config/jwksUrl
client_id                               string R   config/clientId
client_secret                           string OS  masked:config/clientSecret
client_secret_wo                        string OS  -
client_secret_wo_version                string O   -
default_scopes                          string O   config/defaultScope openid
login_hint                              string O   config/loginHint
ui_locales                              bool   O   text:config/uiLocales false
backchannel_supported                   bool   O   text:config/backchannelSupported true
validate_signature                      bool   O   text:config/validateSignature false
accepts_prompt_none_forward_from_client bool   O   text:config/acceptsPromptNoneForwardFromClient false
disable_user_info                       bool   O   text:config/disableUserInfo false
disable_type_claim_check                bool   O   text:config/disableTypeClaimCheck false
extra_config                            map    O   own:config
`

func partnerKinds() []*kind {
	return []*kind{
		identityProvider(),
		providerMapper("custom_identity_provider_mapper", `
identity_provider_mapper string RF identityProviderMapper
`, ""),
		providerMapper("attribute_importer_identity_provider_mapper", `
attribute_friendly_name string O  config/attribute.friendly.name
attribute_name          string O  config/attribute.name
claim_name              string O  config/claim
user_attribute          string R  config/user.attribute
`, "%s-user-attribute-idp-mapper"),
	}
}

func identityProvider() *kind {
	return &kind{
		name:   "oidc_identity_provider",
		fields: parseFields("oidc_identity_provider", providerOfIdentityTable),
		parent: func(s object) string { return inRealm(text(s, "realm"), "identity-provider", "instances") },
		item: func(s object) string {
			return inRealm(text(s, "realm"), "identity-provider", "instances", text(s, "id"))
		},
		identify: func(_ context.Context, _ *client, plan object, _ string) (string, error) {
			return text(plan, "alias"), nil
		},
		derive: func(rep, plan object) {
			place(rep, "config/useJwksUrl", fmt.Sprint(text(plan, "jwks_url") != ""))
		},
		adopt: func(id string) (object, error) {
			parts, err := split(id, 2, "{realm}/{alias}")
			if err != nil {
				return nil, err
			}
			return object{"id": parts[1], "realm": parts[0], "alias": parts[1]}, nil
		},
	}
}

// providerMapper is a mapper of an identity provider. With an implementation, that is the mapper's name,
// with the provider's kind in it.
func providerMapper(name, table, implementation string) *kind {
	k := &kind{
		name: name,
		fields: parseFields(name, `
id                      string OC .
realm                   string RF .
identity_provider_alias string RF identityProviderAlias
name                    string RF name
extra_config            map    O  own:config
`+table[1:]),
		adopt: func(id string) (object, error) {
			parts, err := split(id, 3, "{realm}/{alias}/{mapper id}")
			if err != nil {
				return nil, err
			}
			return object{"id": parts[2], "realm": parts[0], "identity_provider_alias": parts[1]}, nil
		},
	}
	k.parent = func(s object) string {
		return inRealm(text(s, "realm"), "identity-provider", "instances", text(s, "identity_provider_alias"), "mappers")
	}
	k.item = func(s object) string { return k.parent(s) + "/" + escape(text(s, "id")) }
	if implementation == "" {
		return k
	}
	k.create = func(ctx context.Context, c *client, plan object) (string, error) {
		var of object
		err := c.get(ctx, inRealm(text(plan, "realm"), "identity-provider", "instances", text(plan, "identity_provider_alias")), &of)
		if err != nil {
			return "", err
		}
		providerKind := text(of, "providerId")
		if providerKind == "keycloak-oidc" {
			providerKind = "oidc"
		}
		rep := object{"identityProviderMapper": fmt.Sprintf(implementation, providerKind)}
		if err := overlay(k.fields, nil, rep, plan, nil); err != nil {
			return "", err
		}
		return c.post(ctx, k.parent(plan), rep)
	}
	return k
}
