// Package agent follows the fleet repository and keeps the instances of this host in the state it declares: one worker
// an instance, one pass after the other. A pass surveys the whole graph (observe and plan, nothing changed), then
// applies what differs, each node as soon as its own needs are met.
//
//	wake (revision, engine event, schedule, a person)
//	  -> survey   every node: observe, plan           nothing to do: done, nothing is written
//	  -> apply    every node: needs, observe, plan, gate, apply
//	  -> status   outcomes become phase and conditions, at one place (status.go)
//
// The package knows no engine: what differs by kind is behind the reconcilers' contract.
package agent
