// Package published is the document in which an instance publishes outputs of its components to other instances: its format,
// and the sealing of what is secret.
//
// The document stands beside the status on the instance's status branch, in the same signed commit. Plain values stand in it as
// they are. A secret one is encrypted with age to the hosts whose manifests read it, and to no others; what is encrypted says of
// itself where it belongs, so that a text that was copied to another name, instance or host does not open there.
//
// Who wrote a document is for the commit's signature to say (package source/peers): anyone can encrypt to a host.
package published
