// Package registration speaks with the hub's federation service, from both sides.
//
// On a spoke (kind SpokeRegistration) it registers, waits for the approval, and keeps the token that the spoke's
// services use. On the hub (kind SpokeApprovals) it makes merging the approval: a pending record that equals, field by
// field, the SpokeRegistration of a merged manifest is approved with exactly what that manifest grants.
//
// It holds its promises against a hub that enforces little: see the comments at each call. It never registers while
// suspended, never asks for the approval of its own record, and never sends a password. It must know no other
// reconciler, no Git and no state store.
package registration

import "dive-agent/reconcilers"

// SpokeRegistration and SpokeApprovals are the two kinds, for the program's list of reconcilers.
var (
	SpokeRegistration = reconcilers.Registration{Kind: SpokeKind, New: NewSpoke}
	SpokeApprovals    = reconcilers.Registration{Kind: ApprovalsKind, New: NewApprovals}
)
