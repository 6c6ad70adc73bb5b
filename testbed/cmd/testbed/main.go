// Command testbed brings the test bed up and down: see its usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"dive-agent/testbed"
)

const usage = `usage: go run ./testbed/cmd/testbed COMMAND

  up               an engine, the images that the tests and the demo use, the Terraform provider mirror, a browser
  engine           an engine alone; prints its address, which is good as DOCKER_HOST
  images [NAME..]  the named images, or those of 'up'; --all makes the rarely used ones too
  provider         the provider mirror; prints its folder
  env              what to set to use the test bed by hand; starts nothing
  status           what runs and which images are there; starts nothing
  run [-keep] -- COMMAND...
                   'up', then the command, then 'down' if this run started the engine (not with -keep)
  down             stops the engine if the test bed started it, with all its containers; images stay in the cache

TESTBED_CACHE moves the cache, DOCKER_HOST names an engine to use, TESTBED_PROVIDER_MIRROR another provider mirror.
`

// limit ends bringing up what hangs: the longest, on a new machine, takes some 6 minutes on 2 cores.
const limit = 30 * time.Minute

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, limit)
	err := run(ctx, os.Args[1], os.Args[2:])
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbed:", err)
		var command commandError
		if errors.As(err, &command) {
			os.Exit(command.code)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, args []string) error {
	say := testbed.LineProgress(os.Stderr)
	switch name {
	case "up":
		return up(ctx, say)
	case "engine":
		host, _, err := testbed.EnsureEngine(ctx, say)
		if err == nil {
			fmt.Println(host)
		}
		return err
	case "images":
		return images(ctx, say, args)
	case "provider":
		mirror, err := testbed.EnsureProviderMirror(ctx)
		if err == nil {
			fmt.Println(mirror.Dir)
		}
		return err
	case "env":
		return env(ctx)
	case "status":
		return status(ctx)
	case "run":
		return runOn(ctx, say, args)
	case "down":
		stopped, err := testbed.StopEngine(ctx, say)
		if err == nil && !stopped {
			say("no engine of the test bed runs")
		}
		return err
	case "help", "-h", "--help":
		fmt.Print(usage)
		return nil
	}
	return fmt.Errorf("unknown command %q\n%s", name, usage)
}

// up does the parts that do not need each other side by side.
func up(ctx context.Context, say testbed.Progress) error {
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		host, _, err := testbed.EnsureEngine(ctx, say)
		if err != nil {
			return err
		}
		return testbed.EnsureImages(ctx, host, say)
	})
	g.Go(func() error {
		mirror, err := testbed.EnsureProviderMirror(ctx)
		if err == nil {
			say("provider mirror: %s", mirror.Dir)
		}
		return err
	})
	g.Go(func() error {
		_, err := testbed.Chromium(ctx, say)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	say("the test bed is up, %.1f s", time.Since(begin).Seconds())
	return nil
}

func images(ctx context.Context, say testbed.Progress, args []string) error {
	var names []testbed.ImageName
	for _, a := range args {
		if a == "--all" {
			names = testbed.ImageNames()
			break
		}
		names = append(names, testbed.ImageName(a))
	}
	host, _, err := testbed.EnsureEngine(ctx, say)
	if err != nil {
		return err
	}
	return testbed.EnsureImages(ctx, host, say, names...)
}

// env prints shell lines.
func env(ctx context.Context) error {
	host := testbed.RunningEngine(ctx)
	if host == "" {
		return fmt.Errorf("no engine runs: `make testbed` starts one")
	}
	mirror, err := testbed.EnsureProviderMirror(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("export DOCKER_HOST=%s\nexport DOCKER_BUILDKIT=0\nexport TF_CLI_CONFIG_FILE=%s\n", host, mirror.ConfigFile)
	return nil
}

func status(ctx context.Context) error {
	host := testbed.RunningEngine(ctx)
	if host == "" {
		fmt.Println("engine  none runs")
		return nil
	}
	whose := "not the test bed's"
	if host == testbed.OwnHost {
		whose = "started by the test bed"
	}
	fmt.Printf("engine  %s (%s)\ncache   %s\n", host, whose, testbed.CacheDir())
	present, err := testbed.PresentImages(ctx, host)
	if err != nil {
		return err
	}
	for _, name := range testbed.ImageNames() {
		mark := "-"
		if present[name] {
			mark = "made"
		}
		fmt.Printf("image   %-36s %s\n", name, mark)
	}
	return nil
}
