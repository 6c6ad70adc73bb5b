// Command testbed brings the test bed up and down: see its usage.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"dive-agent/testbed"
)

const usage = `usage: testbed COMMAND

  up        an engine, all images that the tests and the demo use, and the Terraform provider mirror
  engine    an engine alone
  down      stop the engine, if the test bed started it
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 40*time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "testbed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, args []string) error {
	say := testbed.LineProgress(os.Stderr)
	switch name {
	case "engine":
		host, _, err := testbed.EnsureEngine(ctx, say)
		if err != nil {
			return err
		}
		fmt.Println(host)
		return nil
	case "images":
		host, _, err := testbed.EnsureEngine(ctx, say)
		if err != nil {
			return err
		}
		var names []testbed.ImageName
		for _, a := range args {
			names = append(names, testbed.ImageName(a))
		}
		return testbed.EnsureImages(ctx, host, say, names...)
	case "down":
		_, err := testbed.StopEngine(ctx, say)
		return err
	}
	return fmt.Errorf("unknown command %q\n%s", name, usage)
}
