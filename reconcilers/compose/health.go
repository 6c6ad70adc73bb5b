package compose

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

const (
	// stableTime is how long a container without a health check must run before it counts as ready.
	stableTime = 2 * time.Second
	// restartLimit is how often the engine may restart a new container before it counts as bad.
	restartLimit = 3
	// lookAgain is how often a container is inspected although no event came.
	lookAgain = 5 * time.Second
)

// watched is a container whose events are heard, from before it was started.
type watched struct {
	id     string
	events <-chan events.Message
	broken <-chan error
	stop   context.CancelFunc
}

// watch hears the container's events until stop. The stream may break; who waits inspects now and then as well.
func (r *Reconciler) watch(ctx context.Context, id string) (*watched, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	result := r.engine.Events(ctx, client.EventsListOptions{
		Filters: make(client.Filters).Add("type", string(events.ContainerEventType)).Add("container", id).
			Add("event", "die", "oom", "start", "stop", "destroy", "health_status", "pause", "unpause"),
	})
	select {
	case err := <-result.Err:
		cancel()
		return nil, fmt.Errorf("hear the engine's events: %w", err)
	default:
	}
	return &watched{id: id, events: result.Messages, broken: result.Err, stop: cancel}, nil
}

// await waits until the service is ready. A *fault says that it will not be; a cancelled context ends the wait at once.
func (r *Reconciler) await(ctx context.Context, st *serviceState, w *watched, progress reconcilers.Progress) error {
	begun := r.clock.Now()
	whole := st.spec.healthTimeout()
	limit := whole
	if p := st.record.Pending; p != nil {
		limit = max(limit-begun.Sub(p.Since), limit/4)
	}
	deadline := r.clock.After(limit)
	settled := r.clock.After(stableTime)
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	said, died := "", ""
	for stable := false; ; {
		v, err := r.look(ctx, st, w.id, stable)
		var bad *fault
		if errors.As(err, &bad) && bad.ends && died != "" {
			bad.message += ", exit code " + died
		}
		if err != nil {
			return err
		}
		if v.ready {
			return nil
		}
		if v.waitsFor != said {
			said = v.waitsFor
			progress.Say("%s", said)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return &fault{message: fmt.Sprintf("service %s is not %s within %s (healthTimeout)%s", st.name, v.lacks, whole, v.probe)}
		case <-settled:
			stable = true
		case e := <-w.events: // one that is started over and over runs at times, and never steadily
			stable, settled = false, r.clock.After(stableTime)
			if code := e.Actor.Attributes["exitCode"]; code != "" && code != "0" {
				died = code
			}
		case err := <-w.broken:
			r.log.Debug("the event stream broke, looking now and then", "service", st.name, "error", err)
			w.broken = nil
		case <-tick.C:
		}
	}
}

// verdict is what one look at a starting container says.
type verdict struct {
	ready    bool
	waitsFor string
	lacks    string
	probe    string // what its health check said last
}

// look inspects the container. stable says that it was watched for the time after which one without a health check counts
// as ready.
func (r *Reconciler) look(ctx context.Context, st *serviceState, id string, stable bool) (verdict, error) {
	result, err := r.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return verdict{}, fmt.Errorf("look whether service %s is ready: %w", st.name, err)
	}
	c, state := &result.Container, result.Container.State
	switch {
	case state.Status == container.StateExited && state.ExitCode == 0 && (st.oneShot || mayComplete(st.service)):
		return verdict{ready: true}, nil
	case !state.Running && !state.Restarting:
		message := fmt.Sprintf("service %s exited with %d%s", st.name, state.ExitCode, outOfMemory(state))
		if state.Error != "" {
			message += ": " + r.redact(state.Error)
		}
		return verdict{}, &fault{message: message}
	case c.RestartCount >= restartLimit && (st.record.Good != nil || !isHealthy(c)): // one that got well at last is taken when there is nothing else
		return verdict{}, &fault{message: fmt.Sprintf("service %s exited with %d%s, again and again", st.name, state.ExitCode, outOfMemory(state))}
	}
	switch {
	case st.oneShot:
		return verdict{waitsFor: "runs, must complete", lacks: "complete"}, nil
	case !hasHealthCheck(c):
		return verdict{ready: stable && state.Running && !state.Restarting, waitsFor: "runs", lacks: "running steadily"}, nil
	case isHealthy(c):
		return verdict{ready: true}, nil
	case isUnhealthy(c) && c.RestartCount > 0 && st.record.Good != nil && !st.known():
		// Nobody was there to answer its check.
		return verdict{}, &fault{message: fmt.Sprintf("service %s keeps restarting%s", st.name, outOfMemory(state)), ends: true}
	case isUnhealthy(c) && st.record.Good != nil && !st.known():
		// With an earlier version at hand the engine's word is enough; on a first start the whole time is given.
		return verdict{}, &fault{message: fmt.Sprintf("service %s is unhealthy%s", st.name, r.lastProbe(c))}
	}
	return verdict{waitsFor: "runs, waiting until it is healthy", lacks: "healthy", probe: r.lastProbe(c)}, nil
}

// outOfMemory says so when the kernel ended the container for the memory it took.
func outOfMemory(state *container.State) string {
	if state.OOMKilled {
		return " (out of memory: it needs a higher limit)"
	}
	return ""
}

func hasHealthCheck(c *container.InspectResponse) bool {
	return c.State.Health != nil && c.State.Health.Status != container.NoHealthcheck && c.State.Health.Status != ""
}

func isHealthy(c *container.InspectResponse) bool {
	return hasHealthCheck(c) && c.State.Health.Status == container.Healthy
}

// isUnhealthy says whether the container's last check found it so. The engine calls one unhealthy too that was paused, until the
// first check after that (moby, container/health.go, CloseMonitorChannel).
func isUnhealthy(c *container.InspectResponse) bool {
	if !hasHealthCheck(c) || c.State.Health.Status != container.Unhealthy {
		return false
	}
	checks := c.State.Health.Log
	return len(checks) > 0 && checks[len(checks)-1].ExitCode != 0
}

// lastProbe gives what the last health check printed, redacted, in one line.
func (r *Reconciler) lastProbe(c *container.InspectResponse) string {
	if c.State.Health == nil || len(c.State.Health.Log) == 0 {
		return ""
	}
	probe := c.State.Health.Log[len(c.State.Health.Log)-1]
	words := strings.Join(strings.Fields(r.redact(probe.Output)), " ") // before it is cut: half a secret is none to the redactor
	if len(words) > 200 {
		words = words[:200] + "..."
	}
	return strings.TrimSuffix(fmt.Sprintf(": its check exits with %d: %s", probe.ExitCode, words), ": ")
}

// monitor watches a container that is ready for as long as the service's policy says. One that ends, is started anew or gets
// unhealthy meanwhile does not work.
func (r *Reconciler) monitor(ctx context.Context, st *serviceState, w *watched) error {
	if st.policy.monitor <= 0 || st.oneShot || st.known() {
		return nil
	}
	over := r.clock.After(st.policy.monitor)
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	started := ""
	for {
		result, err := r.engine.ContainerInspect(ctx, w.id, client.ContainerInspectOptions{})
		if err != nil {
			return fmt.Errorf("watch service %s: %w", st.name, err)
		}
		c := &result.Container
		if started == "" {
			started = c.State.StartedAt
		}
		said := fmt.Sprintf(" within %s of being ready (monitor)", st.policy.monitor)
		switch {
		case c.State.Status == container.StateExited && c.State.ExitCode == 0 && mayComplete(st.service):
			return nil
		case !c.State.Running || c.State.Restarting || c.State.StartedAt != started:
			return &fault{message: fmt.Sprintf("service %s exited with %d%s%s", st.name, c.State.ExitCode, outOfMemory(c.State), said)}
		case isUnhealthy(c):
			return &fault{message: fmt.Sprintf("service %s got unhealthy%s%s", st.name, said, r.lastProbe(c))}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			return nil
		case <-w.events:
		case err := <-w.broken:
			r.log.Debug("the event stream broke, looking now and then", "service", st.name, "error", err)
			w.broken = nil
		case <-tick.C:
		}
	}
}
