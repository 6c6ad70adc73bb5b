package main

import (
	"context"
	_ "embed"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

//go:embed frontend.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// runFrontend serves a page on which people sign in at the realm: BACKEND_URL, BACKEND_CA_FILE, INSTANCE_CODE; IDP_URL, as browsers reach
// it, and KEYCLOAK_REALM (without them nobody signs in); PORT (3000).
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
	realm := ""
	if idp, name := env.get("IDP_URL"), env.get("KEYCLOAK_REALM"); idp != "" && name != "" {
		realm = join(idp, "/realms/"+url.PathEscape(name))
	}
	show := func(w http.ResponseWriter, _ *http.Request) {
		status, _ := h.report()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Referrer-Policy", "no-referrer") // the address has a code for a moment
		facts := map[string]string{"Code": env.get("INSTANCE_CODE"), "Backend": backend, "Status": status, "Realm": realm}
		_ = page.Execute(w, facts) // fails only when the caller is gone
	}
	mux.HandleFunc("GET /{$}", show)
	mux.HandleFunc("GET /callback", show)
	return serve(ctx, env, log, "3000", mux)
}
