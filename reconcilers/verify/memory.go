package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"dive-agent/reconcilers"
)

// result is what a check saw when it was last made.
type result struct {
	outcome
	at   time.Time
	took time.Duration
}

// memory is what is kept of a component's checks between two looks. It goes with the process: after a restart all checks
// are made once.
type memory struct {
	on      string            // what the results stand on: the revision, and the containers of the instance
	results map[string]result // by the check's name
	since   time.Time         // since when checks of severity fail fail on failingOn; zero: none does
	failing string            // what they failed on
}

// recall gives a copy of what is kept of a component.
func (r *Reconciler) recall(key string) memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.kept[key]
	m.results = maps.Clone(m.results)
	return m
}

// keep replaces what is kept of a component; what trouble it is in is kept by judge.
func (r *Reconciler) keep(key, on string, results map[string]result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.kept[key]
	m.on, m.results = on, results
	r.kept[key] = m
	close(r.looked)
	r.looked = make(chan struct{})
}

// due says whether a check is to be made in this look. One with a schedule is made when its turn has come; and when it was never
// made, failed, or when what it stands on changed.
func (m memory) due(c Check, schedule cron.Schedule, t reconcilers.Target, on string, now time.Time) bool {
	last, made := m.results[c.Name]
	return schedule == nil || !made || !last.passed || t.Fresh || t.Changed || m.on != on || !schedule.Next(last.at.UTC()).After(now)
}

// next is when a check is made again, by its schedule; zero: with each look, or a date that never comes.
func next(schedule cron.Schedule, last time.Time) time.Time {
	if schedule == nil {
		return time.Time{}
	}
	return schedule.Next(last.UTC())
}

var _ reconcilers.Watcher = (*Reconciler)(nil)

// Watch wakes the agent when the turn of a check has come. A failing check is looked at again by the agent's own waits.
func (r *Reconciler) Watch(ctx context.Context, t reconcilers.Target, wake func(part string)) error {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok {
		return fmt.Errorf("component %s carries a %T, not checks", t.Component.Name, t.Component.Spec)
	}
	told := time.Time{} // the last turn that the agent was woken for
	for {
		turn, looked := r.turn(spec, componentKey(t))
		var due <-chan time.Time
		if turn.After(told) {
			due = r.deps.Clock.After(turn.Sub(r.deps.Clock.Now()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-looked: // some component's checks were made: the turn may be another one
		case <-due:
			told = turn
			wake("")
		}
	}
}

// turn is the next time at which a check is to be made, zero when none is known; and a channel that is closed with the next
// look at any checks.
func (r *Reconciler) turn(spec *Spec, key string) (first time.Time, looked <-chan struct{}) {
	r.mu.Lock()
	looked = r.looked
	r.mu.Unlock()
	m := r.recall(key)
	for _, c := range spec.Checks {
		last, made := m.results[c.Name]
		if !made {
			continue
		}
		if t := next(spec.schedule(c), last.at); !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first, looked
}

// beneath tells apart what the checks stand on: the revision of the instance and the containers of its services.
func beneath(ctx context.Context, t reconcilers.Target) string {
	if t.Instance == nil || t.Instance.Graph == nil {
		return ""
	}
	var b strings.Builder
	b.WriteString(t.Instance.Digest)
	for _, service := range servicesOf(t) {
		id := "absent"
		if c, err := t.Services.Find(ctx, service); err == nil {
			id = c.ID + "@" + c.StartedAt.String()
		}
		fmt.Fprintf(&b, " %s=%s", service, id)
	}
	return b.String()
}

// servicesOf names the services of the target's instance.
func servicesOf(t reconcilers.Target) (names []string) {
	if t.Instance == nil || t.Instance.Graph == nil {
		return nil
	}
	for _, node := range t.Instance.Graph.Nodes {
		if node.Part != "" && !strings.HasPrefix(node.Part, "@") && !slices.Contains(names, node.Part) {
			names = append(names, node.Part)
		}
	}
	return names
}
