package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dive-agent/source/hook"
)

// listener serves what others may ask for: health, metrics, and push webhooks that only wake the poll.
func (d *serving) listener() (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) {
		if !d.agent.Alive() {
			http.Error(rw, "not alive", http.StatusServiceUnavailable)
			return
		}
		_, _ = rw.Write([]byte("ok\n")) // the client has left: nobody to tell
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.agent.Metrics(), promhttp.HandlerOpts{}))
	if d.config.Listen.HookSecret == "" {
		return mux, nil
	}
	secret, err := os.ReadFile(d.config.Listen.HookSecret)
	if err != nil {
		return nil, fmt.Errorf("cannot read listen.hookSecretFile: %w", err)
	}
	for path, kind := range map[string]hook.Kind{
		"POST /hooks/generic": hook.Generic, "POST /hooks/github": hook.GitHub,
		"POST /hooks/gitlab": hook.GitLab, "POST /hooks/gitea": hook.Gitea,
	} {
		receiver, err := hook.New(hook.Options{Kind: kind, Secrets: [][]byte{bytes.TrimSpace(secret)}, Wake: d.poll})
		if err != nil {
			return nil, err
		}
		mux.Handle(path, receiver)
	}
	return mux, nil
}
