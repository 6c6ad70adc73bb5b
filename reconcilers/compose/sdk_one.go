package compose

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// one tells what the SDK is to make of a service: one container, whatever others the service has. The SDK knows how a
// container is made of a definition; which one is to go for it, and when, is decided here. It travels in the context.
type one struct {
	service string
	number  int    // of the replica
	name    string // that the container has in the end
	replace string // ID of the container that goes for it; empty: none
	beside  string // the name that it has as long as another one has its own; empty: its own at once

	// hidden are the networks on which the container has no names yet, with the address that it is to keep on each.
	hidden map[string]netip.Addr

	made  string // ID of what was made
	aside bool   // what is replaced has ended and has another name: it is to be removed
}

type oneKey struct{}

func withOne(ctx context.Context, o *one) context.Context { return context.WithValue(ctx, oneKey{}, o) }

// narrowing is the engine as the SDK sees it: with a `one` in the context, that service has at most the container that is to
// be replaced, and what is made gets the replica's number, name and names on its networks.
type narrowing struct{ client.APIClient }

func (n narrowing) ContainerList(ctx context.Context, options client.ContainerListOptions) (client.ContainerListResult, error) {
	result, err := n.APIClient.ContainerList(ctx, options)
	if o, ok := ctx.Value(oneKey{}).(*one); ok {
		result.Items = slices.DeleteFunc(result.Items, func(c container.Summary) bool {
			return c.Labels[api.ServiceLabel] == o.service && c.ID != o.replace
		})
	}
	return result, err
}

func (n narrowing) ContainerCreate(ctx context.Context, options client.ContainerCreateOptions) (client.ContainerCreateResult, error) {
	o, ok := ctx.Value(oneKey{}).(*one)
	if !ok || options.Config == nil || options.Config.Labels[api.ServiceLabel] != o.service {
		return n.APIClient.ContainerCreate(ctx, options)
	}
	options.Config.Labels[api.ContainerNumberLabel] = strconv.Itoa(o.number)
	switch {
	case o.beside != "":
		options.Name = o.beside
	case o.replace == "" || !strings.HasPrefix(options.Name, o.replace[:12]): // the SDK gives a replacement its name in the end
		options.Name = o.name
	}
	if options.NetworkingConfig != nil {
		for name, endpoint := range options.NetworkingConfig.EndpointsConfig {
			o.names(name, endpoint)
		}
	}
	result, err := n.APIClient.ContainerCreate(ctx, options)
	o.made = result.ID
	return result, err
}

func (n narrowing) NetworkConnect(ctx context.Context, name string, options client.NetworkConnectOptions) (client.NetworkConnectResult, error) {
	if o, ok := ctx.Value(oneKey{}).(*one); ok && o.made == options.Container {
		o.names(name, options.EndpointConfig)
	}
	return n.APIClient.NetworkConnect(ctx, name, options)
}

// ContainerRemove puts what is replaced aside, which takes a tenth of the time: the new one can start meanwhile. What cannot be put
// aside is removed.
func (n narrowing) ContainerRemove(ctx context.Context, id string, options client.ContainerRemoveOptions) (client.ContainerRemoveResult, error) {
	if o, ok := ctx.Value(oneKey{}).(*one); ok && id == o.replace {
		if _, err := n.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: o.name + "-replaced-" + id[:12]}); err == nil {
			o.aside = true
			return client.ContainerRemoveResult{}, nil
		}
	}
	return n.APIClient.ContainerRemove(ctx, id, options)
}

// names gives a new container its names on a network. The SDK puts that of the container first.
func (o *one) names(name string, endpoint *network.EndpointSettings) {
	if endpoint == nil {
		return
	}
	if address, ok := o.hidden[name]; ok {
		endpoint.Aliases, endpoint.IPAMConfig = nil, &network.EndpointIPAMConfig{IPv4Address: address}
	} else if len(endpoint.Aliases) > 0 {
		endpoint.Aliases[0] = o.name
	}
}
