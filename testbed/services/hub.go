package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"dive-agent/testbed/hub"
)

// runHub is the hub's backend: what a spoke's backend does, without heartbeats, and the federation service.
//
// In addition to the backend's: FEDERATION_ADMIN_KEY; NODE_ENV and AUTO_APPROVE_SPOKES (every registration is approved
// at once when NODE_ENV is empty or development, or the other is true, as on the real hub); SPOKE_TOKEN_TTL (24h);
// OPAL_URL, OPAL_AUTH_MASTER_TOKEN; HUB_OWN_CODE; HUB_CASCADE_DELAY.
func runHub(ctx context.Context, env environment, log *slog.Logger) error {
	ctx, crash := context.WithCancelCause(ctx)
	defer crash(nil)
	db, err := startBackend(ctx, env, log)
	if err != nil {
		return err
	}
	defer disconnect(ctx, db)
	config := hub.Config{
		AdminKey: env.get("FEDERATION_ADMIN_KEY"), Code: env.get("INSTANCE_CODE"), OwnCode: env.get("HUB_OWN_CODE"), Log: log,
		OPALURL: env.get("OPAL_URL"), OPALMasterToken: env.get("OPAL_AUTH_MASTER_TOKEN"), AutoApprove: autoApproves(env),
		Crash: func(err error) { crash(crashed{err}) },
	}
	if config.AutoApprove {
		log.Warn("every registration is approved at once: NODE_ENV is not production, or AUTO_APPROVE_SPOKES is true")
	}
	if config.TokenTTL, err = env.duration("SPOKE_TOKEN_TTL", 24*time.Hour); err != nil {
		return err
	}
	if config.CascadeDelay, err = env.duration("HUB_CASCADE_DELAY", time.Nanosecond); err != nil {
		return err
	}
	if config.Store, err = hub.NewMongoStore(ctx, db, time.Now); err != nil {
		return explainWrite(err)
	}
	federation, err := hub.New(ctx, config)
	if err != nil {
		return err
	}
	h, err := backendHealth(env, db, log)
	if err != nil {
		return err
	}
	err = serveBackend(ctx, env, log, h, federation)
	var end crashed
	if errors.As(context.Cause(ctx), &end) {
		return end
	}
	return err
}

// crashed is why the process ends where the real one does.
type crashed struct{ error }

func autoApproves(env environment) bool {
	mode := env.get("NODE_ENV")
	return mode == "" || mode == "development" || env.get("AUTO_APPROVE_SPOKES") == "true"
}
