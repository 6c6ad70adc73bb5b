// Package report tells people and programs outside of the host how an instance
// is: it owns the format of a status, writes it as YAML, as a page for a forge,
// as text for a terminal and as the subject of a commit, and brings it out of
// the host by status branches and webhooks, from the outbox of the state.
//
// It must not know how a status comes about: no manifests, no reconcilers, no
// engine. What it gets is redacted already; what containers said in it is still
// untrusted text, and is escaped wherever it is shown.
package report
