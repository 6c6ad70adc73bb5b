// Package certificates signs keys across hosts. On a spoke (kind Certificate) it makes a key, which never leaves the host,
// and a request for it, which the spoke publishes. On the hub (kind CertificateAuthority) it signs the requests that
// equal, name by name, the Certificate of a merged manifest, and publishes to each spoke its own certificate.
//
// Requests and certificates cross on signed status branches, so that a request is known to be of the host that the
// manifest names. The package must know no other reconciler, no Git and no state store.
package certificates

import "dive-agent/reconcilers"

// Holder and Authority are the two kinds, for the program's list of reconcilers.
var (
	Holder    = reconcilers.Registration{Kind: HolderKind, New: NewHolder}
	Authority = reconcilers.Registration{Kind: AuthorityKind, New: NewAuthority}
)
