package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// drainLimit is how long open requests may go on after SIGTERM.
const drainLimit = 5 * time.Second

// serve listens on PORT until the context ends: HTTPS when TLS_CERT_FILE and TLS_KEY_FILE are given, else HTTP. With
// TLS_CLIENT_CA_FILE it answers only who shows a certificate of that authority.
func serve(ctx context.Context, env environment, log *slog.Logger, otherwise string, handler http.Handler) error {
	if err := slowStart(ctx, env, log); err != nil {
		return nil // told to end while it was starting
	}
	address := net.JoinHostPort(env.get("LISTEN_HOST"), env.or("PORT", otherwise))
	server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	mutual := env.get("TLS_CLIENT_CA_FILE") != ""
	if mutual {
		clients, err := env.pool("TLS_CLIENT_CA_FILE")
		if err != nil {
			return err
		}
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	ended := make(chan error, 1)
	cert, key := env.get("TLS_CERT_FILE"), env.get("TLS_KEY_FILE")
	go func() {
		if cert != "" || key != "" {
			ended <- server.ServeTLS(listener, cert, key)
			return
		}
		ended <- server.Serve(listener)
	}()
	log.Info("listening", "address", listener.Addr().String(), "tls", cert != "", "mutual", mutual)
	select {
	case err := <-ended:
		return fmt.Errorf("serve on %s: %w", address, err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
	defer cancel()
	if err := server.Shutdown(drain); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop: %w", err)
	}
	log.Info("stopped")
	return nil
}

// slowStart waits for FAIL_DELAY (a minute when not given) when the service was told to be slow.
func slowStart(ctx context.Context, env environment, log *slog.Logger) error {
	if env.failure() != "slow" {
		return nil
	}
	delay, err := env.duration("FAIL_DELAY", time.Minute)
	if err != nil {
		return err
	}
	log.Info("starting slowly", "delay", delay.String())
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
