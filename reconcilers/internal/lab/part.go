package lab

import (
	"maps"
	"slices"
)

// Part moves services to a network of their own, until Reunite: they reach each other there, nobody reaches them from
// where the others are, and Find does not give them. Unlike after Split, this host still reaches them (Where). Their
// addresses change both times.
func (l *Lab) Part(services ...string) {
	l.tb.Helper()
	far := l.prefix + "-far"
	if l.far == nil {
		l.network(far, nil)
		l.tb.Cleanup(func() { l.abandon(slices.Collect(maps.Keys(l.far)), far) })
	}
	there := map[string]bool{}
	for _, service := range services {
		there[service] = true
	}
	l.setFar(there)
	for _, service := range services {
		l.leave(service, l.prefix)
		l.join(service, far, service)
	}
}

// Reunite undoes Part.
func (l *Lab) Reunite() {
	l.tb.Helper()
	for service := range l.far {
		l.leave(service, l.prefix+"-far")
		l.join(service, l.prefix, service)
	}
	l.setFar(map[string]bool{})
}

func (l *Lab) setFar(services map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.far = services
}
