package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/moby/moby/client"
)

// HostGateway is this machine's address on the engine's own bridge: what host-gateway is in extra_hosts, where containers reach it
// as host.docker.internal.
func HostGateway(ctx context.Context, engine *client.Client) (string, error) {
	found, err := engine.NetworkInspect(ctx, "bridge", client.NetworkInspectOptions{})
	if err != nil {
		return "", fmt.Errorf("look at the engine's bridge: %w", err)
	}
	name := found.Network.Options["com.docker.network.bridge.name"]
	bridge, err := net.InterfaceByName(name)
	if err != nil {
		return "", fmt.Errorf("look at the engine's bridge %q: %w", name, err)
	}
	addresses, err := bridge.Addrs()
	if err != nil {
		return "", fmt.Errorf("look at the addresses of %s: %w", name, err)
	}
	for _, address := range addresses {
		if prefix, ok := address.(*net.IPNet); ok && prefix.IP.To4() != nil {
			return prefix.IP.String(), nil
		}
	}
	return "", errors.New("the engine's bridge " + name + " has no IPv4 address")
}
