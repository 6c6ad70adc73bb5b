package keycloak

import "context"

// door is where a component's server was found.
type door struct{ url, ca string }

// ahead asks the server for realms where it was found at the last look, while others are asked where it is now. What it answers counts
// for nothing but a server that is still there. A nil one knows nothing.
type ahead struct {
	base string
	stop context.CancelFunc
	done chan struct{}
	seen map[string]bool // to be read once done is closed
}

// askAhead begins to ask for the realms that were applied; it gives nil where nothing is known of the server.
func (l *look) askAhead(ctx context.Context) *ahead {
	known, there := l.memory.doors.get(l.work.dir)
	if !there || known.ca != l.in.ca || l.in.url != "" && l.in.url != known.url || len(l.record.Realms) == 0 {
		return nil
	}
	s, err := newServer(known.url, known.ca)
	if err != nil {
		return nil
	}
	s.probe = l.probes.of(s, known.ca)
	ctx, stop := context.WithCancel(ctx)
	a := &ahead{base: s.base, stop: stop, done: make(chan struct{}), seen: map[string]bool{}}
	realms := l.record.Realms
	go func() {
		defer close(a.done)
		for _, name := range realms {
			there, err := s.realm(ctx, name)
			if err != nil {
				return // who needs to know asks, and tells of it
			}
			a.seen[name] = there
		}
	}()
	return a
}

// saw says whether a realm is known to be on the server.
func (a *ahead) saw(s *server, name string) bool {
	if a == nil || a.base != s.base {
		return false
	}
	<-a.done
	return a.seen[name]
}

// end gives up what was not answered.
func (a *ahead) end() {
	if a != nil {
		a.stop()
		<-a.done
	}
}
