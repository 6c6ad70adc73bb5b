# How people sign in: a cookie, another identity provider, or name and password with a one-time code for those who have one.

resource "keycloak_authentication_flow" "browser" {
  realm_id    = keycloak_realm.this.id
  alias       = "dive-browser"
  description = "Cookie, identity provider, or password with one-time code"
}

resource "keycloak_authentication_execution" "cookie" {
  realm_id          = keycloak_realm.this.id
  parent_flow_alias = keycloak_authentication_flow.browser.alias
  authenticator     = "auth-cookie"
  requirement       = "ALTERNATIVE"
  priority          = 10
}

resource "keycloak_authentication_execution" "redirector" {
  realm_id          = keycloak_realm.this.id
  parent_flow_alias = keycloak_authentication_flow.browser.alias
  authenticator     = "identity-provider-redirector"
  requirement       = "ALTERNATIVE"
  priority          = 20

  depends_on = [keycloak_authentication_execution.cookie]
}

resource "keycloak_authentication_subflow" "forms" {
  realm_id          = keycloak_realm.this.id
  parent_flow_alias = keycloak_authentication_flow.browser.alias
  alias             = "dive-browser-forms"
  provider_id       = "basic-flow"
  requirement       = "ALTERNATIVE"
  priority          = 30

  depends_on = [keycloak_authentication_execution.redirector]
}

resource "keycloak_authentication_execution" "password" {
  realm_id          = keycloak_realm.this.id
  parent_flow_alias = keycloak_authentication_subflow.forms.alias
  authenticator     = "auth-username-password-form"
  requirement       = "REQUIRED"
  priority          = 10
}

resource "keycloak_authentication_subflow" "otp" {
  realm_id          = keycloak_realm.this.id
  parent_flow_alias = keycloak_authentication_subflow.forms.alias
  alias             = "dive-browser-otp"
  provider_id       = "basic-flow"
  requirement       = "CONDITIONAL"
  priority          = 20

  depends_on = [keycloak_authentication_execution.password]
}

resource "keycloak_authentication_execution" "otp_configured" {
  realm_id          = keycloak_realm.this.id
  parent_flow_alias = keycloak_authentication_subflow.otp.alias
  authenticator     = "conditional-user-configured"
  requirement       = "REQUIRED"
  priority          = 10
}

resource "keycloak_authentication_execution" "otp_form" {
  realm_id          = keycloak_realm.this.id
  parent_flow_alias = keycloak_authentication_subflow.otp.alias
  authenticator     = "auth-otp-form"
  requirement       = "REQUIRED"
  priority          = 20

  depends_on = [keycloak_authentication_execution.otp_configured]
}

# The first time someone comes in through a partner: no form when the partner sent all that is needed.

resource "keycloak_authentication_flow" "first_broker_login" {
  realm_id    = keycloak_realm.this.id
  alias       = "dive-first-broker-login"
  description = "Makes a user for a partner's person, without a form where nothing is missing"
}

resource "keycloak_authentication_execution" "review_profile" {
  realm_id          = keycloak_realm.this.id
  parent_flow_alias = keycloak_authentication_flow.first_broker_login.alias
  authenticator     = "idp-review-profile"
  requirement       = "REQUIRED"
  priority          = 10
}

resource "keycloak_authentication_execution_config" "review_profile" {
  realm_id     = keycloak_realm.this.id
  execution_id = keycloak_authentication_execution.review_profile.id
  alias        = "dive-review-profile"

  config = {
    "update.profile.on.first.login" = "missing"
  }
}

resource "keycloak_authentication_execution" "create_user" {
  realm_id          = keycloak_realm.this.id
  parent_flow_alias = keycloak_authentication_flow.first_broker_login.alias
  authenticator     = "idp-create-user-if-unique"
  requirement       = "REQUIRED"
  priority          = 20

  depends_on = [keycloak_authentication_execution.review_profile]
}

resource "keycloak_authentication_execution_config" "create_user" {
  realm_id     = keycloak_realm.this.id
  execution_id = keycloak_authentication_execution.create_user.id
  alias        = "dive-create-user"

  config = {
    "require.password.update.after.registration" = "false"
  }
}

resource "keycloak_authentication_bindings" "this" {
  realm_id     = keycloak_realm.this.id
  browser_flow = keycloak_authentication_flow.browser.alias

  depends_on = [
    keycloak_authentication_execution.cookie,
    keycloak_authentication_execution.redirector,
    keycloak_authentication_execution.password,
    keycloak_authentication_execution.otp_configured,
    keycloak_authentication_execution.otp_form,
  ]
}
