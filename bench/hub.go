package bench

import (
	"context"
	"fmt"
	"time"

	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/pki"
)

const (
	hubProject   = "dive-bench-hub"
	spokeProject = "dive-bench-deu"
	spoke        = "deu"
)

// needSpoke brings up a hub and then the example's spoke, once.
func (w *world) needSpoke(ctx context.Context) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	if !w.brought {
		w.brought = true
		w.upErr = w.bringSpoke(ctx)
	}
	return w.upErr
}

// needHub brings up the hub, once.
func (w *world) needHub(ctx context.Context) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	if w.hub == nil && w.hubErr == nil {
		if w.hubErr = w.bringHub(ctx); w.hubErr != nil {
			w.hubErr = fmt.Errorf("bring up the hub: %w", w.hubErr)
		}
	}
	return w.hubErr
}

// bringSpoke brings up the spoke from nothing, beside the hub, and keeps the story of it for the figures.
func (w *world) bringSpoke(ctx context.Context) error {
	err := w.needHub(ctx)
	if err != nil {
		return err
	}
	if w.spoke, err = w.newAgent("deu-01"); err != nil {
		return err
	}
	if err := w.spoke.start(ctx, true); err != nil {
		return err
	}
	listening, stop := context.WithCancel(ctx)
	defer stop()
	log := w.listen(listening)
	commit, err := w.merge("Add spoke DEU", gitserver.Files{"instances/deu.yaml": instanceManifest(spoke, "spoke", "deu-01",
		"code: DEU", "country: Germany", "project: "+spokeProject, fmt.Sprintf("portOffset: %d", spokeOffset))})
	if err != nil {
		return err
	}
	for _, a := range w.agents {
		if !a.running() {
			continue
		}
		if _, err := a.order(ctx, "/v1/poll"); err != nil {
			return fmt.Errorf("wake %s: %w", a.name, err)
		}
	}
	if err := w.spoke.awaitReady(ctx, 5*time.Minute, spoke, commit); err != nil {
		return err
	}
	w.story, err = w.tellStory(ctx, log)
	return err
}

// bringHub brings up the small hub, whose agent approves the spoke.
func (w *world) bringHub(ctx context.Context) error {
	ca, err := pki.LoadOrCreate(w.path("pki"), "DIVE benchmark")
	if err != nil {
		return err
	}
	certificate, key, err := ca.Issue("localhost", "127.0.0.1", "host.docker.internal", "backend")
	if err != nil {
		return err
	}
	a, err := w.newAgent("usa-01")
	if err != nil {
		return err
	}
	w.hub = a
	if err := a.configure(true); err != nil {
		return err
	}
	for name, value := range map[string][]byte{"HUB_TLS_CERT": certificate, "HUB_TLS_KEY": key} {
		if _, err := a.command(ctx, value, "secrets", "set", "usa", name); err != nil {
			return err
		}
	}
	commit, err := w.head()
	if err != nil {
		return err
	}
	if err := a.start(ctx, true); err != nil {
		return err
	}
	return a.awaitReady(ctx, 2*time.Minute, "usa", commit)
}
