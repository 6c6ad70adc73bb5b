package compose

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// scanEvery is how long a change of which no event was heard may stay unseen.
const scanEvery = time.Minute

// Watch is reconcilers.Watcher: it wakes the part of a service when something happened to its container, and the shared
// part when a network or volume of the stack is gone or made by somebody. It wakes all parts once, as soon as events are heard, and
// compares the stack each minute with how it was: an engine drops events for who is slow.
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
			Add("event", "create", "die", "destroy", "oom", "pause", "unpause", "rename", "start", "update", "health_status", "connect", "disconnect"),
	})
	wake("")
	var before map[string]string
	next := r.clock.After(0)
	turn := r.turns(s.spec)
	for {
		select {
		case <-turn:
			wake(SharedPart)
			turn = r.turns(s.spec)
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
		case <-next:
			next = r.clock.After(scanEvery)
			now, err := r.scan(ctx, s)
			if err != nil { // the stream tells when the engine is away
				r.log.Debug("the stack could not be scanned", "project", s.project, "error", err)
				continue
			}
			for _, part := range changedParts(before, now) {
				wake(part)
			}
			before = now
		}
	}
}

// scan digests each part of the stack as it is now, by one list of containers and a look at each.
func (r *Reconciler) scan(ctx context.Context, s *stack) (map[string]string, error) {
	parts := map[string]string{}
	list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: projectFilter(s.project, api.OneoffLabel+"=False")})
	if err != nil {
		return nil, fmt.Errorf("list the project's containers: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b container.Summary) int { return strings.Compare(a.ID, b.ID) })
	for _, item := range list.Items {
		c, err := r.engine.ContainerInspect(ctx, item.ID, client.ContainerInspectOptions{})
		if err != nil {
			continue // gone meanwhile: the next scan sees it
		}
		live, err := record{}.live(&c.Container)
		if err != nil {
			return nil, err
		}
		part := s.part(item.Labels[api.ServiceLabel])
		state := c.Container.State
		replica := serviceState{stack: s, name: part, number: max(1, numberOf(item.Labels))}
		if flaps, _ := r.flapping.Load(replica.recordPath(part)); flaps == true {
			parts[part] += r.clock.Now().String() // it may be well again, or to be started
		}
		parts[part] += fmt.Sprint(item.ID, c.Container.Name, state.Status, state.StartedAt, live)
		for name, endpoint := range c.Container.NetworkSettings.Networks {
			parts[part+" "+name] = endpoint.NetworkID
		}
	}
	networks, _, err := r.networkIDs(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range sortedKeys(s.model.project.Networks) {
		name := s.model.project.Networks[key].Name
		parts[SharedPart] += name + networks[name]
	}
	volumes, err := r.engine.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	slices.SortFunc(volumes.Items, func(a, b volume.Volume) int { return strings.Compare(a.Name, b.Name) })
	for _, v := range volumes.Items {
		if s.ownsVolume(v.Name) {
			parts[SharedPart] += v.Name + v.Labels[api.ConfigHashLabel] // when it was made goes on with its files before Engine 23
		}
	}
	return parts, nil
}

// changedParts are the parts that differ between two scans; none of the first one.
func changedParts(before, now map[string]string) []string {
	if before == nil {
		return nil
	}
	changed := map[string]bool{}
	for _, both := range []map[string]string{before, now} {
		for key := range both {
			if before[key] != now[key] {
				part, _, _ := strings.Cut(key, " ")
				changed[part] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(changed))
}

// partOf tells which part an event is about.
func (r *Reconciler) partOf(ctx context.Context, s *stack, message events.Message) (string, bool) {
	attributes := message.Actor.Attributes
	switch message.Type {
	case events.ContainerEventType:
		if message.Action == events.ActionCreate { // its start, or the end of the one in whose place it is, tells
			return "", false
		}
		if attributes[api.ProjectLabel] != s.project || attributes[api.OneoffLabel] == "True" {
			return s.named(attributes["name"])
		}
		return s.part(attributes[api.ServiceLabel]), true
	case events.NetworkEventType:
		if message.Action == events.ActionDestroy || message.Action == events.ActionCreate {
			return SharedPart, s.ownsNetwork(attributes["name"])
		}
		return r.partOfContainer(ctx, s, attributes["container"])
	case events.VolumeEventType:
		return SharedPart, s.ownsVolume(message.Actor.ID)
	}
	return "", false
}

// partOfContainer finds the part that a container belongs to, by a list: to inspect one waits until it has started.
func (r *Reconciler) partOfContainer(ctx context.Context, s *stack, id string) (string, bool) {
	if id == "" {
		return "", false
	}
	list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: projectFilter(s.project, api.OneoffLabel+"=False").Add("id", id),
	})
	if err != nil || len(list.Items) == 0 {
		return "", false // gone: its own events tell
	}
	return s.part(list.Items[0].Labels[api.ServiceLabel]), true
}

// part gives the part of a service, or all of them when the Compose file did not have it when Watch was called.
func (s *stack) part(service string) string {
	if _, ok := s.model.project.Services[service]; ok {
		return service
	}
	return ""
}

// named finds the service one of whose containers should have the name, of a container that is not of the project.
func (s *stack) named(name string) (string, bool) {
	for _, key := range sortedKeys(s.model.project.Services) {
		service := s.model.project.Services[key]
		for number := 1; number <= service.GetScale(); number++ {
			if name == s.containerName(key, number) {
				return key, true
			}
		}
	}
	return "", false
}

// containerName is what Compose calls the container of a replica.
func (s *stack) containerName(service string, number int) string {
	if name := s.model.project.Services[service].ContainerName; name != "" {
		return name
	}
	return s.project + "-" + service + "-" + strconv.Itoa(number)
}

func (s *stack) ownsNetwork(name string) bool {
	for _, network := range s.model.project.Networks {
		if network.Name == name {
			return true
		}
	}
	return false
}

func (s *stack) ownsVolume(name string) bool {
	for _, volume := range s.model.project.Volumes {
		if volume.Name == name {
			return true
		}
	}
	return false
}
