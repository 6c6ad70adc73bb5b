package main

import (
	"context"
	"log/slog"
)

// runFail says what a service says before it dies, with the value of the variable that FAIL_SECRET names in one line, and
// exits with 3: a bad revision, and a proof that logs are redacted before anyone sees them.
func runFail(_ context.Context, env environment, log *slog.Logger) error {
	log.Info("starting", "version", env.or("VERSION", "1.0.0"))
	if name := env.get("FAIL_SECRET"); name != "" {
		log.Info("connecting", "with", env.get(name))
	}
	log.Error(env.or("FAIL_MESSAGE", "config: this version does not start"))
	return exitError(3)
}
