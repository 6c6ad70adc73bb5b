package mongo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"dive-agent/reconcilers"
)

// Limits of clients. A client is made anew each hour, so that a password that was changed in the server is found.
const (
	selectionLimit = 3 * time.Second
	commandLimit   = 15 * time.Second
	clientAge      = time.Hour
	closeLimit     = 2 * time.Second
)

// pool keeps logged-in clients between calls: a login costs more than all questions of an observation together.
type pool struct {
	mu      sync.Mutex
	clients map[clientKey]*pooled
	closed  bool
}

type clientKey struct{ component, host, user string }

type pooled struct {
	client    *driver.Client
	login     login
	container string // identity of the container it was made for
	since     time.Time
}

func newPool() *pool { return &pool{clients: map[clientKey]*pooled{}} }

// get returns the client for a member and login, a new one when credentials or container changed.
func (p *pool) get(key clientKey, l login, container string, now time.Time, open func() (*driver.Client, error)) (*driver.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.New("the reconciler is closed")
	}
	if have := p.clients[key]; have != nil {
		if have.login == l && have.container == container && now.Sub(have.since) < clientAge {
			return have.client, nil
		}
		p.drop(key)
	}
	client, err := open()
	if err != nil {
		return nil, err
	}
	p.clients[key] = &pooled{client, l, container, now}
	return client, nil
}

// forget closes a client that did not work.
func (p *pool) forget(key clientKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(key)
}

// keep closes the component's clients of members that are not in hosts.
func (p *pool) keep(component string, hosts map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.clients {
		if key.component == component && !hosts[key.host] {
			p.drop(key)
		}
	}
}

func (p *pool) drop(key clientKey) {
	have := p.clients[key]
	if have == nil {
		return
	}
	delete(p.clients, key)
	disconnect(have.client)
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for key := range p.clients {
		p.drop(key)
	}
}

func disconnect(client *driver.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	_ = client.Disconnect(ctx)
}

// dialerFunc is the driver's way to a connection.
type dialerFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (f dialerFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

// openClient makes a client that talks to one member only. No connection is made yet.
func openClient(host string, l login, dial dialerFunc) (*driver.Client, error) {
	o := options.Client().SetHosts([]string{host}).SetDirect(true).SetDialer(dial).SetAppName("dive-agent").
		SetServerSelectionTimeout(selectionLimit).SetConnectTimeout(selectionLimit).SetMaxPoolSize(4).
		SetServerMonitoringMode("poll").SetHeartbeatInterval(time.Minute).SetWriteConcern(writeconcern.Majority())
	if l.name != "" {
		o.SetAuth(options.Credential{
			AuthMechanism: l.mechanism, AuthSource: l.database, Username: l.name, Password: l.password,
		})
	}
	client, err := driver.Connect(o)
	if err != nil {
		return nil, fmt.Errorf("a client for %s: %w", host, err)
	}
	return client, nil
}

// place is where a member's container is now.
type place struct {
	address   string
	container reconcilers.Container
}

func (p place) identity() string { return p.container.ID + "@" + p.container.StartedAt.String() }

// find asks for the container of a member's service.
func find(ctx context.Context, services reconcilers.Services, m wantMember) (place, error) {
	c, err := services.Find(ctx, m.service)
	if err != nil {
		return place{}, err
	}
	addr := c.Addr()
	if addr == (netip.Addr{}) {
		if at, ok := c.Published[uint16(m.port)]; ok {
			return place{dialable(at).String(), c}, nil
		}
		return place{}, &reconcilers.WaitError{For: "a network address of service " + m.service}
	}
	return place{net.JoinHostPort(addr.String(), strconv.Itoa(m.port)), c}, nil
}

// dialable turns "all addresses" into one that can be dialled.
func dialable(at netip.AddrPort) netip.AddrPort {
	if !at.Addr().IsUnspecified() {
		return at
	}
	if at.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
}
