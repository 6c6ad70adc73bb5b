# The broker client: the frontend's sign-in.
resource "keycloak_openid_client" "broker" {
  realm_id  = keycloak_realm.this.id
  client_id = local.realm_name
  name      = "DIVE V3 ${local.code}"
  enabled   = true

  access_type                  = "CONFIDENTIAL"
  client_secret                = var.client_secret
  standard_flow_enabled        = true
  implicit_flow_enabled        = false
  direct_access_grants_enabled = true
  service_accounts_enabled     = true
  pkce_code_challenge_method   = ""
  full_scope_allowed           = true

  root_url            = local.app_url
  base_url            = local.app_url
  valid_redirect_uris = ["${local.app_url}/*", "${local.api_url}/*"]
  web_origins         = [local.app_url, local.api_url]

  valid_post_logout_redirect_uris = ["${local.app_url}/*"]
}

# The backend's own client, for calls between services.
resource "keycloak_openid_client" "backend" {
  realm_id  = keycloak_realm.this.id
  client_id = "dive-v3-backend"
  name      = "DIVE V3 backend"
  enabled   = true

  access_type                  = "CONFIDENTIAL"
  client_secret                = var.client_secret
  standard_flow_enabled        = false
  implicit_flow_enabled        = false
  direct_access_grants_enabled = false
  service_accounts_enabled     = true
  full_scope_allowed           = false
}

# The single-page frontend; it has no secret and must use PKCE.
resource "keycloak_openid_client" "frontend" {
  realm_id  = keycloak_realm.this.id
  client_id = "dive-v3-frontend"
  name      = "DIVE V3 frontend"
  enabled   = true

  access_type                  = "PUBLIC"
  standard_flow_enabled        = true
  implicit_flow_enabled        = false
  direct_access_grants_enabled = false
  pkce_code_challenge_method   = "S256"
  full_scope_allowed           = true

  root_url            = local.app_url
  base_url            = local.app_url
  valid_redirect_uris = ["${local.app_url}/*"]
  web_origins         = [local.app_url]
}

locals {
  default_scopes = concat(
    ["basic", "acr", "profile", "email", "web-origins", keycloak_openid_client_scope.membership.name],
    [for scope in keycloak_openid_client_scope.attribute : scope.name],
  )

  # What a partner is told of a person: who it is, and what policies decide on.
  partner_scopes = concat(["basic", "acr", "profile", "email"], [for scope in keycloak_openid_client_scope.attribute : scope.name])
}

resource "keycloak_openid_client_default_scopes" "broker" {
  realm_id  = keycloak_realm.this.id
  client_id = keycloak_openid_client.broker.id

  # The server gives this scope to each client with a service account, whenever the client is written.
  default_scopes = concat(local.default_scopes, ["service_account"])
}

resource "keycloak_openid_client_default_scopes" "frontend" {
  realm_id       = keycloak_realm.this.id
  client_id      = keycloak_openid_client.frontend.id
  default_scopes = local.default_scopes
}

resource "keycloak_openid_audience_protocol_mapper" "broker" {
  realm_id                 = keycloak_realm.this.id
  client_id                = keycloak_openid_client.broker.id
  name                     = "audience-backend"
  included_client_audience = keycloak_openid_client.backend.client_id
  add_to_id_token          = false
  add_to_access_token      = true
}

resource "keycloak_openid_audience_protocol_mapper" "frontend" {
  realm_id                 = keycloak_realm.this.id
  client_id                = keycloak_openid_client.frontend.id
  name                     = "audience-backend"
  included_client_audience = keycloak_openid_client.backend.client_id
  add_to_id_token          = false
  add_to_access_token      = true
}

resource "keycloak_openid_hardcoded_claim_protocol_mapper" "issuer_country" {
  for_each = {
    broker   = keycloak_openid_client.broker.id
    frontend = keycloak_openid_client.frontend.id
  }

  realm_id         = keycloak_realm.this.id
  client_id        = each.value
  name             = "issuer-country"
  claim_name       = "issuerCountry"
  claim_value      = local.code
  claim_value_type = "String"
}

resource "keycloak_openid_user_session_note_protocol_mapper" "identity_provider" {
  realm_id         = keycloak_realm.this.id
  client_id        = keycloak_openid_client.broker.id
  name             = "identity-provider"
  session_note     = "identity_provider"
  claim_name       = "identityProvider"
  claim_value_type = "String"
}

resource "keycloak_generic_protocol_mapper" "amr" {
  realm_id        = keycloak_realm.this.id
  client_id       = keycloak_openid_client.broker.id
  name            = "amr"
  protocol        = "openid-connect"
  protocol_mapper = "oidc-amr-mapper"

  # The server adds the last two keys by itself where they are missing, and the next plan would take them out again.
  config = {
    "access.token.claim"        = "true"
    "id.token.claim"            = "true"
    "introspection.token.claim" = "true"
    "userinfo.token.claim"      = "true"
  }
}

resource "keycloak_role" "backend" {
  for_each = toset(["reader", "writer"])

  realm_id    = keycloak_realm.this.id
  client_id   = keycloak_openid_client.backend.id
  name        = each.key
  description = "May be a ${each.key} of resources"
}

resource "keycloak_openid_client_service_account_role" "broker" {
  for_each = keycloak_role.backend

  realm_id                = keycloak_realm.this.id
  service_account_user_id = keycloak_openid_client.broker.service_account_user_id
  client_id               = keycloak_openid_client.backend.id
  role                    = each.value.name
}
