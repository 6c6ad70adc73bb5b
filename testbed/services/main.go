// Command services is the application of the test bed's stacks: one static program whose first argument says which
// service it is. Each really uses what its environment gives it, so that a stack works only when it was brought up in
// the right order and with the right values.
//
//	backend      writes to the replica set, keeps audit tables, sends heartbeats; GET /api/health
//	hub          the backend of a hub: the same, and the federation service
//	kas          the key access service; GET /health
//	frontend     a page; GET / and /health
//	seed         writes the documents of a file to the database, and ends
//	fail         says a few lines and exits with 3
//	healthcheck  asks the service of this container for its health: for HEALTHCHECK, since the image has no shell
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

type role func(ctx context.Context, env environment, log *slog.Logger) error

var roles = map[string]role{
	"backend": runBackend, "hub": runHub, "kas": runKAS, "frontend": runFrontend,
	"seed": runSeed, "fail": runFail, "healthcheck": runHealthcheck,
}

// exitError ends the program with a code of its own.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func main() {
	name := ""
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	run, ok := roles[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "services: no role %q; one of backend, hub, kas, frontend, seed, fail, healthcheck\n", name)
		os.Exit(64)
	}
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil)).With("service", name)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	err := run(ctx, environment{get: os.Getenv, role: strings.ToUpper(name)}, log)
	var exit exitError
	if errors.As(err, &exit) {
		os.Exit(int(exit))
	}
	if err != nil {
		log.Error(err.Error())
		os.Exit(1)
	}
}
