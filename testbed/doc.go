// Package testbed puts real peers under the tests and the demo: a Docker Engine, images of MongoDB, Keycloak,
// PostgreSQL, Redis, OPA and OPAL made from packages, a Terraform provider mirror, and a private certificate authority.
//
// It works on a new Debian machine that has only toolchains, and pulls no image. An engine that answers is used as it
// is; otherwise one is installed and started on a socket of its own ([Host]). Images are cached in that engine by the
// content of their recipe, downloads in [CacheDir].
//
// Tests call [Engine], [Image], [ProviderMirror], [NewPKI], [Prefix] and [Eventually]; each brings up what it needs and
// fails the test, never skips it, when that cannot be had. `make testbed` does all of it ahead of time.
//
// Production code must never import this package.
package testbed
