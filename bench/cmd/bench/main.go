// Command bench measures the project's figures and writes them to bench/latest.json. It exits 0 when it could measure everything,
// whatever the values are.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"dive-agent/bench"
)

func main() {
	var (
		agent = flag.String("agent", "bin/dive-agent", "the agent's stripped program")
		only  = flag.String("only", "", "measure the figures that have this in their name, or one of several texts with commas between")
		file  = flag.String("out", "bench/latest.json", "where the figures are written")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench.Run(ctx, bench.Options{Agent: *agent, Only: *only, File: *file, Out: os.Stdout})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		os.Exit(1)
	}
}
