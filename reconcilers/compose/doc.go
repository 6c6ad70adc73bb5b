// Package compose reconciles components of kind ComposeStack: a plain Compose file, one graph part per service and one
// part for what the services share (images, networks, volumes, containers of services that are gone).
//
// The model is loaded by compose-go from the instance's sealed source folder; containers are made by Compose's own SDK,
// narrowed to one service, so that `docker compose` sees the same stack. Start, health, drift, rename and the way back to
// the last good version go through the engine's client. The package knows nothing of Git, of other kinds of component,
// or of what the agent keeps.
//
// What one service goes through:
//
//	files placed -> record "pending" -> created (old one stopped, put aside) -> started, old one removed -> healthy -> record "good"
//	                                                                                                          |
//	                                                                                                          +-> not in time -> put back
//
// A record that is still pending when the service is observed is finished by the next apply, wherever it stopped.
package compose
