//go:build !failpoint

package main

// failpointFromEnvironment is for builds with -tags failpoint; this program has no failpoints.
func failpointFromEnvironment() func(string) { return nil }
