package main

import (
	"strings"
)

const mapperTable = `
id              string OC .
realm_id        string RF .
client_id       string OF .
client_scope_id string OF .
name            string R  name
`

// Where the claim goes. Not every mapper has each.
const (
	toTokens = `
add_to_id_token     bool O text:config/id.token.claim true
add_to_access_token bool O text:config/access.token.claim true
`
	toUserinfo      = "add_to_userinfo bool O text:config/userinfo.token.claim true\n"
	toIntrospection = "add_to_token_introspection bool O loose,text:config/introspection.token.claim\n"
	claimName       = "claim_name string R config/claim.name\n"
	claimType       = "claim_value_type string O config/jsonType.label String\n"
)

func mapperKinds() []*kind {
	all := []*kind{
		mapper("openid_user_attribute_protocol_mapper", "oidc-usermodel-attribute-mapper", toTokens, toUserinfo, toIntrospection, claimName, claimType, `
user_attribute       string R config/user.attribute
multivalued          bool   O text:config/multivalued false
aggregate_attributes bool   O text:config/aggregate.attrs false
`),
		mapper("openid_user_realm_role_protocol_mapper", "oidc-usermodel-realm-role-mapper", toTokens, toUserinfo, toIntrospection, claimName, claimType, `
multivalued       bool   O text:config/multivalued false
realm_role_prefix string O config/usermodel.realmRoleMapping.rolePrefix
`),
		mapper("openid_group_membership_protocol_mapper", "oidc-group-membership-mapper", toTokens, toUserinfo, toIntrospection, claimName,
			"full_path bool O text:config/full.path true"),
		mapper("openid_audience_protocol_mapper", "oidc-audience-mapper", toTokens, toIntrospection, `
included_client_audience string O config/included.client.audience
included_custom_audience string O config/included.custom.audience
`),
		mapper("openid_hardcoded_claim_protocol_mapper", "oidc-hardcoded-claim-mapper", toTokens, toUserinfo, claimName, claimType,
			"claim_value string R config/claim.value"),
		mapper("openid_user_session_note_protocol_mapper", "oidc-usersessionmodel-note-mapper", toTokens, toUserinfo, toIntrospection, claimName, claimType,
			"session_note string O config/user.session.note"),
	}
	generic := mapper("generic_protocol_mapper", "", `
protocol        string RF protocol
protocol_mapper string RF protocolMapper
config          map    R  config
`)
	generic.fixed = nil
	return append(all, generic)
}

// mapper is a protocol mapper, of a client or of a client scope. All are alike but for what stands in their
// configuration.
func mapper(name, implementation string, tables ...string) *kind {
	at := func(s object) []string {
		if scope := text(s, "client_scope_id"); scope != "" {
			return []string{"client-scopes", scope, "protocol-mappers", "models"}
		}
		return []string{"clients", text(s, "client_id"), "protocol-mappers", "models"}
	}
	var lines []string
	for _, table := range append([]string{mapperTable}, tables...) {
		lines = append(lines, strings.TrimSpace(table))
	}
	return &kind{
		name:   name,
		fields: parseFields(name, strings.Join(lines, "\n")),
		fixed:  object{"protocol": "openid-connect", "protocolMapper": implementation},
		parent: func(s object) string { return inRealm(text(s, "realm_id"), at(s)...) },
		item:   func(s object) string { return inRealm(text(s, "realm_id"), append(at(s), text(s, "id"))...) },
		adopt: func(id string) (object, error) {
			const form = "{realm}/client/{client id}/{mapper id}, {realm}/client-scope/{scope id}/{mapper id}"
			parts, err := split(id, 4, form)
			if err != nil {
				return nil, err
			}
			of := map[string]string{"client": "client_id", "client-scope": "client_scope_id"}[parts[1]]
			if of == "" {
				_, err = split("", 4, form)
				return nil, err
			}
			return object{"realm_id": parts[0], of: parts[2], "id": parts[3]}, nil
		},
	}
}
