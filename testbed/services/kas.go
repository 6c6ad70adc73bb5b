package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

var kasAudits = []string{"none", "file", "siem"}

// runKAS is the key access service: MONGODB_URL, BACKEND_URL, BACKEND_CA_FILE, KAS_AUDIT; PORT (9000), TLS_CERT_FILE,
// TLS_KEY_FILE, TLS_CLIENT_CA_FILE. It exits when it cannot write to MongoDB as it starts.
func runKAS(ctx context.Context, env environment, log *slog.Logger) error {
	if audit := env.get("KAS_AUDIT"); audit != "" && !slices.Contains(kasAudits, audit) {
		return errors.New("config: KAS_AUDIT must be one of: " + strings.Join(kasAudits, ", "))
	}
	if env.get("BACKEND_URL") == "" {
		return errors.New("config: BACKEND_URL is missing")
	}
	db, err := startBackend(ctx, env, log)
	if err != nil {
		return err
	}
	defer disconnect(ctx, db)
	client, err := env.client("BACKEND_CA_FILE")
	if err != nil {
		return err
	}
	h := newHealth(env, log, []check{
		mongoCheck(env, db, log), urlCheck("backend", client, join(env.get("BACKEND_URL"), "/api/health")),
	})
	every, err := env.duration("HEALTH_INTERVAL", 5*time.Second)
	if err != nil {
		return err
	}
	h.watch(ctx, every)
	mux := http.NewServeMux()
	mux.Handle("GET /health", h)
	return serve(ctx, env, log, "9000", mux)
}
