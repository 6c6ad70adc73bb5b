# One client scope per attribute, so that a partner's client can be given some and not others.

resource "keycloak_openid_client_scope" "attribute" {
  for_each = local.profile_attributes

  realm_id               = keycloak_realm.this.id
  name                   = each.key
  description            = each.value.display
  include_in_token_scope = true
}

resource "keycloak_openid_user_attribute_protocol_mapper" "attribute" {
  for_each = local.profile_attributes

  realm_id        = keycloak_realm.this.id
  client_scope_id = keycloak_openid_client_scope.attribute[each.key].id
  name            = each.key
  user_attribute  = each.key
  claim_name      = each.key

  claim_value_type     = "String"
  multivalued          = each.value.multivalued
  aggregate_attributes = false

  add_to_id_token     = true
  add_to_access_token = true
  add_to_userinfo     = true
}

resource "keycloak_openid_client_scope" "membership" {
  realm_id               = keycloak_realm.this.id
  name                   = "dive-membership"
  description            = "Roles and groups"
  include_in_token_scope = false
}

resource "keycloak_openid_user_realm_role_protocol_mapper" "roles" {
  realm_id        = keycloak_realm.this.id
  client_scope_id = keycloak_openid_client_scope.membership.id
  name            = "realm-roles"
  claim_name      = "roles"
  multivalued     = true
}

resource "keycloak_openid_group_membership_protocol_mapper" "groups" {
  realm_id        = keycloak_realm.this.id
  client_scope_id = keycloak_openid_client_scope.membership.id
  name            = "groups"
  claim_name      = "groups"
  full_path       = false
}
