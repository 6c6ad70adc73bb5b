package main

import (
	"context"
	"time"

	"dive-agent/agent"
	"dive-agent/gitremote"
	"dive-agent/source/peers"
)

// openStatuses makes the reader of other instances' status branches: they are where this host's are. It has a remote of its own,
// since what those branches may bring is bounded more tightly than a fleet repository.
func (h *host) openStatuses() (agent.Statuses, error) {
	where := h.config.Source.Remote
	if h.config.Report.Status != nil {
		where = *h.config.Report.Status
	}
	c := remoteConfig(where)
	c.Limits = peers.Limits
	remote, err := gitremote.New(c)
	if err != nil {
		return nil, err
	}
	h.closers = append(h.closers, func() error { remote.Close(); return nil })
	return peers.New(peers.Options{Remote: remote, Now: time.Now}), nil
}

// readStatuses asks for a look at the status branches of other instances.
func (h *host) readStatuses() {
	select {
	case h.statuses <- struct{}{}:
	default:
	}
}

// followStatuses reads the status branches of other instances whenever the fleet repository was polled, until ctx ends: beside
// the polls, which do not wait for it.
func (h *host) followStatuses(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.statuses:
		}
		if err := h.agent.ReadStatuses(ctx); err != nil && ctx.Err() == nil {
			h.log.Debug("read the status branches of other instances", "error", err)
		}
	}
}

// keepReadingStatuses reads them as often as the fleet repository would be polled, for a command that polls once, until stop is
// called.
func (h *host) keepReadingStatuses(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { h.followStatuses(ctx); close(ended) }()
	every := time.NewTicker(max(time.Duration(h.config.Source.Interval), time.Second))
	go func() {
		defer every.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
				h.readStatuses()
			}
		}
	}()
	return func() { cancel(); <-ended }
}
