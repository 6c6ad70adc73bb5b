// Package secretserver holds two small servers of secrets for tests: what of HashiCorp Vault's HTTP API (which OpenBao has as well)
// and of Google's Secret Manager the agent speaks. Neither is the real one, which cannot be had from package registries; both keep
// to the documented wire protocol, in paths, headers, bodies, status codes and texts of errors:
//
//	Vault: "KV secrets engine, version 2 (API)", "AppRole auth method (API)", "HTTP API, status codes"
//	Google: "Method: projects.secrets.versions.access", "Using OAuth 2.0 for Server to Server Applications", "Errors" of Cloud APIs
package secretserver
