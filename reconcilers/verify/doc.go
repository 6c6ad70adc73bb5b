// Package verify runs the checks that a manifest declares against the services of an instance: http, tcp, MongoDB
// commands and counts, SQL queries, log lines, certificates, OIDC metadata. A check looks and changes nothing, so a
// plan of this kind is always empty; what the checks saw is in the observation.
//
// It knows no other component but by the outputs that its expressions use, and must not know how services are run.
package verify
