package testbed

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// LoadServer is a Python program that serves HTTP on port 80: it listens at once, answers 503 for WARMUP seconds, takes up to 0.4 s for
// each answer, which is COLOUR, and dies at once when it is told to end.
//
//go:embed load/server.py
var LoadServer string

// LoadClient is a Python program that asks http://HOST:PORT + PATH_ASKED (http://web/slow) RATE (200) times a second, each time for
// the server's address anew, and tries the first address once; no more than half a second's are under way. When it is told to end
// it prints what it counted, for Counted.
//
//go:embed load/client.py
var LoadClient string

// Counted is what a LoadClient counted.
type Counted struct {
	Sent, Lost int
	Barred     time.Duration // in all, for which requests were answered with 401 or 403
	Said       string        // its own words: what became of how many requests
}

var counted = regexp.MustCompile(`sent=(\d+) lost=(\d+) barred=([0-9.]+) .*`)

// CountRequests ends a LoadClient in a container and gives what it counted.
func CountRequests(ctx context.Context, engine *client.Client, container string) (c Counted, err error) {
	if _, err := engine.ContainerStop(ctx, container, client.ContainerStopOptions{}); err != nil {
		return c, err
	}
	log, err := engine.ContainerLogs(ctx, container, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return c, err
	}
	defer func() { _ = log.Close() }()
	var text bytes.Buffer
	if _, err := stdcopy.StdCopy(&text, &text, log); err != nil {
		return c, err
	}
	found := counted.FindStringSubmatch(text.String())
	if found == nil {
		return c, fmt.Errorf("the client counted nothing: %s", text.String())
	}
	c.Said = found[0]
	if c.Sent, err = strconv.Atoi(found[1]); err != nil {
		return c, err
	}
	if c.Lost, err = strconv.Atoi(found[2]); err != nil {
		return c, err
	}
	c.Barred, err = time.ParseDuration(found[3] + "s")
	return c, err
}
