package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// check looks at one dependency. It says what it found, and never a secret.
type check struct {
	name string
	run  func(ctx context.Context) (detail map[string]any, err error)
	// every is how often it runs; the service's HEALTH_INTERVAL when zero.
	every time.Duration
}

// result of a check, as /health shows it.
type result struct {
	Healthy   bool           `json:"healthy"`
	LastCheck string         `json:"lastCheck,omitempty"`
	LastGood  string         `json:"lastGood,omitempty"`
	Error     string         `json:"error,omitempty"`
	Detail    map[string]any `json:"detail,omitempty"`
}

// health runs checks in the background and remembers what each said last.
type health struct {
	log    *slog.Logger
	env    environment
	checks []check
	beat   *heartbeat // nil: the service knows no hub

	mu      sync.Mutex
	results map[string]result
}

func newHealth(env environment, log *slog.Logger, checks []check) *health {
	h := &health{log: log, env: env, checks: checks, results: map[string]result{}}
	for _, c := range checks {
		h.results[c.name] = result{Error: "not looked at yet"}
	}
	return h
}

// watch runs all checks until the context ends.
func (h *health) watch(ctx context.Context, every time.Duration) {
	for _, c := range h.checks {
		interval := every
		if c.every > 0 {
			interval = c.every
		}
		go func() {
			ticker := time.NewTicker(interval)
			defer ticker.Stop()
			for {
				h.look(ctx, c)
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
			}
		}()
	}
}

// look runs one check, and logs when its verdict changes.
func (h *health) look(ctx context.Context, c check) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	detail, err := c.run(ctx)
	if ctx.Err() == context.Canceled {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	last := h.results[c.name]
	now := time.Now().UTC().Format(time.RFC3339Nano)
	next := result{Healthy: err == nil, LastCheck: now, LastGood: last.LastGood, Detail: detail}
	if err == nil {
		next.LastGood = now
	} else {
		next.Error = err.Error()
	}
	h.results[c.name] = next
	if next.Healthy != last.Healthy || next.Error != last.Error {
		h.log.Info("dependency", "name", c.name, "healthy", next.Healthy, "error", next.Error)
	}
}

// report is the state of all dependencies; the service is degraded when one is unhealthy.
func (h *health) report() (status string, results map[string]result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	status, results = "healthy", map[string]result{}
	for name, r := range h.results {
		results[name] = r
		if !r.Healthy {
			status = "degraded"
		}
	}
	return status, results
}

// ServeHTTP answers 200 while the service works, healthy or degraded, and 503 when it was told to be unhealthy.
func (h *health) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	status, results := h.report()
	code := http.StatusOK
	if h.env.failure() == "unhealthy" {
		status, code = "unhealthy", http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{ // fails only when the caller is gone
		"status": status, "timestamp": time.Now().UTC().Format(time.RFC3339), "version": h.env.or("VERSION", "1.0.0"), "services": results,
	})
}
