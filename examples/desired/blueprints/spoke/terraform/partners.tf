# The hub as an identity provider: its people sign in here with their own account.

resource "keycloak_oidc_identity_provider" "hub" {
  count = local.hub_enabled ? 1 : 0

  realm        = keycloak_realm.this.id
  alias        = local.hub_alias
  display_name = "DIVE V3 ${upper(var.hub_code)}"
  enabled      = true

  # People's browsers use the front; this server itself uses the back channel.
  issuer            = local.hub_front
  authorization_url = "${local.hub_front}/protocol/openid-connect/auth"
  logout_url        = "${local.hub_front}/protocol/openid-connect/logout"
  token_url         = "${local.hub_backchannel}/protocol/openid-connect/token"
  user_info_url     = "${local.hub_backchannel}/protocol/openid-connect/userinfo"
  jwks_url          = "${local.hub_backchannel}/protocol/openid-connect/certs"

  client_id          = "partner-${lower(local.code)}"
  client_secret      = var.hub_client_secret
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

resource "keycloak_attribute_importer_identity_provider_mapper" "hub" {
  for_each = local.hub_enabled ? local.profile_attributes : {}

  realm                   = keycloak_realm.this.id
  identity_provider_alias = keycloak_oidc_identity_provider.hub[0].alias
  name                    = each.key
  claim_name              = each.key
  user_attribute          = each.key

  extra_config = {
    syncMode = "INHERIT"
  }
}

resource "keycloak_custom_identity_provider_mapper" "hub_role" {
  count = local.hub_enabled ? 1 : 0

  realm                    = keycloak_realm.this.id
  identity_provider_alias  = keycloak_oidc_identity_provider.hub[0].alias
  identity_provider_mapper = "oidc-hardcoded-role-idp-mapper"
  name                     = "dive-user"

  extra_config = {
    syncMode = "INHERIT"
    role     = keycloak_role.realm["dive-user"].name
  }
}

# The other way round: the hub signs its people in here by a client with a secret of its own.

resource "keycloak_openid_client" "hub" {
  count = local.hub_enabled ? 1 : 0

  realm_id  = keycloak_realm.this.id
  client_id = "partner-${lower(var.hub_code)}"
  name      = "DIVE V3 ${upper(var.hub_code)}, for its sign-ins here"
  enabled   = true

  access_type                  = "CONFIDENTIAL"
  client_secret                = var.partner_client_secret == "" ? null : var.partner_client_secret
  standard_flow_enabled        = true
  implicit_flow_enabled        = false
  direct_access_grants_enabled = false
  service_accounts_enabled     = false
  full_scope_allowed           = false

  valid_redirect_uris = ["${local.hub_front}/broker/${lower(local.code)}-idp/endpoint*"]
}

resource "keycloak_openid_client_default_scopes" "hub" {
  count = local.hub_enabled ? 1 : 0

  realm_id       = keycloak_realm.this.id
  client_id      = keycloak_openid_client.hub[0].id
  default_scopes = local.partner_scopes
}
