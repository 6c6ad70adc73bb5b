package main

import (
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/compose"
	"dive-agent/reconcilers/keycloak"
	"dive-agent/reconcilers/mongo"
	"dive-agent/reconcilers/registration"
	"dive-agent/reconcilers/verify"
)

// registry is the list of reconcilers: a line each.
var registry = reconcilers.Registry{
	compose.Registration,
	mongo.Registration,
	keycloak.Registration,
	registration.SpokeRegistration,
	registration.SpokeApprovals,
	verify.Registration,
}
