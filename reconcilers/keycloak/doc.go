// Package keycloak brings a Keycloak realm to what a Terraform module declares. It runs Terraform: plan, gate,
// apply exactly the saved plan, check, keep a copy of the state; and no process at all while neither inputs, module nor
// the drift schedule ask for one.
//
// It owns one folder per component: the module's copy with its provider, the state with its copies, the record of the
// last apply with the outputs. All of it is 0600 or below a 0700 folder, since a Terraform state holds secrets.
//
// How a component comes to its state:
//
//	inputs unknown ............ a plan that says so; no process
//	Terraform still runs ...... wait (it outlives an agent that is killed)
//	state unreadable or old ... put back from its copy when there is one choice, else Blocked
//	nothing asks for a run .... in sync, outputs from the record
//	plan is empty ............. recorded as in sync
//	plan has changes .......... gate (the agent's), apply, recorded; the next plan must be empty, else "does not converge"
//
// It knows no Git, no state store, no report and no other reconciler, and nothing of DIVE's realms: what a realm has
// is the module's business.
package keycloak
