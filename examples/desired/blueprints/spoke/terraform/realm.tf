resource "keycloak_realm" "this" {
  realm        = local.realm_name
  display_name = "DIVE V3 ${var.instance_name}"
  enabled      = true
  ssl_required = "none"

  registration_allowed     = false
  reset_password_allowed   = false
  remember_me              = false
  login_with_email_allowed = true
  duplicate_emails_allowed = false
  edit_username_allowed    = false

  access_token_lifespan    = "15m0s"
  sso_session_idle_timeout = "30m0s"
  sso_session_max_lifespan = "8h0m0s"
  access_code_lifespan     = "1m0s"

  default_signature_algorithm = "RS256"
  revoke_refresh_token        = true
  refresh_token_max_reuse     = 1

  password_policy = "length(16) and upperCase(1) and lowerCase(1) and digits(1) and notUsername"

  internationalization {
    supported_locales = ["en", "de", "fr"]
    default_locale    = "en"
  }

  otp_policy {
    type              = "totp"
    algorithm         = "HmacSHA256"
    digits            = 6
    period            = 30
    look_ahead_window = 1
  }

  security_defenses {
    headers {
      x_frame_options                     = "SAMEORIGIN"
      content_security_policy             = "frame-src 'self'; frame-ancestors 'self' ${local.app_url}; object-src 'none';"
      content_security_policy_report_only = ""
      x_content_type_options              = "nosniff"
      x_robots_tag                        = "none"
      x_xss_protection                    = "1; mode=block"
      strict_transport_security           = "max-age=31536000; includeSubDomains"
      referrer_policy                     = "no-referrer"
    }

    brute_force_detection {
      permanent_lockout                = false
      max_login_failures               = 8
      wait_increment_seconds           = 60
      quick_login_check_milli_seconds  = 1000
      minimum_quick_login_wait_seconds = 60
      max_failure_wait_seconds         = 900
      failure_reset_time_seconds       = 43200
    }
  }
}

resource "keycloak_realm_events" "this" {
  realm_id = keycloak_realm.this.id

  events_enabled               = true
  events_expiration            = 2592000
  admin_events_enabled         = true
  admin_events_details_enabled = false
  events_listeners             = ["jboss-logging"]
  enabled_event_types = [
    "CODE_TO_TOKEN_ERROR",
    "IDENTITY_PROVIDER_LOGIN_ERROR",
    "LOGIN",
    "LOGIN_ERROR",
    "LOGOUT",
    "REFRESH_TOKEN_ERROR",
  ]
}

resource "keycloak_required_action" "configure_totp" {
  realm_id       = keycloak_realm.this.id
  alias          = "CONFIGURE_TOTP"
  name           = "Configure OTP"
  enabled        = true
  default_action = false
  priority       = 10
}

# Keycloak drops attributes that the profile does not declare, so every attribute of a user stands here.
resource "keycloak_realm_user_profile" "this" {
  realm_id = keycloak_realm.this.id

  dynamic "attribute" {
    for_each = {
      username  = { display = "$${username}", required = true }
      email     = { display = "$${email}", required = true }
      firstName = { display = "$${firstName}", required = true }
      lastName  = { display = "$${lastName}", required = true }
    }

    content {
      name               = attribute.key
      display_name       = attribute.value.display
      required_for_roles = attribute.value.required ? ["user"] : []

      permissions {
        view = ["admin", "user"]
        edit = ["admin", "user"]
      }

      validator {
        name   = "length"
        config = { max = "255" }
      }
    }
  }

  dynamic "attribute" {
    for_each = local.profile_attributes

    content {
      name         = attribute.key
      display_name = attribute.value.display
      group        = "dive"
      multi_valued = attribute.value.multivalued

      permissions {
        view = ["admin", "user"]
        edit = ["admin"]
      }

      validator {
        name   = "length"
        config = { max = "255" }
      }
    }
  }

  group {
    name                = "dive"
    display_header      = "DIVE attributes"
    display_description = "What policies decide on"
  }
}

locals {
  profile_attributes = {
    acpCOI               = { display = "Communities of interest", multivalued = true }
    clearance            = { display = "Clearance", multivalued = false }
    countryOfAffiliation = { display = "Country of affiliation", multivalued = false }
    dutyOrg              = { display = "Organisation", multivalued = false }
    uniqueID             = { display = "Unique identifier", multivalued = false }
    userType             = { display = "Kind of user", multivalued = false }
  }
}
