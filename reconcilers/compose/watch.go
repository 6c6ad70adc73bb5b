package compose

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/events"

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
	names := s.containerNames()
	l, leave := r.stream.join(func(message events.Message) {
		if part, ok := s.partOf(message, names); ok {
			wake(part)
		}
	})
	defer leave()
	wake("")
	var before map[string]string
	turn := r.turns(s.spec)
	for {
		select {
		case <-turn:
			wake(SharedPart)
			turn = r.turns(s.spec)
		case <-ctx.Done():
			return ctx.Err()
		case err := <-l.broken:
			return err
		case survey := <-l.due:
			now, err := r.stream.scan(survey.In(ctx), s)
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
	parts := map[string]hash.Hash{}
	add := func(part string, about ...any) {
		if parts[part] == nil {
			parts[part] = sha256.New()
		}
		_, _ = fmt.Fprint(parts[part], about...) // a hash takes all
	}
	list, err := r.allContainers(ctx)
	if err != nil {
		return nil, err
	}
	for _, item := range list {
		if item.Labels[api.ProjectLabel] != s.project || item.Labels[api.OneoffLabel] != "False" {
			continue
		}
		c, err := r.inspectAnew(ctx, item)
		if err != nil {
			continue // gone meanwhile: the next scan sees it
		}
		live, err := r.witness.digest(c)
		if err != nil {
			return nil, err
		}
		part := s.part(item.Labels[api.ServiceLabel])
		state := c.State
		replica := serviceState{stack: s, name: part, number: max(1, numberOf(item.Labels))}
		if flaps, _ := r.flapping.Load(replica.recordPath(part)); flaps == true {
			add(part, r.clock.Now().String()) // it may be well again, or to be started
		}
		add(part, item.ID, c.Name, state.Status, state.StartedAt, live)
		for name, endpoint := range c.NetworkSettings.Networks {
			add(part+" "+name, endpoint.NetworkID)
		}
	}
	if err := r.scanShared(ctx, s, add); err != nil {
		return nil, err
	}
	digests := map[string]string{}
	for part, sum := range parts {
		digests[part] = string(sum.Sum(nil))
	}
	return digests, nil
}

// scanShared digests networks and volumes.
func (r *Reconciler) scanShared(ctx context.Context, s *stack, add func(part string, about ...any)) error {
	networks, _, err := r.networkIDs(ctx)
	if err != nil {
		return err
	}
	for _, key := range sortedKeys(s.model.project.Networks) {
		name := s.model.project.Networks[key].Name
		add(SharedPart, name, networks[name])
	}
	volumes, err := r.allVolumes(ctx)
	if err != nil {
		return err
	}
	for _, key := range sortedKeys(s.model.project.Volumes) {
		name := s.model.project.Volumes[key].Name
		if v, ok := volumes[name]; ok {
			add(SharedPart, name, v.Labels[api.ConfigHashLabel], v.Labels[markLabel]) // when it was made goes on with its files before Engine 23
		}
	}
	return nil
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

// partOf tells which part an event is about. names are those that containers of the stack should have.
func (s *stack) partOf(message events.Message, names map[string]string) (string, bool) {
	attributes := message.Actor.Attributes
	switch message.Type {
	case events.ContainerEventType:
		if message.Action == events.ActionCreate { // its start, or the end of the one in whose place it is, tells
			return "", false
		}
		if attributes[api.ProjectLabel] != s.project || attributes[api.OneoffLabel] == "True" {
			service, ok := names[attributes["name"]]
			return service, ok
		}
		return s.part(attributes[api.ServiceLabel]), true
	case events.NetworkEventType:
		if message.Action == events.ActionDestroy || message.Action == events.ActionCreate {
			return SharedPart, s.ownsNetwork(attributes["name"])
		}
		return s.part(attributes[api.ServiceLabel]), attributes[api.ProjectLabel] == s.project
	case events.VolumeEventType:
		return SharedPart, s.ownsVolume(message.Actor.ID)
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

// containerNames gives the service of each name that a container of the stack should have: another one's may have it.
func (s *stack) containerNames() map[string]string {
	names := map[string]string{}
	for key, service := range s.model.project.Services {
		for number := 1; number <= service.GetScale(); number++ {
			names[s.containerName(key, number)] = key
		}
	}
	return names
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
