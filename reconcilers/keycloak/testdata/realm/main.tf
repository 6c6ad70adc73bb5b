terraform {
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
  default   = ""
  sensitive = true
}
variable "keycloak_client_id" {
  type    = string
  default = "admin-cli"
}
variable "keycloak_client_secret" {
  description = "Of a client with a service account, as which the provider signs in. Without it it is the administrator."
  type        = string
  default     = ""
  sensitive   = true
}
variable "realm" { type = string }
variable "title" {
  type    = string
  default = "A realm"
}
variable "client_secret" {
  type      = string
  sensitive = true
}
variable "roles" {
  type    = list(string)
  default = ["reader", "writer"]
}
variable "undeclared" {
  description = "Gives the user an attribute that the realm's profile does not know, which the server drops."
  type        = bool
  default     = false
}

provider "keycloak" {
  url           = var.keycloak_url
  client_id     = var.keycloak_client_id
  client_secret = var.keycloak_client_secret
  username      = var.keycloak_client_secret == "" ? var.keycloak_admin_user : null
  password      = var.keycloak_client_secret == "" ? var.keycloak_admin_password : null

  client_timeout = 60
}

resource "keycloak_realm" "this" {
  realm           = var.realm
  display_name    = var.title
  password_policy = "length(12)"
}

resource "keycloak_openid_client" "app" {
  realm_id              = keycloak_realm.this.id
  client_id             = "app"
  access_type           = "CONFIDENTIAL"
  client_secret         = var.client_secret
  standard_flow_enabled = true
  valid_redirect_uris   = ["https://app.example/*"]
}

resource "keycloak_openid_user_realm_role_protocol_mapper" "roles" {
  realm_id    = keycloak_realm.this.id
  client_id   = keycloak_openid_client.app.id
  name        = "roles"
  claim_name  = "roles"
  multivalued = true
}

resource "keycloak_role" "each" {
  for_each = toset(var.roles)

  realm_id = keycloak_realm.this.id
  name     = each.key
}

resource "keycloak_user" "someone" {
  realm_id   = keycloak_realm.this.id
  username   = "someone"
  email      = "someone@example.org"
  first_name = "Some"
  last_name  = "One"
  attributes = var.undeclared ? { shoe = "42" } : {}
}

output "realm" { value = keycloak_realm.this.realm }
output "title" { value = keycloak_realm.this.display_name }
output "client_secret" {
  value     = keycloak_openid_client.app.client_secret
  sensitive = true
}

variable "keycloak_admin_user" {
  type    = string
  default = "admin"
}
