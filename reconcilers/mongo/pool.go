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
	mu      sync.Mutex // guards what follows; never held over the network
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

// get returns the client for a member and login, a new one when credentials or container changed. open must not wait.
func (p *pool) get(key clientKey, l login, container string, now time.Time, open func() (*driver.Client, error)) (*driver.Client, error) {
	p.mu.Lock()
	have := p.clients[key]
	switch {
	case p.closed:
		p.mu.Unlock()
		return nil, errors.New("the reconciler is closed")
	case have != nil && have.login == l && have.container == container && now.Sub(have.since) < clientAge:
		p.mu.Unlock()
		return have.client, nil
	}
	client, err := open()
	delete(p.clients, key)
	if err == nil {
		p.clients[key] = &pooled{client, l, container, now}
	}
	p.mu.Unlock()
	if have != nil {
		disconnect(have.client)
	}
	return client, err
}

// forget closes a client that did not work.
func (p *pool) forget(key clientKey) {
	p.drop(func(k clientKey) bool { return k == key })
}

// keep closes the component's clients of members that are not in hosts.
func (p *pool) keep(component string, hosts map[string]bool) {
	p.drop(func(k clientKey) bool { return k.component == component && !hosts[k.host] })
}

// close closes all clients; get gives none any more.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.drop(func(clientKey) bool { return true })
}

// drop takes clients out and closes them with the lock free: a server that is away holds up nobody else.
func (p *pool) drop(which func(clientKey) bool) {
	var out []*driver.Client
	p.mu.Lock()
	for key, have := range p.clients {
		if which(key) {
			out = append(out, have.client)
			delete(p.clients, key)
		}
	}
	p.mu.Unlock()
	for _, client := range out {
		disconnect(client)
	}
}

// disconnect takes up to closeLimit.
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
	if l.name != "" || l.mechanism != "" {
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

// find asks for the container of a member's service. A member on another host is where its host name leads.
func find(ctx context.Context, services reconcilers.Services, m wantMember) (place, error) {
	if !m.local() {
		return place{address: m.host}, nil
	}
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
