//go:build failpoint

package main

import (
	"fmt"
	"hash/fnv"
	"os"
	"strings"
	"sync"
	"syscall"
)

// failpointFromEnvironment kills the process, as a power cut would, at every recorded point ("begin" or "end" of a change) at
// which it was not killed before. DIVE_AGENT_FAILPOINTS names the file that remembers them. Of a node with many changes only
// one in DIVE_AGENT_FAILPOINT_SPARSE points counts ("identity=40"); of all, one in n for DIVE_AGENT_FAILPOINT_SAMPLE ("n/seed"),
// chosen by what the point is called. It exists only in builds for tests of crashes (-tags failpoint).
func failpointFromEnvironment() func(string) {
	file := os.Getenv("DIVE_AGENT_FAILPOINTS")
	if file == "" {
		return nil
	}
	node, every := "", 1
	if sparse := os.Getenv("DIVE_AGENT_FAILPOINT_SPARSE"); sparse != "" {
		var count string
		node, count, _ = strings.Cut(sparse, "=")
		if _, err := fmt.Sscan(count, &every); err != nil || every < 1 {
			panic("DIVE_AGENT_FAILPOINT_SPARSE: " + sparse)
		}
	}
	var sample, seed uint64 = 1, 0
	if text := os.Getenv("DIVE_AGENT_FAILPOINT_SAMPLE"); text != "" {
		if _, err := fmt.Sscanf(text, "%d/%d", &sample, &seed); err != nil || sample < 1 {
			panic("DIVE_AGENT_FAILPOINT_SAMPLE: " + text)
		}
	}
	var mu sync.Mutex
	seen := 0
	return func(at string) {
		mu.Lock()
		defer mu.Unlock()
		if node != "" && strings.Contains(at, " "+node+" ") {
			if seen++; (seen-1)%every != 0 {
				return
			}
		}
		if hash := fnv.New64a(); sample > 1 {
			_, _ = fmt.Fprintf(hash, "%d %s", seed, withoutProject(at))
			if hash.Sum64()%sample != 0 {
				return
			}
		}
		if !remember(file, at) {
			return
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal arrives before anything else happens here
	}
}

// withoutProject leaves a Compose project's name out of what a point is called: tests give each run another one.
func withoutProject(at string) string {
	begin, end := strings.LastIndex(at, " "), strings.LastIndex(at, "_")
	if end < begin {
		return at
	}
	return at[:begin+1] + at[end+1:]
}

// remember adds a point to the file; false when it is there already.
func remember(file, point string) bool {
	known, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		panic(err)
	}
	for _, line := range strings.Split(string(known), "\n") {
		if line == point {
			return false
		}
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	if _, err := f.WriteString(point + "\n"); err != nil {
		panic(err)
	}
	if err := f.Sync(); err != nil {
		panic(err)
	}
	_ = f.Close()
	return true
}
