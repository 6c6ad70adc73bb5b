package lab

import "net/netip"

// nowhere is an address of this host at which nothing listens.
var nowhere = netip.MustParseAddr("127.255.255.254")

// beyond is the network of those that Split took away.
func (l *Lab) beyond() string { return l.prefix + "-beyond" }

// Split cuts services off from all others and from this host, together: they still reach each other, by their names. Join
// undoes it.
func (l *Lab) Split(services ...string) {
	l.tb.Helper()
	l.network(l.beyond(), map[string]string{"com.docker.network.bridge.inhibit_ipv4": "true"}) // this host has no address there
	for _, service := range services {
		l.join(service, l.beyond(), service)
	}
	for _, service := range services {
		l.Disconnect(service)
	}
	l.tb.Cleanup(func() { l.abandon(services, l.beyond()) })
}

// Join brings back what Split took away. Addresses may be others than before.
func (l *Lab) Join(services ...string) {
	l.tb.Helper()
	for _, service := range services {
		l.Connect(service)
	}
	l.abandon(services, l.beyond())
}
