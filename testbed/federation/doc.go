// Package federation writes the manifests of small hubs and spokes, for tests and figures of what crosses between them.
package federation
