# Roles, groups and, where wanted, one test user per clearance and an administrator.

resource "keycloak_role" "realm" {
  for_each = {
    "dive-user"          = "Signs in and reads what the policies allow"
    "dive-auditor"       = "Reads the audit trail"
    "dive-policy-editor" = "Proposes policies"
    "dive-hub-admin"     = "Administers the hub and approves spokes"
    "dive-service"       = "A program, not a person"
  }

  realm_id    = keycloak_realm.this.id
  name        = each.key
  description = each.value
}

resource "keycloak_role" "administrator" {
  realm_id    = keycloak_realm.this.id
  name        = "dive-administrator"
  description = "All of what people do here"
  composite_roles = [
    keycloak_role.realm["dive-user"].id,
    keycloak_role.realm["dive-auditor"].id,
    keycloak_role.realm["dive-policy-editor"].id,
    keycloak_role.realm["dive-hub-admin"].id,
  ]
}

resource "keycloak_group" "clearance" {
  for_each = toset(local.clearances)

  realm_id = keycloak_realm.this.id
  name     = "clearance-${lower(replace(each.key, "_", "-"))}"

  attributes = {
    clearance = each.key
  }
}

resource "keycloak_group_roles" "clearance" {
  for_each = keycloak_group.clearance

  realm_id = keycloak_realm.this.id
  group_id = each.value.id
  role_ids = [keycloak_role.realm["dive-user"].id]
}

resource "keycloak_group" "staff" {
  realm_id = keycloak_realm.this.id
  name     = "staff"
}

resource "keycloak_group" "administrators" {
  realm_id  = keycloak_realm.this.id
  parent_id = keycloak_group.staff.id
  name      = "administrators"
}

resource "keycloak_group_roles" "administrators" {
  realm_id = keycloak_realm.this.id
  group_id = keycloak_group.administrators.id
  role_ids = [keycloak_role.administrator.id]
}

locals {
  test_users = var.create_test_users ? { for number, clearance in local.clearances : "testuser-${lower(local.code)}-${number + 1}" => {
    clearance = clearance
    first     = "Test${number + 1}"
    coi       = number >= 3 ? "NATO-COSMIC##FVEY" : "NATO-COSMIC"
    groups    = [keycloak_group.clearance[clearance].id]
    roles     = [keycloak_role.realm["dive-user"].id]
  } } : {}

  administrators = var.create_test_users ? { "admin-${lower(local.code)}" = {
    clearance = "TOP_SECRET"
    first     = "Admin"
    coi       = "NATO-COSMIC##FVEY"
    groups    = [keycloak_group.clearance["TOP_SECRET"].id, keycloak_group.administrators.id]
    roles     = [keycloak_role.realm["dive-user"].id, keycloak_role.administrator.id]
  } } : {}

  users = merge(local.test_users, local.administrators)
}

resource "keycloak_user" "test" {
  for_each = local.users

  realm_id       = keycloak_realm.this.id
  username       = each.key
  enabled        = true
  email          = "${each.key}@${lower(local.code)}.example"
  email_verified = true
  first_name     = each.value.first
  last_name      = local.code

  attributes = {
    acpCOI               = each.value.coi
    clearance            = each.value.clearance
    countryOfAffiliation = local.code
    dutyOrg              = "${local.code}-MOD"
    uniqueID             = each.key
    userType             = "military"
  }

  initial_password {
    value     = var.test_user_password
    temporary = false
  }

  lifecycle {
    # A first password is for the first time; people change theirs.
    ignore_changes = [initial_password]
  }

  depends_on = [keycloak_realm_user_profile.this]
}

resource "keycloak_user_roles" "test" {
  for_each = local.users

  realm_id   = keycloak_realm.this.id
  user_id    = keycloak_user.test[each.key].id
  role_ids   = each.value.roles
  exhaustive = false
}

resource "keycloak_user_groups" "test" {
  for_each = local.users

  realm_id  = keycloak_realm.this.id
  user_id   = keycloak_user.test[each.key].id
  group_ids = each.value.groups
}
