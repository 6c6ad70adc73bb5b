package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/testbed/hub"
)

// runBackend is a spoke's backend. It exits when it cannot write to MongoDB as it starts.
//
// It provides what the deployed backends of DIVE V3 hold: encrypted resources (resources.go) and, once the hub has taken a
// heartbeat, the links with the hub in federation_matrix.
//
// With HUB_URL, GET /api/partners passes the caller on to the hub with the service's token (heartbeat.go).
//
// MONGODB_URL; PORT (4000), TLS_CERT_FILE, TLS_KEY_FILE; SEED_FILE; POSTGRES_URL; REDIS_URL; KEYCLOAK_URL,
// KEYCLOAK_REALM, KEYCLOAK_CA_FILE; OPA_URL; HUB_URL, HUB_CA_FILE, SPOKE_TOKEN, SPOKE_ID, INSTANCE_CODE,
// HEARTBEAT_INTERVAL (30s), HUB_CODE (USA); HEALTH_INTERVAL (5s). What is not given is not used.
func runBackend(ctx context.Context, env environment, log *slog.Logger) error {
	db, err := startBackend(ctx, env, log)
	if err != nil {
		return err
	}
	defer disconnect(ctx, db)
	h, err := backendHealth(env, db, log)
	if err != nil {
		return err
	}
	rest := http.NotFoundHandler()
	if h.beat != nil {
		rest = h.beat.partners()
	}
	return serveBackend(ctx, env, log, h, rest)
}

// startBackend writes to the database, which is what everything else depends on.
func startBackend(ctx context.Context, env environment, log *slog.Logger) (*mongo.Database, error) {
	if err := env.validate(); err != nil {
		return nil, err
	}
	db, err := database(env)
	if err != nil {
		return nil, err
	}
	err = writeStart(ctx, env, db)
	if err == nil {
		err = seed(ctx, env, db, log)
	}
	if err == nil {
		err = provideResources(ctx, env, db)
	}
	if err != nil {
		return nil, errors.Join(err, db.Client().Disconnect(context.WithoutCancel(ctx)))
	}
	log.Info("wrote to MongoDB", "database", db.Name())
	return db, nil
}

func serveBackend(ctx context.Context, env environment, log *slog.Logger, h *health, rest http.Handler) error {
	every, err := env.duration("HEALTH_INTERVAL", 5*time.Second)
	if err != nil {
		return err
	}
	h.watch(ctx, every)
	mux := http.NewServeMux()
	mux.Handle("GET /api/health", h)
	mux.Handle("/", rest)
	return serve(ctx, env, log, "4000", mux)
}

// backendHealth makes the checks of the dependencies that the environment names.
func backendHealth(env environment, db *mongo.Database, log *slog.Logger) (*health, error) {
	checks := []check{mongoCheck(env, db, log)}
	if url := env.get("POSTGRES_URL"); url != "" {
		checks = append(checks, postgresCheck(url, env.role))
	}
	if url := env.get("REDIS_URL"); url != "" {
		checks = append(checks, redisCheck(url))
	}
	if url := env.get("KEYCLOAK_URL"); url != "" {
		client, err := env.client("KEYCLOAK_CA_FILE")
		if err != nil {
			return nil, err
		}
		checks = append(checks, oidcCheck(client, url, env.or("KEYCLOAK_REALM", "master")))
	}
	if url := env.get("OPA_URL"); url != "" {
		client, err := env.client("")
		if err != nil {
			return nil, err
		}
		checks = append(checks, urlCheck("opa", client, join(url, "/health")))
	}
	var beat *heartbeat
	if env.get("HUB_URL") != "" {
		client, err := env.client("HUB_CA_FILE")
		if err != nil {
			return nil, err
		}
		every, err := env.duration("HEARTBEAT_INTERVAL", 30*time.Second)
		if err != nil {
			return nil, err
		}
		if env.get("SPOKE_TOKEN") == "" {
			return nil, errors.New("config: SPOKE_TOKEN is missing, and HUB_URL is given")
		}
		beat = &heartbeat{links: db.Collection(hub.Matrix), partner: env.or("HUB_CODE", "USA"), client: client, hub: env.get("HUB_URL"), token: env.get("SPOKE_TOKEN"), spokeID: env.get("SPOKE_ID"), code: env.get("INSTANCE_CODE")}
		log.Info("heartbeats", "hub", beat.hub, "every", every.String(), "token", fingerprint(beat.token))
		checks = append(checks, beat.check(every))
	}
	h := newHealth(env, log, checks)
	if beat != nil {
		beat.report, h.beat = h.report, beat
	}
	return h, nil
}
