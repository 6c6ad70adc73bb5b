# The realm of the hub. A plain Terraform module: the agent runs it, and so does `terraform apply`.

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
  client_id      = "admin-cli"
  url            = var.keycloak_url
  username       = var.keycloak_admin_user
  password       = var.keycloak_admin_password
  client_timeout = 60
}
