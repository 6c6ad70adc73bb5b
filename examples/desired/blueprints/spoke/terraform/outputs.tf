output "realm_id" {
  value = keycloak_realm.this.id
}

output "realm_name" {
  value = keycloak_realm.this.realm
}

output "client_id" {
  value = keycloak_openid_client.broker.client_id
}

output "client_secret" {
  value     = keycloak_openid_client.broker.client_secret
  sensitive = true
}

output "issuer" {
  value = "${local.idp_url}/realms/${keycloak_realm.this.realm}"
}

# What the hub's realm needs of this one, for sign-ins in both directions.

output "hub_client_secret" {
  value     = var.hub_client_secret
  sensitive = true
}

output "partner_client_secret" {
  value     = var.partner_client_secret
  sensitive = true
}
