package compose

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// Watch is reconcilers.Watcher: it wakes the part of a service when something happened to its container, and the shared
// part when a network or volume of the stack is gone. It wakes all parts once, as soon as events are heard.
func (r *Reconciler) Watch(ctx context.Context, t reconcilers.Target, wake func(part string)) error {
	s, err := r.stack(ctx, t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := r.engine.Events(ctx, client.EventsListOptions{
		Filters: make(client.Filters).
			Add("type", string(events.ContainerEventType), string(events.NetworkEventType), string(events.VolumeEventType)).
			Add("event", "die", "destroy", "oom", "pause", "unpause", "rename", "start", "update", "health_status", "connect", "disconnect"),
	})
	wake("")
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-stream.Err:
			if err == nil {
				err = errors.New("it ended")
			}
			return fmt.Errorf("the engine's event stream broke: %w", err)
		case message := <-stream.Messages:
			if part, ok := r.partOf(ctx, s, message); ok {
				wake(part)
			}
		}
	}
}

// partOf tells which part an event is about.
func (r *Reconciler) partOf(ctx context.Context, s *stack, message events.Message) (string, bool) {
	attributes := message.Actor.Attributes
	switch message.Type {
	case events.ContainerEventType:
		if attributes[api.ProjectLabel] != s.project || attributes[api.OneoffLabel] == "True" {
			return "", false
		}
		return s.part(attributes[api.ServiceLabel]), true
	case events.NetworkEventType:
		if message.Action == events.ActionDestroy {
			return SharedPart, s.ownsNetwork(attributes["name"])
		}
		if !s.ownsNetwork(attributes["name"]) {
			return "", false
		}
		c, err := r.engine.ContainerInspect(ctx, attributes["container"], client.ContainerInspectOptions{})
		if err != nil || c.Container.Config.Labels[api.ProjectLabel] != s.project {
			return "", false // gone: its own events tell
		}
		return s.part(c.Container.Config.Labels[api.ServiceLabel]), true
	case events.VolumeEventType:
		return SharedPart, message.Action == events.ActionDestroy && strings.HasPrefix(message.Actor.ID, s.project+"_")
	}
	return "", false
}

// part gives the part of a service, or all of them when the Compose file did not have it when Watch was called.
func (s *stack) part(service string) string {
	if _, ok := s.model.project.Services[service]; ok {
		return service
	}
	return ""
}

func (s *stack) ownsNetwork(name string) bool {
	for _, network := range s.model.project.Networks {
		if network.Name == name {
			return true
		}
	}
	return false
}
