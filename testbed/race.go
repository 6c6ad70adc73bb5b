package testbed

import "os"

// A program that was built with the race detector sleeps for a second at each good end, which is most of the time of a short
// one: the agent's commands, an apply's shelter, an agent that stops. What the tests start does not.
func init() {
	if os.Getenv("GORACE") == "" {
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // it fails for a name or value that cannot be one
	}
}
