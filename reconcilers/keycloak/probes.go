package keycloak

import (
	"net/http"
	"sync"
	"time"
)

// probes keeps a connection to each server that is asked at every look whether its realms are there: to make one takes longer than to
// ask. Nothing else goes over it: a request that changes something is not to fail over a connection that the server has just closed.
type probes struct {
	mu      sync.Mutex
	clients map[string]*http.Client // by address and authority
}

// manyProbes is how many servers one agent looks at, by far; addresses of containers that are gone are forgotten then.
const manyProbes = 32

// of gives the client for a server, which is that server's own the first time.
func (p *probes) of(s *server, ca string) *http.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := s.base + "\n" + ca
	if client, there := p.clients[key]; there {
		return client
	}
	if p.clients == nil || len(p.clients) >= manyProbes {
		p.close()
		p.clients = map[string]*http.Client{}
	}
	transport := s.http.Transport.(*http.Transport).Clone()
	transport.DisableKeepAlives, transport.MaxIdleConnsPerHost, transport.IdleConnTimeout = false, 1, 15*time.Minute
	client := &http.Client{Timeout: probeLimit, Transport: transport}
	p.clients[key] = client
	return client
}

func (p *probes) close() {
	for _, client := range p.clients {
		client.CloseIdleConnections()
	}
}

// Close is io.Closer.
func (r *Reconciler) Close() error {
	r.probes.mu.Lock()
	defer r.probes.mu.Unlock()
	r.probes.close()
	return nil
}
