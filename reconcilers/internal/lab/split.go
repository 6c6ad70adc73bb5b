package lab

import (
	"context"
	"net/netip"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// nowhere is an address of this host at which nothing listens.
var nowhere = netip.MustParseAddr("127.255.255.254")

// beyond is the network of those that Split took away.
func (l *Lab) beyond() string { return l.prefix + "-beyond" }

// Split cuts services off from all others and from this host, together: they still reach each other, by their names. Join
// undoes it.
func (l *Lab) Split(services ...string) {
	l.tb.Helper()
	_, err := l.engine.NetworkCreate(l.tb.Context(), l.beyond(), client.NetworkCreateOptions{
		Options: map[string]string{"com.docker.network.bridge.inhibit_ipv4": "true"}, // this host has no address there
	})
	if err != nil {
		l.tb.Fatalf("make network %s: %v", l.beyond(), err)
	}
	l.cleanup("network "+l.beyond(), func(ctx context.Context) error {
		_, err := l.engine.NetworkRemove(ctx, l.beyond(), client.NetworkRemoveOptions{})
		return err
	})
	for _, service := range services {
		_, err := l.engine.NetworkConnect(l.tb.Context(), l.beyond(), client.NetworkConnectOptions{
			Container: l.name(service), EndpointConfig: &network.EndpointSettings{Aliases: []string{service}},
		})
		if err != nil {
			l.tb.Fatalf("connect %s: %v", service, err)
		}
	}
	for _, service := range services {
		l.Disconnect(service)
	}
	l.tb.Cleanup(func() { l.leave(services) })
}

// Join brings back what Split took away. Addresses may be others than before.
func (l *Lab) Join(services ...string) {
	l.tb.Helper()
	for _, service := range services {
		l.Connect(service)
	}
	l.leave(services)
}

// leave takes services from the network beyond; those that are not on it have left.
func (l *Lab) leave(services []string) {
	for _, service := range services {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		_, _ = l.engine.NetworkDisconnect(ctx, l.beyond(), client.NetworkDisconnectOptions{Container: l.name(service), Force: true})
		cancel()
	}
}
