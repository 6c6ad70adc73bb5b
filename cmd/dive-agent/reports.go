package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"

	"dive-agent/agent"
	"dive-agent/config"
	"dive-agent/gitremote"
	"dive-agent/hostkeys"
	"dive-agent/reconcilers"
	"dive-agent/report"
)

// openReports puts together what leaves the host: status branches and webhooks.
func (h *host) openReports() (agent.Reporter, error) {
	c := h.config.Report
	branches := &report.Branches{Remote: h.remote, Author: gitremote.Person{Name: "dive-agent " + h.config.Host, Email: "dive-agent@" + h.config.Host}}
	if c.Status != nil {
		remote, err := gitremote.New(remoteConfig(*c.Status))
		if err != nil {
			return nil, err
		}
		h.closers = append(h.closers, func() error { remote.Close(); return nil })
		branches.Remote = remote
	}
	branches.Signer = func() (gitremote.Signer, error) {
		pem := h.agent.StatusKey()
		if pem == nil {
			return nil, nil
		}
		return gitremote.NewSSHSigner(pem)
	}
	options := report.Options{
		Host: h.config.Host, Store: h.store, Clock: reconcilers.SystemClock{}, Random: rand.Reader, Log: h.log, Branches: branches,
		Redact: h.redactor.String,
	}
	for i, w := range c.Webhooks {
		webhook, err := openWebhook(i, w)
		if err != nil {
			return nil, err
		}
		options.Webhooks = append(options.Webhooks, webhook)
		h.redactor.Add(webhook.Keys...)
	}
	reporter, err := report.New(options)
	h.reporter = reporter
	return reporter, err
}

// signingKey reads the key that signs status commits in place of the host's own; nil when none is configured.
func signingKey(c config.Report) ([]byte, error) {
	if c.SigningKey == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.SigningKey)
	if err != nil {
		return nil, fmt.Errorf("cannot read report.signingKey: %w", err)
	}
	if _, err := hostkeys.PublicOf(pem); err != nil {
		return nil, fmt.Errorf("report.signingKey %s: %w", c.SigningKey, err)
	}
	return pem, nil
}

func openWebhook(index int, w config.Webhook) (report.Webhook, error) {
	webhook := report.Webhook{Name: w.Name, URL: w.URL}
	if webhook.Name == "" {
		webhook.Name = fmt.Sprintf("webhook-%d", index+1)
	}
	for _, file := range w.SecretFiles {
		key, err := os.ReadFile(file)
		if err != nil {
			return webhook, fmt.Errorf("cannot read a signing key of webhook %s: %w", webhook.Name, err)
		}
		webhook.Keys = append(webhook.Keys, string(bytes.TrimSpace(key)))
	}
	if w.CAFile != "" {
		ca, err := os.ReadFile(w.CAFile)
		if err != nil {
			return webhook, fmt.Errorf("cannot read the authorities of webhook %s: %w", webhook.Name, err)
		}
		webhook.CA = ca
	}
	return webhook, nil
}

// deliver brings reports out until ctx ends.
func (h *host) deliver(ctx context.Context) { h.reporter.Run(ctx) }

// deliverAll tries everything that is in the outbox once.
func (h *host) deliverAll(ctx context.Context) error { return h.reporter.Flush(ctx) }
