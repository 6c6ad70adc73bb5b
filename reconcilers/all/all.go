// Package all is the program's list of reconcilers. A new kind is a line here; command line, agent, manual and JSON Schema
// follow.
package all

import (
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/certificates"
	"dive-agent/reconcilers/compose"
	"dive-agent/reconcilers/keycloak"
	"dive-agent/reconcilers/mongo"
	"dive-agent/reconcilers/registration"
	"dive-agent/reconcilers/verify"
)

// Registry has a line for each kind, in the order of the manual.
var Registry = reconcilers.Registry{
	compose.Registration,
	mongo.Registration,
	keycloak.Registration,
	registration.SpokeRegistration,
	registration.SpokeApprovals,
	certificates.Holder,
	certificates.Authority,
	verify.Registration,
}
