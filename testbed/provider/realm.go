package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
)

const realmTable = `
id                                       string OC  .
realm                                    string RF  realm
internal_id                              string OCF id
enabled                                  bool   O   enabled true
display_name                             string O   displayName
display_name_html                        string O   displayNameHtml
user_managed_access                      bool   O   userManagedAccessAllowed false
organizations_enabled                    bool   O   organizationsEnabled false
admin_permissions_enabled                bool   O   adminPermissionsEnabled
terraform_deletion_protection            bool   O   .
attributes                               map    O   own:attributes
registration_allowed                     bool   OC  registrationAllowed
registration_email_as_username           bool   OC  registrationEmailAsUsername
edit_username_allowed                    bool   OC  editUsernameAllowed
reset_password_allowed                   bool   OC  resetPasswordAllowed
remember_me                              bool   OC  rememberMe
verify_email                             bool   OC  verifyEmail
login_with_email_allowed                 bool   OC  loginWithEmailAllowed
duplicate_emails_allowed                 bool   OC  duplicateEmailsAllowed
ssl_required                             string O   sslRequired external
login_theme                              string O   loginTheme
account_theme                            string O   accountTheme
admin_theme                              string O   adminTheme
email_theme                              string O   emailTheme
default_signature_algorithm              string O   defaultSignatureAlgorithm RS256
revoke_refresh_token                     bool   O   revokeRefreshToken false
refresh_token_max_reuse                  number O   refreshTokenMaxReuse 0
sso_session_idle_timeout                 string OC  secs:ssoSessionIdleTimeout
sso_session_max_lifespan                 string OC  secs:ssoSessionMaxLifespan
sso_session_idle_timeout_remember_me     string OC  secs:ssoSessionIdleTimeoutRememberMe
sso_session_max_lifespan_remember_me     string OC  secs:ssoSessionMaxLifespanRememberMe
offline_session_idle_timeout             string OC  secs:offlineSessionIdleTimeout
offline_session_max_lifespan             string OC  secs:offlineSessionMaxLifespan
offline_session_max_lifespan_enabled     bool   O   offlineSessionMaxLifespanEnabled false
client_session_idle_timeout              string OC  secs:clientSessionIdleTimeout
client_session_max_lifespan              string OC  secs:clientSessionMaxLifespan
access_token_lifespan                    string OC  secs:accessTokenLifespan
access_token_lifespan_for_implicit_flow  string OC  secs:accessTokenLifespanForImplicitFlow
access_code_lifespan                     string OC  secs:accessCodeLifespan
access_code_lifespan_login               string OC  secs:accessCodeLifespanLogin
access_code_lifespan_user_action         string OC  secs:accessCodeLifespanUserAction
action_token_generated_by_user_lifespan  string OC  secs:actionTokenGeneratedByUserLifespan
action_token_generated_by_admin_lifespan string OC  secs:actionTokenGeneratedByAdminLifespan
oauth2_device_code_lifespan              string OC  secs:oauth2DeviceCodeLifespan
oauth2_device_polling_interval           number OC  oauth2DevicePollingInterval
password_policy                          string O   passwordPolicy
default_default_client_scopes            set    O   loose:defaultDefaultClientScopes
default_optional_client_scopes           set    O   loose:defaultOptionalClientScopes
browser_flow                             string OC  browserFlow
registration_flow                        string OC  registrationFlow
direct_grant_flow                        string OC  directGrantFlow
reset_credentials_flow                   string OC  resetCredentialsFlow
client_authentication_flow               string OC  clientAuthenticationFlow
docker_authentication_flow               string OC  dockerAuthenticationFlow
first_broker_login_flow                  string OC  firstBrokerLoginFlow
`

const headersTable = `
content_security_policy             string O browserSecurityHeaders/contentSecurityPolicy frame-src 'self'; frame-ancestors 'self'; object-src 'none';
content_security_policy_report_only string O browserSecurityHeaders/contentSecurityPolicyReportOnly
referrer_policy                     string O browserSecurityHeaders/referrerPolicy no-referrer
strict_transport_security           string O browserSecurityHeaders/strictTransportSecurity max-age=31536000; includeSubDomains
x_content_type_options              string O browserSecurityHeaders/xContentTypeOptions nosniff
x_frame_options                     string O browserSecurityHeaders/xFrameOptions SAMEORIGIN
x_robots_tag                        string O browserSecurityHeaders/xRobotsTag none
x_xss_protection                    string O browserSecurityHeaders/xXSSProtection 1; mode=block
`

const bruteForceTable = `
brute_force_strategy             string O loose:bruteForceStrategy
failure_reset_time_seconds       number O maxDeltaTimeSeconds 43200
max_failure_wait_seconds         number O maxFailureWaitSeconds 900
max_login_failures               number O failureFactor 30
max_temporary_lockouts           number O maxTemporaryLockouts 0
minimum_quick_login_wait_seconds number O minimumQuickLoginWaitSeconds 60
permanent_lockout                bool   O permanentLockout false
quick_login_check_milli_seconds  number O quickLoginCheckMilliSeconds 1000
wait_increment_seconds           number O waitIncrementSeconds 60
`

const otpTable = `
algorithm         string O otpPolicyAlgorithm HmacSHA1
code_reusable     bool   O otpPolicyCodeReusable
digits            number O otpPolicyDigits 6
initial_counter   number O loose:otpPolicyInitialCounter
look_ahead_window number O otpPolicyLookAheadWindow 1
period            number O otpPolicyPeriod 30
type              string O otpPolicyType totp
`

const smtpTable = `
envelope_from         string O smtpServer/envelopeFrom
from                  string R smtpServer/from
from_display_name     string O smtpServer/fromDisplayName
host                  string R smtpServer/host
port                  string O smtpServer/port
reply_to              string O smtpServer/replyTo
reply_to_display_name string O smtpServer/replyToDisplayName
ssl                   bool   O text:smtpServer/ssl
starttls              bool   O text:smtpServer/starttls
allow_utf8            bool   O text:smtpServer/allowutf8
`

const smtpAuthTable = `
username string R  smtpServer/user
password string RS masked:smtpServer/password
`

const smtpTokenTable = `
client_id     string R  -
client_secret string RS -
scope         string R  -
url           string R  -
username      string R  -
`

// The two WebAuthn policies differ in the prefix of their keys alone.
const webAuthnTable = `
acceptable_aaguids                set    O  loose:PREFIXAcceptableAaguids
attestation_conveyance_preference string O  loose:PREFIXAttestationConveyancePreference
authenticator_attachment          string O  loose:PREFIXAuthenticatorAttachment
avoid_same_authenticator_register bool   O  loose:PREFIXAvoidSameAuthenticatorRegister
create_timeout                    number O  loose:PREFIXCreateTimeout
discoverable_credential           string O  -
extra_origins                     set    O  loose:PREFIXExtraOrigins
relying_party_entity_name         string O  PREFIXRpEntityName keycloak
relying_party_id                  string O  PREFIXRpId
require_resident_key              string O  loose:PREFIXRequireResidentKey
signature_algorithms              set    OC PREFIXSignatureAlgorithms
user_verification_requirement     string O  loose:PREFIXUserVerificationRequirement
`

func webAuthn(name, prefix, more string) block {
	table := strings.ReplaceAll(webAuthnTable+more, "PREFIX", prefix)
	return block{name: name, max: 1, fields: parseFields(name, table)}
}

func flag(line string) field { return parseFields("flag", line)[0] }

func realmBlocks() []block {
	return []block{
		{name: "internationalization", max: 1, flag: flag("flag bool O internationalizationEnabled"), fields: parseFields("internationalization", `
default_locale    string R defaultLocale
supported_locales set    R supportedLocales`)},
		{name: "otp_policy", max: 1, fields: parseFields("otp_policy", otpTable)},
		{name: "security_defenses", max: 1, blocks: []block{
			{name: "headers", max: 1, fields: parseFields("headers", headersTable)},
			{name: "brute_force_detection", max: 1, flag: flag("flag bool O bruteForceProtected"), fields: parseFields("brute_force_detection", bruteForceTable)},
		}},
		{name: "smtp_server", max: 1, fields: parseFields("smtp_server", smtpTable), blocks: []block{
			{name: "auth", max: 1, flag: flag("flag bool O text:smtpServer/auth"), fields: parseFields("auth", smtpAuthTable)},
			{name: "token_auth", max: 1, fields: parseFields("token_auth", smtpTokenTable)},
		}},
		webAuthn("web_authn_policy", "webAuthnPolicy", ""),
		webAuthn("web_authn_passwordless_policy", "webAuthnPolicyPasswordless", "passwordless_passkeys_enabled bool O -\n"),
	}
}

// inRealm is the admin API's path of something in a realm, each part escaped.
func inRealm(realm string, parts ...string) string {
	at := "/realms/" + url.PathEscape(realm)
	for _, part := range parts {
		at += "/" + url.PathEscape(part)
	}
	return at
}

func realmKinds() []*kind {
	return []*kind{
		{
			name:   "realm",
			fields: parseFields("realm", realmTable),
			blocks: realmBlocks(),
			parent: func(object) string { return "/realms" },
			item:   func(s object) string { return inRealm(text(s, "id")) },
			identify: func(ctx context.Context, c *client, plan object, _ string) (string, error) {
				// The token from before the realm has no rights in it when the user is not the master realm's administrator.
				return text(plan, "realm"), c.login(ctx)
			},
			derive: func(rep, plan object) {
				if rep["id"] == nil {
					rep["id"] = plan["realm"]
				}
			},
			remove: func(ctx context.Context, c *client, s object) error {
				if s["terraform_deletion_protection"] == true {
					return fmt.Errorf("deletion protection is enabled: realm %s is kept", text(s, "id"))
				}
				return c.remove(ctx, inRealm(text(s, "id")), nil)
			},
			adopt: func(id string) (object, error) { return object{"id": id}, nil },
		},
		realmEvents(),
		userProfile(),
		requiredAction(),
	}
}

func realmEvents() *kind {
	k := &kind{name: "realm_events", fields: parseFields("realm_events", `
id                           string OC .
realm_id                     string RF .
admin_events_details_enabled bool   O  adminEventsDetailsEnabled
admin_events_enabled         bool   O  adminEventsEnabled
enabled_event_types          set    O  loose:enabledEventTypes
events_enabled               bool   O  eventsEnabled
events_expiration            number O  eventsExpiration
events_listeners             set    O  loose:eventsListeners
`)}
	k.item = func(s object) string { return inRealm(text(s, "realm_id"), "events", "config") }
	k.create = func(ctx context.Context, c *client, plan object) (string, error) {
		return text(plan, "realm_id"), k.doUpdate(ctx, c, plan, plan)
	}
	k.remove = func(ctx context.Context, c *client, s object) error {
		return c.put(ctx, k.item(s), object{
			"eventsEnabled": false, "adminEventsEnabled": false,
			"adminEventsDetailsEnabled": false, "eventsExpiration": 0, "eventsListeners": []string{"jboss-logging"},
		})
	}
	return k
}

// requiredAction: every realm has the built-in ones, which are adjusted; others are registered first.
func requiredAction() *kind {
	k := &kind{name: "required_action", fields: parseFields("required_action", `
id             string OC .
realm_id       string RF .
alias          string RF .
name           string O  loose:name
enabled        bool   O  enabled
default_action bool   O  defaultAction
priority       number OC priority
config         map    O  -
`)}
	k.item = func(s object) string {
		return inRealm(text(s, "realm_id"), "authentication", "required-actions", text(s, "alias"))
	}
	k.create = func(ctx context.Context, c *client, plan object) (string, error) {
		id := text(plan, "realm_id") + "/" + text(plan, "alias")
		err := k.doUpdate(ctx, c, plan, plan)
		if !notFound(err) {
			return id, err
		}
		register := object{"providerId": plan["alias"], "name": plan["name"]}
		if _, err := c.post(ctx, inRealm(text(plan, "realm_id"), "authentication", "register-required-action"), register); err != nil {
			return "", err
		}
		return id, k.doUpdate(ctx, c, plan, plan)
	}
	k.adopt = func(id string) (object, error) {
		parts, err := split(id, 2, "{realm}/{alias}")
		if err != nil {
			return nil, err
		}
		return object{"id": id, "realm_id": parts[0], "alias": parts[1]}, nil
	}
	return k
}

// split takes an import id apart.
func split(id string, n int, form string) ([]string, error) {
	parts := strings.Split(id, "/")
	if len(parts) != n {
		return nil, fmt.Errorf("invalid import. Supported import formats: %s", form)
	}
	return parts, nil
}
