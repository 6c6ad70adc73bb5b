# The realm of one spoke. A plain Terraform module: the agent runs it, and so does `terraform apply`.

terraform {
  required_version = ">= 1.5"

  required_providers {
    keycloak = {
      source  = "keycloak/keycloak"
      version = "~> 5.6"
    }
  }
}

provider "keycloak" {
  url            = var.keycloak_url
  client_id      = var.keycloak_client_id
  client_secret  = var.keycloak_client_secret
  username       = var.keycloak_client_secret == null ? var.keycloak_admin_user : null
  password       = var.keycloak_client_secret == null ? var.keycloak_admin_password : null
  client_timeout = 60
}
