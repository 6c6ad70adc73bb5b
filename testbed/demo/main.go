// Command demo tells the whole story on one machine, with real engines: a hub comes up, a merged file brings up spoke DEU,
// a removed container is healed, a bad revision is put back, an agent is killed in the middle, Git is taken away. It
// ends with a table of what was promised and what was seen, and removes what it made.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"dive-agent/testbed/gitserver"
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
		agent  = flag.String("agent", "bin/dive-agent", "the agent's program")
		desire = flag.String("examples", "examples/desired", "the fleet to start from")
		dir    = flag.String("dir", defaultDir(), "folder of the demo's world")
		keep   = flag.Bool("keep", os.Getenv("KEEP") == "1", "leave everything running at the end")
		clean  = flag.Bool("clean", false, "remove what a demo left, and nothing else")
		serve  = flag.String("gitserver", "", "serve the repositories of a folder at this address (used by the demo itself)")
	)
	flag.Parse()
	if *serve != "" {
		return serveGit(ctx, *dir, *serve)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w := &world{dir: *dir, agentPath: *agent, examples: *desire}
	if *clean {
		return w.remove(ctx)
	}
	err := w.tell(ctx)
	if *keep {
		w.howToLookAround()
		return err
	}
	ending, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer done()
	return errors.Join(err, w.remove(ending))
}

// serveGit is the Git server as a process of its own, so that it can be taken away and outlive the demo.
func serveGit(ctx context.Context, dir, address string) error {
	server, err := gitserver.New(gitserver.Options{Dir: dir, Listen: address, ListenSSH: "off"})
	if err != nil {
		return err
	}
	return server.Run(ctx)
}
