// Command provider is a Terraform provider for the resource types of the example fleet's modules, under the
// name and with the schema of the published keycloak/keycloak provider, for machines which cannot download
// that one. It speaks to a real Keycloak's admin API. It knows nothing of the agent: a module that works with
// it works with the published provider, and tests may put that one in its place.
//
// A resource type is a table (see table.go) and, where the admin API asks for more than one representation at
// one path, a few functions beside it. What the published provider has and the example does not use is in the
// schema, and refused with a message when it is set.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
)

// The address and the version under which a mirror offers this provider.
const (
	address = "registry.terraform.io/keycloak/keycloak"
	version = "5.6.0"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(address, version)
		return
	}
	err := providerserver.Serve(context.Background(), func() provider.Provider { return &keycloakProvider{} },
		providerserver.ServeOpts{Address: address, ProtocolVersion: 5})
	if err != nil {
		fmt.Fprintln(os.Stderr, "terraform-provider-keycloak:", err)
		os.Exit(1)
	}
}
