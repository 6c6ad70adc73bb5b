package main

import (
	"context"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"time"
)

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>DIVE {{.Code}}</title></head>
<body><h1>DIVE {{.Code}}</h1><p>The backend at {{.Backend}} is {{.Status}}.</p></body></html>
`))

// runFrontend serves a page: BACKEND_URL, BACKEND_CA_FILE, INSTANCE_CODE; PORT (3000).
func runFrontend(ctx context.Context, env environment, log *slog.Logger) error {
	if err := env.validate(); err != nil {
		return err
	}
	backend := env.get("BACKEND_URL")
	if backend == "" {
		return errors.New("config: BACKEND_URL is missing")
	}
	client, err := env.client("BACKEND_CA_FILE")
	if err != nil {
		return err
	}
	h := newHealth(env, log, []check{urlCheck("backend", client, join(backend, "/api/health"))})
	every, err := env.duration("HEALTH_INTERVAL", 5*time.Second)
	if err != nil {
		return err
	}
	h.watch(ctx, every)
	mux := http.NewServeMux()
	mux.Handle("GET /health", h)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		status, _ := h.report()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, map[string]string{"Code": env.get("INSTANCE_CODE"), "Backend": backend, "Status": status}) // fails only when the caller is gone
	})
	return serve(ctx, env, log, "3000", mux)
}
