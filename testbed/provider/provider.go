package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	pschema "github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type keycloakProvider struct{}

func (p *keycloakProvider) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName = "keycloak"
	resp.Version = version
}

// providerTable has the settings of the provider block: name, type, flags, environment variable, default. A setting with neither
// variable nor a meaning in newClient is refused by Configure.
const providerTable = `
access_token                string O -
additional_headers          map    O -
admin_url                   string O KEYCLOAK_ADMIN_URL
base_path                   string O KEYCLOAK_BASE_PATH
client_id                   string O KEYCLOAK_CLIENT_ID
client_secret               string O KEYCLOAK_CLIENT_SECRET
client_timeout              number O KEYCLOAK_CLIENT_TIMEOUT
initial_login               bool   O KEYCLOAK_INITIAL_LOGIN
jwt_signing_alg             string O -
jwt_signing_key             string OS -
jwt_token                   string OS -
jwt_token_file              string O -
keycloak_version            string O KEYCLOAK_VERSION
password                    string O KEYCLOAK_PASSWORD
realm                       string O KEYCLOAK_REALM
red_hat_sso                 bool   O RED_HAT_SSO
root_ca_certificate         string O KEYCLOAK_ROOT_CA_CERTIFICATE
tls_client_certificate      string O -
tls_client_private_key      string O -
tls_insecure_skip_verify    bool   O KEYCLOAK_TLS_INSECURE_SKIP_VERIFY
url                         string R KEYCLOAK_URL
username                    string O KEYCLOAK_USER
`

var providerFields = parseFields("provider", providerTable)

func (p *keycloakProvider) Schema(_ context.Context, _ provider.SchemaRequest, resp *provider.SchemaResponse) {
	attributes := map[string]pschema.Attribute{}
	for _, f := range providerFields {
		switch f.kind {
		case "bool":
			attributes[f.name] = pschema.BoolAttribute{Optional: true, Sensitive: f.sensitive}
		case "number":
			attributes[f.name] = pschema.Int64Attribute{Optional: true, Sensitive: f.sensitive}
		case "map":
			attributes[f.name] = pschema.MapAttribute{Optional: true, Sensitive: f.sensitive, ElementType: types.StringType}
		default:
			attributes[f.name] = pschema.StringAttribute{Required: f.required, Optional: !f.required, Sensitive: f.sensitive}
		}
	}
	resp.Schema = pschema.Schema{Attributes: attributes}
}

// Configure takes from the environment what the module does not set, and refuses settings that would be without effect.
func (p *keycloakProvider) Configure(ctx context.Context, req provider.ConfigureRequest, resp *provider.ConfigureResponse) {
	given, err := toObject(req.Config.Raw)
	if err != nil {
		resp.Diagnostics.AddError("Cannot read the provider's settings", err.Error())
		return
	}
	settings := map[string]string{}
	for _, f := range providerFields {
		value := given[f.name]
		switch {
		case isUnknown(value):
			resp.Diagnostics.AddError("A setting of the provider is not known yet", f.name+" must be known before the first plan.")
			return
		case value != nil && f.wire == "":
			resp.Diagnostics.AddError("Not supported", fmt.Sprintf("The test bed's provider has no %s.", f.name))
			return
		case value != nil:
			settings[f.name] = fmt.Sprint(value)
		default:
			settings[f.name] = os.Getenv(f.wire)
		}
	}
	client, err := newClient(settings)
	if err == nil && settings["initial_login"] != "false" {
		err = client.login(ctx)
	}
	if err != nil {
		resp.Diagnostics.AddError("error initializing keycloak provider", err.Error())
		return
	}
	resp.ResourceData = client
}

func (p *keycloakProvider) DataSources(context.Context) []func() datasource.DataSource { return nil }

func (p *keycloakProvider) Resources(context.Context) []func() resource.Resource {
	var all []func() resource.Resource
	for _, k := range kinds() {
		all = append(all, func() resource.Resource { return &engine{kind: k} })
	}
	return all
}

// kinds lists every resource type.
func kinds() []*kind {
	var all []*kind
	all = append(all, realmKinds()...)
	all = append(all, clientKinds()...)
	all = append(all, mapperKinds()...)
	all = append(all, peopleKinds()...)
	all = append(all, partnerKinds()...)
	return append(all, flowKinds()...)
}

func seconds(text string, otherwise time.Duration) (time.Duration, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("client_timeout %q is not a number of seconds", text)
	}
	return time.Duration(n) * time.Second, nil
}
