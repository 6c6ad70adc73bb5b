//go:build failpoint

package main

import (
	"os"
	"strings"
	"syscall"
)

// failpointFromEnvironment kills the process, as a power cut would, at the recorded step whose name DIVE_AGENT_FAILPOINT
// holds: "deu begin stack/backend create backend". It exists only in builds for tests of crashes (-tags failpoint).
func failpointFromEnvironment() func(string) {
	point := os.Getenv("DIVE_AGENT_FAILPOINT")
	if point == "" {
		return nil
	}
	return func(at string) {
		if strings.TrimSpace(at) == point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal arrives before anything else happens here
		}
	}
}
