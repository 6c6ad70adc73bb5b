# Each spoke as an identity provider: its people sign in here with their own account.

resource "keycloak_oidc_identity_provider" "partner" {
  for_each = local.partners

  realm        = keycloak_realm.this.id
  alias        = each.value.alias
  display_name = "DIVE V3 ${each.key}"
  enabled      = true

  # People's browsers use the front; this server itself uses the back channel.
  issuer            = each.value.front
  authorization_url = "${each.value.front}/protocol/openid-connect/auth"
  logout_url        = "${each.value.front}/protocol/openid-connect/logout"
  token_url         = "${each.value.backchannel}/protocol/openid-connect/token"
  user_info_url     = "${each.value.backchannel}/protocol/openid-connect/userinfo"
  jwks_url          = "${each.value.backchannel}/protocol/openid-connect/certs"

  client_id          = "partner-${lower(local.code)}"
  client_secret      = lookup(local.partner_secrets, each.key, "")
  default_scopes     = "openid profile email"
  validate_signature = true
  trust_email        = true
  store_token        = false
  sync_mode          = "FORCE"

  first_broker_login_flow_alias = keycloak_authentication_flow.first_broker_login.alias

  extra_config = {
    "clientAuthMethod" = "client_secret_post"
    "pkceEnabled"      = "true"
    "pkceMethod"       = "S256"
  }

  depends_on = [
    keycloak_authentication_execution_config.review_profile,
    keycloak_authentication_execution_config.create_user,
  ]
}

resource "keycloak_attribute_importer_identity_provider_mapper" "partner" {
  for_each = { for pair in setproduct(keys(local.partners), keys(local.profile_attributes)) :
    "${pair[0]}/${pair[1]}" => { partner = pair[0], attribute = pair[1] }
  }

  realm                   = keycloak_realm.this.id
  identity_provider_alias = keycloak_oidc_identity_provider.partner[each.value.partner].alias
  name                    = each.value.attribute
  claim_name              = each.value.attribute
  user_attribute          = each.value.attribute

  extra_config = {
    syncMode = "INHERIT"
  }
}

resource "keycloak_custom_identity_provider_mapper" "partner_role" {
  for_each = local.partners

  realm                    = keycloak_realm.this.id
  identity_provider_alias  = keycloak_oidc_identity_provider.partner[each.key].alias
  identity_provider_mapper = "oidc-hardcoded-role-idp-mapper"
  name                     = "dive-user"

  extra_config = {
    syncMode = "INHERIT"
    role     = keycloak_role.realm["dive-user"].name
  }
}

# The other way round: each spoke signs its people in here by a client with a secret of its own, which the spoke made. Until
# that has crossed, the server's own is there, which nobody knows.

resource "keycloak_openid_client" "partner" {
  for_each = local.partners

  realm_id  = keycloak_realm.this.id
  client_id = "partner-${lower(each.key)}"
  name      = "DIVE V3 ${each.key}, for its sign-ins here"
  enabled   = true

  access_type                  = "CONFIDENTIAL"
  client_secret                = lookup(local.client_secrets, each.key, null)
  standard_flow_enabled        = true
  implicit_flow_enabled        = false
  direct_access_grants_enabled = false
  service_accounts_enabled     = false
  full_scope_allowed           = false

  valid_redirect_uris = ["${each.value.front}/broker/${lower(local.code)}-idp/endpoint*"]
}

resource "keycloak_openid_client_default_scopes" "partner" {
  for_each = local.partners

  realm_id       = keycloak_realm.this.id
  client_id      = keycloak_openid_client.partner[each.key].id
  default_scopes = local.partner_scopes
}
