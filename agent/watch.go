package agent

import (
	"context"
	"sync"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// watch keeps the components' live events waking the worker, as long as the instance stays what it is.
func (w *worker) watch(p *pass) {
	if w.watched == p.instance.Digest {
		return
	}
	w.watchNothing()
	ctx, cancel := context.WithCancel(w.lifetime)
	var all sync.WaitGroup
	for _, component := range p.instance.Components {
		watcher, ok := w.Reconcilers[component.Kind].(reconcilers.Watcher)
		if !ok {
			continue
		}
		dir, err := p.places.component(component.Name)
		if err != nil {
			w.log.Warn("cannot watch a component", "component", component.Name, "error", err)
			continue
		}
		target := p.places.target(p.fleet, p.instance, component, p.scope)
		target.Dir, target.Services, target.Log = dir, p.services, w.log.With("component", component.Name)
		all.Go(func() { w.keepWatching(ctx, watcher, target) })
	}
	w.watched = p.instance.Digest
	w.watches = func() { cancel(); all.Wait() }
}

func (w *worker) watchNothing() {
	if w.watches != nil {
		w.watches()
	}
	w.watches, w.watched = nil, ""
}

// keepWatching watches until ctx ends; a broken stream is opened again with backoff, and a round looks for what was
// missed meanwhile.
func (w *worker) keepWatching(ctx context.Context, watcher reconcilers.Watcher, target reconcilers.Target) {
	pause := backoff{random: w.Random}
	for {
		opened := w.Clock.Now()
		err := watcher.Watch(ctx, target, func(part string) {
			id := ""
			if part != "" {
				id = desired.NodeID(target.Component.Name, part)
			}
			w.rouseNode(id)
		})
		if ctx.Err() != nil {
			return
		}
		if w.Clock.Now().Sub(opened) > time.Minute {
			pause.reset()
		}
		if err != nil {
			target.Log.Warn("the stream of live events ended", "error", w.Redactor.String(err.Error()))
		}
		select {
		case <-ctx.Done():
			return
		case <-w.Clock.After(min(pause.next(), 30*time.Second)):
		}
		w.rouse("event")
	}
}
