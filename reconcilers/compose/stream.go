package compose

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// stream is the engine's events, heard once for all stacks of the host that are watched.
type stream struct {
	*Reconciler

	mu        sync.Mutex
	listeners map[*listener]bool
	stop      context.CancelFunc // nil while nobody listens

	scanning sync.Mutex // one stack after the other: nobody waits for it
}

// listener is a stack that is watched. hear is called with one event after the other and must not block.
type listener struct {
	hear   func(events.Message)
	due    chan *reconcilers.Survey // gives one when the stack is to be scanned, the same to all stacks
	broken chan error               // gives why nothing more is heard
}

// owner is what the labels of a container say; they never change.
type owner struct{ project, service string }

// owners remembers whose the containers are that came or left a network.
type owners map[string]owner

// ownersKept bounds that.
const ownersKept = 2000

// join has a stack hear all events from now on, until leave. It is scanned at once, and each minute.
func (s *stream) join(hear func(events.Message)) (l *listener, leave func()) {
	l = &listener{hear: hear, due: make(chan *reconcilers.Survey, 1), broken: make(chan error, 1)}
	l.due <- &reconcilers.Survey{}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listeners == nil {
		s.listeners = map[*listener]bool{}
	}
	s.listeners[l] = true
	if s.stop == nil {
		s.open()
	}
	return l, func() { s.leave(l) }
}

func (s *stream) leave(l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	if len(s.listeners) == 0 && s.stop != nil {
		s.stop()
		s.stop = nil
		s.witness.end()
	}
}

// open begins to hear the engine. s.mu is held.
func (s *stream) open() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	opened := s.engine.Events(ctx, client.EventsListOptions{
		Filters: make(client.Filters).
			Add("type", string(events.ContainerEventType), string(events.NetworkEventType), string(events.VolumeEventType)).
			Add("event", "create", "die", "destroy", "oom", "pause", "unpause", "rename", "start", "update", "health_status", "connect", "disconnect"),
	})
	s.witness.begin()
	go func() {
		defer stop()
		s.close(ctx, s.read(ctx, opened))
	}()
}

// read hands events on until the stream breaks.
func (s *stream) read(ctx context.Context, opened client.EventsResult) error {
	known, next := owners{}, s.clock.After(scanEvery)
	for {
		select {
		case <-next:
			next = s.clock.After(scanEvery)
			s.scanAll()
		case err := <-opened.Err:
			if err == nil {
				err = errors.New("it ended")
			}
			return fmt.Errorf("the engine's event stream broke: %w", err)
		case message := <-opened.Messages:
			s.tell(ctx, known, message)
		}
	}
}

// scanAll makes a scan of each stack due.
func (s *stream) scanAll() {
	survey := &reconcilers.Survey{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.listeners {
		select {
		case l.due <- survey:
		default: // the last one is not over yet
		}
	}
}

// scan digests a stack.
func (s *stream) scan(ctx context.Context, of *stack) (map[string]string, error) {
	s.scanning.Lock()
	defer s.scanning.Unlock()
	return s.Reconciler.scan(ctx, of)
}

// close tells all who listen that nothing more is heard. Nobody does when the last one has left.
func (s *stream) close(ctx context.Context, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil { // another one may be open by now
		return
	}
	s.witness.end()
	s.stop = nil
	for l := range s.listeners {
		l.broken <- err
	}
	clear(s.listeners)
}

// tell hands an event to all stacks. What came or left a network is told with its owner.
func (s *stream) tell(ctx context.Context, known owners, message events.Message) {
	switch message.Type {
	case events.ContainerEventType:
		s.witness.forget(message.Actor.ID)
	case events.NetworkEventType:
		if id := message.Actor.Attributes["container"]; id != "" {
			s.witness.forget(id)
			o := s.ownerOf(ctx, known, id)
			message.Actor.Attributes[api.ProjectLabel], message.Actor.Attributes[api.ServiceLabel] = o.project, o.service
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.listeners {
		l.hear(message)
	}
}

// ownerOf finds whose a container is by a list: to inspect one waits until it has started. Of one that is gone its own events
// tell.
func (s *stream) ownerOf(ctx context.Context, known owners, id string) owner {
	if o, ok := known[id]; ok {
		return o
	}
	list, err := s.engine.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("label", api.ProjectLabel, api.OneoffLabel+"=False").Add("id", id),
	})
	if err != nil || len(list.Items) == 0 {
		return owner{}
	}
	if len(known) >= ownersKept {
		clear(known)
	}
	labels := list.Items[0].Labels
	o := owner{labels[api.ProjectLabel], labels[api.ServiceLabel]}
	known[id] = o
	return o
}
