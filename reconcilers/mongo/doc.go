// Package mongo brings a MongoDB replica set to what a manifest declares: initiated once, with a writable primary,
// the declared members, users and seed documents.
//
// It asks the servers what is and remembers only what they cannot tell: which replica set was made here (so that an
// emptied volume is never taken for a new set) and a keyed hash of each user's password. Members are reached by dialling
// the container behind their host name, never by a published port.
//
// It does not start, stop or configure mongod: that is the stack's. It must not know how services are run.
package mongo
