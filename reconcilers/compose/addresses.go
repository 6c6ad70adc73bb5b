package compose

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// The engine sets the names of a container on a network when it connects it, and in no other way; a container that is
// disconnected and connected again keeps its connections when it keeps its address, and it keeps it only when it is given as
// one of its own. An address that the engine hands out by itself may be another's when the host starts again. So the networks
// on which a container starts beside an old one have a half of their addresses in reserve, from which the agent chooses.

// reservedLabel is the label of a network with the addresses that the engine hands out to nobody by itself.
const reservedLabel = "dive.reserved"

// reservedBits is how many bits of an address the reserve has at least: 16 addresses.
const reservedBits = 4

type reserveKey struct{}

// createNetwork makes a network of the stack.
func (r *Reconciler) createNetwork(ctx context.Context, s *stack, key string) error {
	if s.wantsReserve(key) {
		ctx = context.WithValue(ctx, reserveKey{}, true)
	}
	return r.create(ctx, s.model.onlyNetwork(key), false)
}

// wantsReserve says whether a service on the network starts beside its old container, and the Compose file leaves the
// network's addresses to the engine.
func (s *stack) wantsReserve(key string) bool {
	n := s.model.project.Networks[key]
	if bool(n.External) || n.Driver != "" && n.Driver != "bridge" || len(n.Ipam.Config) > 0 || n.Ipam.Driver != "" || n.EnableIPv6 != nil && *n.EnableIPv6 {
		return false
	}
	for name, service := range s.model.project.Services {
		if _, on := service.Networks[key]; on && s.policyOf(name).startFirst && obstacle(service, 1) == "" && dataOfOne(service) == "" {
			return true
		}
	}
	return false
}

// NetworkCreate makes a network whose range the engine chose, and makes it again with half of it in reserve. When the
// process ends in between, it is a network without a reserve, or none.
func (n narrowing) NetworkCreate(ctx context.Context, name string, options client.NetworkCreateOptions) (client.NetworkCreateResult, error) {
	made, err := n.APIClient.NetworkCreate(ctx, name, options)
	if err != nil || ctx.Value(reserveKey{}) == nil {
		return made, err
	}
	result, err := n.APIClient.NetworkInspect(ctx, made.ID, client.NetworkInspectOptions{})
	if err != nil {
		return made, fmt.Errorf("look at network %s: %w", name, err)
	}
	if len(result.Network.IPAM.Config) != 1 {
		return made, nil
	}
	config := result.Network.IPAM.Config[0]
	lower, upper, ok := halves(config.Subnet)
	if !ok || !lower.Contains(config.Gateway) {
		return made, nil
	}
	if _, err := n.APIClient.NetworkRemove(ctx, made.ID, client.NetworkRemoveOptions{}); err != nil {
		return made, fmt.Errorf("make network %s again: %w", name, err)
	}
	reserving := options
	reserving.IPAM = &network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: config.Subnet, IPRange: lower, Gateway: config.Gateway}}}
	reserving.Labels = map[string]string{reservedLabel: upper.String()}
	for label, value := range options.Labels {
		reserving.Labels[label] = value
	}
	return n.APIClient.NetworkCreate(ctx, name, reserving)
}

// halves splits a range of IPv4 addresses.
func halves(whole netip.Prefix) (lower, upper netip.Prefix, ok bool) {
	if !whole.IsValid() || !whole.Addr().Is4() || whole.Bits() > 32-reservedBits-1 {
		return lower, upper, false
	}
	bits := whole.Bits() + 1
	base := whole.Masked().Addr().As4()
	first := binary.BigEndian.Uint32(base[:])
	binary.BigEndian.PutUint32(base[:], first|1<<(32-bits))
	return netip.PrefixFrom(whole.Masked().Addr(), bits), netip.PrefixFrom(netip.AddrFrom4(base), bits), true
}

// openNetworks are the service's networks without a reserve, by name, sorted.
func (st *serviceState) openNetworks() []string {
	var open []string
	for key := range st.service.Networks {
		if name := st.model.project.Networks[key].Name; !st.reserved[name].IsValid() {
			open = append(open, name)
		}
	}
	slices.Sort(open)
	return open
}

// pickAddresses chooses an address from the reserve of each of the service's networks that has one.
func (r *Reconciler) pickAddresses(ctx context.Context, st *serviceState) (map[string]netip.Addr, error) {
	picked := map[string]netip.Addr{}
	for _, key := range sortedKeys(st.service.Networks) {
		name := st.model.project.Networks[key].Name
		reserve, ok := st.reserved[name]
		if !ok {
			continue
		}
		// By its ID the engine would leave out those that were never started.
		list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("network", name)})
		if err != nil {
			return nil, fmt.Errorf("list the containers on network %s: %w", name, err)
		}
		used := map[netip.Addr]bool{}
		for _, c := range list.Items {
			if c.NetworkSettings == nil || c.NetworkSettings.Networks[name] == nil {
				continue
			}
			endpoint := c.NetworkSettings.Networks[name]
			used[endpoint.IPAddress] = true
			if endpoint.IPAMConfig != nil {
				used[endpoint.IPAMConfig.IPv4Address] = true
			}
		}
		if picked[name], ok = freeIn(reserve, used); !ok {
			return nil, fmt.Errorf("no address of %s is free on network %s", reserve, name)
		}
	}
	return picked, nil
}

// freeIn gives an address of the range that is not used, from a random place on. The last one is the broadcast address.
func freeIn(reserve netip.Prefix, used map[netip.Addr]bool) (netip.Addr, bool) {
	size := uint32(1)<<(32-reserve.Bits()) - 1
	base := reserve.Masked().Addr().As4()
	first := binary.BigEndian.Uint32(base[:])
	from := rand.Uint32N(size)
	for i := range min(size, 1<<16) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], first+(from+i)%size)
		if address := netip.AddrFrom4(b); !used[address] {
			return address, true
		}
	}
	return netip.Addr{}, false
}

// asDeclared takes the addresses that the agent chose out of what the engine says of a container: they are no part of what
// the container is, and another one gets others.
func (st *serviceState) asDeclared(c *container.InspectResponse) {
	for name, endpoint := range c.NetworkSettings.Networks {
		reserve, ok := st.reserved[name]
		if ok && endpoint != nil && endpoint.IPAMConfig != nil && reserve.Contains(endpoint.IPAMConfig.IPv4Address) {
			endpoint.IPAMConfig = nil
		}
	}
}

// expose gives a container the names of its service, on each network where it lacks them.
func (r *Reconciler) expose(ctx context.Context, st *serviceState, id string) error {
	names := map[string][]string{}
	for key := range st.service.Networks {
		names[st.model.project.Networks[key].Name] = st.aliases(key)
	}
	return r.exposeAs(ctx, st, id, names)
}

// exposeBack gives the container of a version that is put back its names again, on the networks of that version.
func (r *Reconciler) exposeBack(ctx context.Context, st *serviceState, g *good, id string) error {
	names := map[string][]string{}
	for name, endpoint := range g.Networks {
		if slices.Contains(endpoint.Aliases, st.name) {
			names[name] = endpoint.Aliases
		}
	}
	return r.exposeAs(ctx, st, id, names)
}

// exposeAs connects a container to each of the networks, by their names, where it is not known by the service's name.
func (r *Reconciler) exposeAs(ctx context.Context, st *serviceState, id string, names map[string][]string) error {
	result, err := r.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("inspect container %s: %w", st.wantName, err)
	}
	for _, name := range sortedKeys(names) {
		endpoint := result.Container.NetworkSettings.Networks[name]
		if endpoint != nil && slices.Contains(endpoint.Aliases, st.name) {
			continue
		}
		if err := r.reconnect(ctx, id, name, endpoint, names[name]); err != nil {
			return fmt.Errorf("give the container of service %s its names on network %s: %w", st.name, name, err)
		}
	}
	return nil
}

// hide takes the names of the service from a container, on the networks where it can keep its connections. hidden says
// whether it lost them on all.
func (r *Reconciler) hide(ctx context.Context, st *serviceState, c *container.InspectResponse) (hidden bool, err error) {
	hidden = true
	for _, key := range sortedKeys(st.service.Networks) {
		name := st.model.project.Networks[key].Name
		endpoint := c.NetworkSettings.Networks[name]
		switch {
		case endpoint == nil:
		case !st.reserved[name].IsValid():
			hidden = false
		case slices.Contains(endpoint.Aliases, st.name):
			if err := r.reconnect(ctx, c.ID, name, endpoint, nil); err != nil {
				return false, fmt.Errorf("take the names of service %s on network %s from its old container: %w", st.name, name, err)
			}
		}
	}
	return hidden && len(st.service.Networks) > 0, nil
}

// aliases are the names of the replica on a network, as Compose gives them.
func (st *serviceState) aliases(key string) []string {
	names := []string{st.wantName, st.name}
	if settings := st.service.Networks[key]; settings != nil {
		names = append(names, settings.Aliases...)
	}
	return names
}

// reconnect connects a container to a network under other names. It keeps its address, and with it its connections.
func (r *Reconciler) reconnect(ctx context.Context, id, name string, before *network.EndpointSettings, aliases []string) error {
	after := &network.EndpointSettings{Aliases: aliases}
	if before != nil {
		after.Links, after.DriverOpts, after.MacAddress, after.GwPriority = before.Links, before.DriverOpts, before.MacAddress, before.GwPriority
		after.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: before.IPAddress}
		r.addresses.Lock() // nobody is to choose it meanwhile
		defer r.addresses.Unlock()
		_, err := r.engine.NetworkDisconnect(ctx, name, client.NetworkDisconnectOptions{Container: id, Force: true})
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	_, err := r.engine.NetworkConnect(ctx, name, client.NetworkConnectOptions{Container: id, EndpointConfig: after})
	return err
}

// reserveOf reads the label of a network; the zero prefix when it has no reserve.
func reserveOf(labels map[string]string) netip.Prefix {
	reserve, err := netip.ParsePrefix(labels[reservedLabel])
	if err != nil {
		return netip.Prefix{}
	}
	return reserve
}
