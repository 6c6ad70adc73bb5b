package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

// happening is an event of a service's container, with the engine's own time.
type happening struct {
	project, service, id string
	action               string
	at                   time.Time
}

// engineLog collects what happens to containers.
type engineLog struct {
	mu    sync.Mutex
	all   []happening
	heard chan struct{}
	err   error // why nothing more is heard
}

// listen collects from now until ctx ends.
func (w *world) listen(ctx context.Context) *engineLog {
	l := &engineLog{heard: make(chan struct{})}
	filters := client.Filters{}.Add("type", string(events.ContainerEventType)).Add("event", "create", "start", "die", "destroy", "unpause", "rename")
	stream := w.engine.Events(ctx, client.EventsListOptions{Filters: filters})
	go func() {
		for {
			select {
			case m := <-stream.Messages:
				l.add(happening{
					project: m.Actor.Attributes["com.docker.compose.project"], service: m.Actor.Attributes["com.docker.compose.service"],
					id: m.Actor.ID, action: string(m.Action), at: time.Unix(0, m.TimeNano),
				})
			case err := <-stream.Err:
				l.end(err)
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return l
}

// end remembers why the stream ended, for those who wait.
func (l *engineLog) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	close(l.heard)
	l.heard = make(chan struct{})
}

func (l *engineLog) add(h happening) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, h)
	close(l.heard)
	l.heard = make(chan struct{})
}

// await gives the first event of a service's container after a time, within a minute.
func (l *engineLog) await(ctx context.Context, project, service, action string, after time.Time) (happening, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		l.mu.Lock()
		found, heard, err := l.find(project, service, action, after), l.heard, l.err
		l.mu.Unlock()
		if found != nil {
			return *found, nil
		}
		if err != nil {
			return happening{}, fmt.Errorf("the engine's events cannot be heard: %w", err)
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return happening{}, fmt.Errorf("no %s of service %s in project %s: %w", action, service, project, ctx.Err())
		}
	}
}

func (l *engineLog) find(project, service, action string, after time.Time) *happening {
	for i := range l.all {
		h := &l.all[i]
		if h.project == project && h.service == service && h.action == action && h.at.After(after) {
			return h
		}
	}
	return nil
}

// starts gives when each service of a project was started first.
func (l *engineLog) starts(project string) map[string]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := map[string]time.Time{}
	for _, h := range l.all {
		if _, known := first[h.service]; h.project == project && h.action == "start" && !known {
			first[h.service] = h.at
		}
	}
	return first
}
