package compose

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"reflect"
	"sync"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// witness keeps what inspect said of containers at rest, as long as the engine's events are heard and none is about them. It only
// answers in a survey: each event makes another one due, and the scan of each minute inspects all the same.
type witness struct {
	mu     sync.Mutex
	hears  bool
	events uint64 // heard so far
	seen   map[string]sighting
}

// sighting is what inspect said of a container, and a digest of all of it that somebody may change by hand, once that was asked for.
type sighting struct {
	*container.InspectResponse
	digest string
}

// begin lets it answer, end stops that: what is said of a container holds only while its events are heard.
func (w *witness) begin() { w.set(true) }
func (w *witness) end()   { w.set(false) }

func (w *witness) set(hears bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hears, w.seen = hears, map[string]sighting{}
	w.events++
}

// forget is told of each event of a container. What was asked before and is answered later is not kept then.
func (w *witness) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events++
	delete(w.seen, id)
}

// before gives a mark to keep an answer by, from before the question.
func (w *witness) before() (mark uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.events
}

func (w *witness) keep(mark uint64, c *container.InspectResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.hears || mark != w.events || !atRest(c) {
		delete(w.seen, c.ID)
		return
	}
	now := sighting{InspectResponse: owned(c)}
	if before, ok := w.seen[c.ID]; ok && sameMake(before.InspectResponse, c) {
		now.digest = before.digest
	}
	w.seen[c.ID] = now
}

// digest gives a digest of what record.live tells of a container, made anew only when that changed.
func (w *witness) digest(c *container.InspectResponse) (string, error) {
	w.mu.Lock()
	known, ok := w.seen[c.ID]
	w.mu.Unlock()
	same := ok && sameMake(known.InspectResponse, c)
	if same && known.digest != "" {
		return known.digest, nil
	}
	live, err := record{}.live(c)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Append(nil, live))
	w.mu.Lock()
	defer w.mu.Unlock()
	if now, ok := w.seen[c.ID]; ok && same && now.InspectResponse == known.InspectResponse {
		now.digest = string(sum[:])
		w.seen[c.ID] = now
	}
	return string(sum[:]), nil
}

// sameMake says whether nothing differs between two answers that record.live tells of.
func sameMake(a, b *container.InspectResponse) bool {
	return reflect.DeepEqual(a.Config, b.Config) && reflect.DeepEqual(a.HostConfig, b.HostConfig) && reflect.DeepEqual(a.Mounts, b.Mounts) &&
		reflect.DeepEqual(a.NetworkSettings.Networks, b.NetworkSettings.Networks)
}

// of gives what was seen of a container, when it still is as the list says; nil when it has to be asked for.
func (w *witness) of(item container.Summary) *container.InspectResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.seen[item.ID].InspectResponse
	if c == nil || string(c.State.Status) != string(item.State) || !sameNames(c, item) || !sameNetworks(c, item) {
		return nil
	}
	return owned(c)
}

// atRest says whether nothing is about to happen to a container by itself of which there would be no event.
func atRest(c *container.InspectResponse) bool {
	s := c.State
	switch {
	case s.Paused || s.Restarting || s.Dead || s.OOMKilled || c.NetworkSettings == nil:
		return false
	case s.Status == container.StateExited:
		return s.ExitCode == 0
	case s.Status != container.StateRunning:
		return false
	}
	return !hasHealthCheck(c) || s.Health.Status == container.Healthy
}

func sameNames(c *container.InspectResponse, item container.Summary) bool {
	for _, name := range item.Names {
		if name == c.Name {
			return true
		}
	}
	return false
}

func sameNetworks(c *container.InspectResponse, item container.Summary) bool {
	if item.NetworkSettings == nil || len(item.NetworkSettings.Networks) != len(c.NetworkSettings.Networks) {
		return false
	}
	for name, have := range item.NetworkSettings.Networks {
		known := c.NetworkSettings.Networks[name]
		if known == nil || have == nil || known.EndpointID != have.EndpointID || known.NetworkID != have.NetworkID {
			return false
		}
	}
	return true
}

// owned gives a copy whose endpoints may be changed (asDeclared).
func owned(c *container.InspectResponse) *container.InspectResponse {
	copied, settings := *c, *c.NetworkSettings
	settings.Networks = maps.Clone(settings.Networks)
	for name, endpoint := range settings.Networks {
		if endpoint != nil {
			one := *endpoint
			settings.Networks[name] = &one
		}
	}
	copied.NetworkSettings = &settings
	return &copied
}

// inspect gives a listed container as inspect tells it: in a survey, what it said last, where nothing has happened since.
func (r *Reconciler) inspect(ctx context.Context, item container.Summary) (*container.InspectResponse, error) {
	if reconcilers.InSurvey(ctx) {
		if c := r.witness.of(item); c != nil {
			return c, nil
		}
	}
	return r.inspectAnew(ctx, item)
}

// inspectAnew asks the engine for a listed container, whatever is known of it.
func (r *Reconciler) inspectAnew(ctx context.Context, item container.Summary) (*container.InspectResponse, error) {
	mark := r.witness.before()
	c, err := r.engine.ContainerInspect(ctx, item.ID, client.ContainerInspectOptions{})
	if err != nil {
		return nil, err
	}
	if c.Container.NetworkSettings != nil {
		r.witness.keep(mark, &c.Container)
	}
	return &c.Container, nil
}
