// Package hub is the test bed's stand-in for the hub's federation service: the same calls, answers, states and
// odd habits as the real one, over records in a MongoDB. It is a plain http.Handler, so that tests run it in their
// own process; the services binary runs it as the hub's backend.
//
// What it does wrong it does on purpose, since the real one does: it hands a live token to anyone who asks for the
// status of an approved spoke, takes partnerPreApproved at its word, writes a whole record back at each heartbeat,
// and enforces no state machine. It must know nothing of the agent.
package hub
