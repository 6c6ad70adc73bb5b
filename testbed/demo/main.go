// Command demo shows the agent's whole story on one machine; see package story.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"dive-agent/testbed/story"
)

// limit bounds the whole demo.
const limit = 20 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var (
		agent = flag.String("agent", "bin/dive-agent", "the agent's program")
		dir   = flag.String("dir", story.DefaultDir(), "folder of the demo's world")
		keep  = flag.Bool("keep", os.Getenv("KEEP") == "1", "leave everything running at the end")
		pics  = flag.String("pictures", "", "folder for pictures of what people see in their browser")
		clean = flag.Bool("clean", false, "remove what a demo left, and nothing else")
	)
	flag.Parse()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if *clean {
		return story.Remove(ctx, *dir)
	}
	return story.Tell(ctx, story.Options{Agent: *agent, Dir: *dir, Keep: *keep, Pictures: *pics})
}
