package bench

const (
	manyFile  = "blueprints/spoke/terraform-many/main.tf"
	manyFirst = `"the first"`
)

// manyModule is a realm, and 130 resources in it when many is 1.
const manyModule = `terraform {
  required_providers {
    keycloak = {
      source  = "keycloak/keycloak"
      version = "~> 5.6"
    }
  }
}

variable "keycloak_url" { type = string }
variable "keycloak_admin_password" {
  type      = string
  sensitive = true
}
variable "code" { type = string }
variable "many" { type = number }

provider "keycloak" {
  client_id      = "admin-cli"
  url            = var.keycloak_url
  username       = "admin"
  password       = var.keycloak_admin_password
  client_timeout = 60
}

resource "keycloak_realm" "this" {
  realm   = "many-${var.code}"
  enabled = true
}

resource "keycloak_role" "all" {
  count       = 60 * var.many
  realm_id    = keycloak_realm.this.id
  name        = "role-${count.index}"
  description = count.index == 0 ? "the first" : "one more"
}

resource "keycloak_openid_client" "all" {
  count                 = 40 * var.many
  realm_id              = keycloak_realm.this.id
  client_id             = "client-${count.index}"
  access_type           = "PUBLIC"
  standard_flow_enabled = true
  valid_redirect_uris   = ["http://localhost/${count.index}/*"]
}

resource "keycloak_group" "all" {
  count    = 20 * var.many
  realm_id = keycloak_realm.this.id
  name     = "group-${count.index}"
}

resource "keycloak_openid_client_scope" "all" {
  count    = 10 * var.many
  realm_id = keycloak_realm.this.id
  name     = "scope-${count.index}"
}
`
