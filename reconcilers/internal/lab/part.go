package lab

import (
	"context"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// Part moves services to a network of their own, until Reunite: they reach each other there, nobody reaches them from
// where the others are, and Find does not give them. Unlike after Split, this host still reaches them (Where). Their
// addresses change both times.
func (l *Lab) Part(services ...string) {
	l.tb.Helper()
	far := l.prefix + "-far"
	if l.far == nil {
		l.cleanup("network "+far, func(ctx context.Context) error {
			for service := range l.far {
				_, _ = l.engine.NetworkDisconnect(ctx, far, client.NetworkDisconnectOptions{Container: l.name(service), Force: true})
			}
			_, err := l.engine.NetworkRemove(ctx, far, client.NetworkRemoveOptions{})
			return err
		})
		if _, err := l.engine.NetworkCreate(l.tb.Context(), far, client.NetworkCreateOptions{}); err != nil {
			l.tb.Fatalf("make network %s: %v", far, err)
		}
	}
	there := map[string]bool{}
	for _, service := range services {
		there[service] = true
	}
	l.setFar(there)
	for _, service := range services {
		l.move(service, l.prefix, far)
	}
}

// Reunite undoes Part.
func (l *Lab) Reunite() {
	l.tb.Helper()
	for service := range l.far {
		l.move(service, l.prefix+"-far", l.prefix)
	}
	l.setFar(map[string]bool{})
}

func (l *Lab) setFar(services map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.far = services
}

func (l *Lab) move(service, from, to string) {
	l.tb.Helper()
	ctx := l.tb.Context()
	_, err := l.engine.NetworkDisconnect(ctx, from, client.NetworkDisconnectOptions{Container: l.name(service), Force: true})
	if err == nil {
		_, err = l.engine.NetworkConnect(ctx, to, client.NetworkConnectOptions{
			Container: l.name(service), EndpointConfig: &network.EndpointSettings{Aliases: []string{service}},
		})
	}
	if err != nil {
		l.tb.Fatalf("move %s from network %s to %s: %v", service, from, to, err)
	}
}
