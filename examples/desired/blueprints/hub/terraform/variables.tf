variable "instance_code" {
  description = "Country code of the instance, for example USA. The realm and its client are named after it."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z]{2,4}$", var.instance_code))
    error_message = "instance_code is a country code of two to four letters."
  }
}

variable "instance_name" {
  description = "Name for people, for example United States."
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

# The spokes as identity providers.

variable "partners" {
  description = "Spokes whose people sign in here, by country code: the public URL of the spoke's Keycloak server, and the URL by which this server reaches it."
  type = map(object({
    url             = string
    backchannel_url = optional(string)
  }))
  default = {}
}

variable "partner_client_secrets" {
  description = "Secrets by which this realm signs in to those of the spokes, by country code; a spoke that is not there has published none yet."
  type        = map(string)
  default     = {}
  sensitive   = true
}

variable "client_secrets" {
  description = "Secrets by which the realms of the spokes sign in to this one, by country code; a spoke that is not there has published none yet."
  type        = map(string)
  default     = {}
  sensitive   = true
}

locals {
  code       = upper(var.instance_code)
  realm_name = "dive-v3-broker-${lower(var.instance_code)}"
  app_url    = trimsuffix(var.app_url, "/")
  api_url    = trimsuffix(var.api_url, "/")
  idp_url    = trimsuffix(var.idp_url, "/")

  partners = { for code, partner in var.partners : upper(code) => {
    alias       = "${lower(code)}-idp"
    realm       = "dive-v3-broker-${lower(code)}"
    front       = "${trimsuffix(partner.url, "/")}/realms/dive-v3-broker-${lower(code)}"
    backchannel = "${trimsuffix(coalesce(partner.backchannel_url, partner.url), "/")}/realms/dive-v3-broker-${lower(code)}"
  } }

  partner_secrets = { for code, secret in var.partner_client_secrets : upper(code) => secret }
  client_secrets  = { for code, secret in var.client_secrets : upper(code) => secret }


  clearances = ["UNCLASSIFIED", "RESTRICTED", "CONFIDENTIAL", "SECRET", "TOP_SECRET"]
}
