variable "instance_code" {
  description = "Country code of the instance, for example DEU. The realm and its client are named after it."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z]{2,4}$", var.instance_code))
    error_message = "instance_code is a country code of two to four letters."
  }
}

variable "instance_name" {
  description = "Name for people, for example Germany."
  type        = string
}

variable "keycloak_url" {
  description = "Where this module reaches the Keycloak server's admin API."
  type        = string
}

variable "keycloak_admin_user" {
  type    = string
  default = "admin"
}

variable "keycloak_admin_password" {
  type      = string
  default   = null
  sensitive = true
}

variable "keycloak_client_id" {
  type    = string
  default = "admin-cli"
}

variable "keycloak_client_secret" {
  description = "Secret of a client of realm master with a service account: the module signs in as it, and else as the administrator."
  type        = string
  default     = null
  sensitive   = true
}

variable "client_secret" {
  description = "Secret of the broker client, which the backend and partners sign in with."
  type        = string
  sensitive   = true
}

variable "test_user_password" {
  description = "First password of the test users; the realm's policy asks for 16 characters."
  type        = string
  sensitive   = true
}

variable "create_test_users" {
  type    = bool
  default = true
}

variable "app_url" {
  description = "Public URL of the frontend."
  type        = string
}

variable "api_url" {
  description = "Public URL of the backend."
  type        = string
}

variable "idp_url" {
  description = "Public URL of this Keycloak server: what stands in tokens as the issuer's beginning."
  type        = string
}

# The hub as an identity provider. Without hub_url there is none.

variable "hub_url" {
  description = "Public URL of the hub's Keycloak server."
  type        = string
  default     = ""
}

variable "hub_backchannel_url" {
  description = "URL of the hub's Keycloak server as this server reaches it; empty means hub_url."
  type        = string
  default     = ""
}

variable "hub_code" {
  type    = string
  default = "USA"
}

variable "hub_client_secret" {
  description = "Secret by which this realm signs in to the hub's."
  type        = string
  default     = ""
  sensitive   = true
}

variable "partner_client_secret" {
  description = "Secret by which the hub's realm signs in to this one; empty: the server makes one that nobody knows."
  type        = string
  default     = ""
  sensitive   = true
}

locals {
  code       = upper(var.instance_code)
  realm_name = "dive-v3-broker-${lower(var.instance_code)}"
  app_url    = trimsuffix(var.app_url, "/")
  api_url    = trimsuffix(var.api_url, "/")
  idp_url    = trimsuffix(var.idp_url, "/")

  hub_enabled     = var.hub_url != ""
  hub_alias       = "${lower(var.hub_code)}-idp"
  hub_realm       = "dive-v3-broker-${lower(var.hub_code)}"
  hub_front       = "${trimsuffix(var.hub_url, "/")}/realms/${local.hub_realm}"
  hub_backchannel = "${trimsuffix(coalesce(var.hub_backchannel_url, var.hub_url, "http://unused"), "/")}/realms/${local.hub_realm}"

  clearances = ["UNCLASSIFIED", "RESTRICTED", "CONFIDENTIAL", "SECRET", "TOP_SECRET"]
}
