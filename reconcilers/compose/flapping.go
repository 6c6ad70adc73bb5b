package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// A service that ends again and again is started ever later, by the engine or by the agent, is told once, and is given up after
// maxRestarts. The engine's own pauses double from 100 ms to a minute.
const (
	flapsFrom   = 3               // ends in a row from which on it is told
	pauseFirst  = 2 * time.Second // before the agent's start after that many; it doubles
	pauseLast   = 5 * time.Minute
	calmFirst   = 30 * time.Second // a service that ran for that long, or twice as long as it did between its ends, is well again
	calmLast    = 5 * time.Minute
	endsAtOnce  = 3 // that one look may count: what was before it, with nobody there, is long ago
	eventsAsked = 2 * time.Minute
)

// flapping counts the ends of a service's container that nobody asked for.
type flapping struct {
	Container string    `json:"container"`
	Restarts  int       `json:"restarts"`           // by the engine, when it was last looked at
	Finished  string    `json:"finished,omitempty"` // the last end after which it was found stopped
	Ends      int       `json:"ends,omitempty"`     // in a row
	First     time.Time `json:"first,omitzero"`
	Last      time.Time `json:"last,omitzero"`
	ExitCode  int       `json:"exitCode,omitempty"` // of the last one
	OOM       bool      `json:"oom,omitempty"`
	Said      string    `json:"said,omitempty"` // the same words as long as it ends in the same way
	Told      int       `json:"told,omitempty"` // ends when it was said
	GivenUp   bool      `json:"givenUp,omitempty"`
	Around    string    `json:"around,omitempty"` // what it depends on, as it was when it was given up
}

func (f *flapping) flaps() bool { return f != nil && f.Ends >= flapsFrom }

// calm is how long it must run to be well again.
func (f *flapping) calm() time.Duration {
	pause := 2 * f.Last.Sub(f.First) / time.Duration(max(1, f.Ends-1))
	return min(max(pause, calmFirst), calmLast)
}

// pause is how long the agent waits with its next start.
func (f *flapping) pause() time.Duration {
	if !f.flaps() {
		return 0
	}
	return min(pauseFirst<<min(f.Ends-flapsFrom, 10), pauseLast)
}

// countEnds takes up what happened to the container since it was last looked at.
func (r *Reconciler) countEnds(ctx context.Context, st *serviceState) error {
	c := st.container
	if c == nil || len(st.differs) > 0 || st.record.Pending != nil || c.State.Status == "removing" {
		return nil
	}
	before := flapping{}
	if st.record.Flaps != nil {
		before = *st.record.Flaps
	}
	f := before
	if f.Container != c.ID {
		f = flapping{Container: c.ID, Restarts: c.RestartCount}
	}
	if err := r.count(ctx, st, &f); err != nil {
		return err
	}
	st.record.Flaps = &f
	r.flapping.Store(st.recordPath(st.name), f.flaps() && !f.GivenUp)
	if f == before || st.record.Container != c.ID && f.Ends == 0 {
		return nil
	}
	return st.record.write(st.recordPath(st.name))
}

func (r *Reconciler) count(ctx context.Context, st *serviceState, f *flapping) error {
	c, now := st.container, r.clock.Now()
	runs := c.State.Running && !c.State.Restarting
	switch {
	case f.GivenUp:
		around, err := r.around(ctx, st)
		if err != nil {
			return err
		}
		if !runs && !c.State.Restarting && c.State.FinishedAt == f.Finished && around == f.Around && !st.target.Retry {
			return nil
		}
		*f = flapping{Container: c.ID, Restarts: c.RestartCount, Finished: c.State.FinishedAt} // somebody started it, or what it needs was
	case st.target.Retry && f.Ends > 0:
		*f = flapping{Container: c.ID, Restarts: c.RestartCount, Finished: c.State.FinishedAt}
	case c.State.Status == container.StateExited || c.State.Status == container.StateDead:
		if f.Finished != c.State.FinishedAt && !st.completed() && st.stoppedByHand() == "" {
			if _, _, byHand := r.lastEnd(ctx, c.ID, c.State.FinishedAt); !byHand {
				f.end(1, now, c.State.ExitCode, c.State.OOMKilled)
			}
		}
		f.Finished, f.Restarts = c.State.FinishedAt, 0 // a start by the agent begins the engine's count anew
	case c.RestartCount < f.Restarts:
		*f = flapping{Container: c.ID, Restarts: c.RestartCount}
	case c.RestartCount > f.Restarts:
		code, oom := c.State.ExitCode, c.State.OOMKilled
		if runs {
			code, oom, _ = r.lastEnd(ctx, c.ID, c.State.StartedAt)
		} else if !oom { // the engine may hear of it after the end
			_, oom, _ = r.lastEnd(ctx, c.ID, c.State.FinishedAt)
		}
		f.end(min(c.RestartCount-f.Restarts, endsAtOnce), now, code, oom)
		f.Restarts = c.RestartCount
	case runs && f.Ends > 0:
		if at, err := time.Parse(time.RFC3339Nano, c.State.StartedAt); err == nil && now.Sub(at) > f.calm() {
			*f = flapping{Container: c.ID, Restarts: c.RestartCount, Finished: f.Finished}
		}
	}
	return r.tellFlapping(ctx, st, f)
}

// end counts ends.
func (f *flapping) end(ends int, now time.Time, code int, oom bool) {
	if f.Ends == 0 {
		f.First = now.UTC()
	}
	if code != f.ExitCode || oom != f.OOM {
		f.Said = ""
	}
	f.Ends, f.Last, f.ExitCode, f.OOM = f.Ends+ends, now.UTC(), code, oom
}

// tellFlapping finds the words for a service that flaps, once for each way to end, and gives it up where nothing is to be stopped.
func (r *Reconciler) tellFlapping(ctx context.Context, st *serviceState, f *flapping) error {
	if f.flaps() && f.Said == "" {
		f.Told = f.Ends
		f.Said = fmt.Sprintf("service %s keeps restarting, exit code %d%s, %d times in %s%s", st.name, f.ExitCode,
			outOfMemory(&container.State{OOMKilled: f.OOM}), f.Ends, max(f.Last.Sub(f.First), time.Second).Round(time.Second), r.lastWords(ctx, f.Container))
	}
	if state := st.container.State; !f.GivenUp && st.tooMany(f) && !state.Running && !state.Restarting {
		return r.giveUp(ctx, st, f)
	}
	return nil
}

func (r *Reconciler) giveUp(ctx context.Context, st *serviceState, f *flapping) (err error) {
	f.GivenUp = true
	f.Around, err = r.around(ctx, st)
	return err
}

// tooMany says whether the service ended as often as the manifest allows.
func (st *serviceState) tooMany(f *flapping) bool {
	limit := st.spec.MaxRestarts
	if own := st.spec.Services[st.name].MaxRestarts; own != nil {
		limit = *own
	}
	return f != nil && limit > 0 && f.Ends >= max(limit, flapsFrom)
}

// givesUp says whether the container is to be stopped for good.
func (st *serviceState) givesUp() bool {
	f, c := st.record.Flaps, st.container
	return c != nil && f != nil && f.Container == c.ID && !f.GivenUp && st.tooMany(f) && (c.State.Running || c.State.Restarting)
}

// pausesUntil is when the agent starts a container again that ended; the zero time: at once.
func (st *serviceState) pausesUntil() time.Time {
	f := st.record.Flaps
	if f == nil || st.container == nil || f.Container != st.container.ID || f.pause() == 0 {
		return time.Time{}
	}
	return f.Last.Add(f.pause())
}

// rests says whether a container that does not run is not to be started now.
func (st *serviceState) rests(now time.Time) bool {
	f := st.record.Flaps
	return f != nil && f.GivenUp || now.Before(st.pausesUntil())
}

// flappingErr is what keeps a service that flaps from being ready.
func (st *serviceState) flappingErr() error {
	f, c := st.record.Flaps, st.container
	if c == nil || f == nil || f.Container != c.ID || !f.flaps() || st.completed() || len(st.differs) > 0 {
		return nil
	}
	if !f.GivenUp {
		return errors.New(f.Said)
	}
	return &reconcilers.BlockedError{
		Reason:  "KeepsRestarting",
		Message: fmt.Sprintf("%s; it was given up after %d (maxRestarts)", f.Said, f.Ends),
		Do: fmt.Sprintf("Correct it and merge, or start it again: docker start %s, or dive-agent sync %s --retry",
			strings.TrimPrefix(c.Name, "/"), st.target.Instance.Name),
	}
}

// stopForGood carries out that a service is given up.
func (r *Reconciler) stopForGood(ctx context.Context, st *serviceState) error {
	ctx, cancel := begun(ctx, mutationLimit)
	defer cancel()
	if _, err := r.engine.ContainerStop(ctx, st.container.ID, client.ContainerStopOptions{}); err != nil {
		return fmt.Errorf("stop container %s, which keeps restarting: %w", st.wantName, err)
	}
	result, err := r.engine.ContainerInspect(ctx, st.container.ID, client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("inspect container %s: %w", st.wantName, err)
	}
	st.container, st.record.Flaps.Finished = &result.Container, result.Container.State.FinishedAt
	if err := r.giveUp(ctx, st, st.record.Flaps); err != nil {
		return err
	}
	if err := st.record.write(st.recordPath(st.name)); err != nil {
		return err
	}
	return st.flappingErr()
}

// around tells the containers that the service depends on, and when they were started: where one is another than when the
// service was given up, it is worth another try.
func (r *Reconciler) around(ctx context.Context, st *serviceState) (string, error) {
	var all []string
	for _, name := range sortedKeys(st.service.DependsOn) {
		list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{
			Filters: projectFilter(st.project, api.ServiceLabel+"="+name, api.OneoffLabel+"=False"), // those that run
		})
		if err != nil {
			return "", fmt.Errorf("list containers of service %s: %w", name, err)
		}
		for _, item := range list.Items {
			if c, err := r.engine.ContainerInspect(ctx, item.ID, client.ContainerInspectOptions{}); err == nil {
				all = append(all, item.ID[:12]+" "+c.Container.State.StartedAt)
			}
		}
	}
	return strings.Join(all, ", "), nil
}

// lastEnd asks the engine's memory of events how a container ended last before a time of the engine's, and whether somebody
// told it to.
func (r *Reconciler) lastEnd(ctx context.Context, id, before string) (code int, oom, byHand bool) {
	until, err := time.Parse(time.RFC3339Nano, before)
	if err != nil {
		return 0, false, false
	}
	until = until.Add(time.Second / 10) // the event follows
	ctx, cancel := context.WithTimeout(ctx, tailLimit)
	defer cancel()
	at := func(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
	result := r.engine.Events(ctx, client.EventsListOptions{
		Since: at(until.Add(-eventsAsked)), Until: at(until),
		Filters: make(client.Filters).Add("type", string(events.ContainerEventType)).Add("container", id).Add("event", "start", "die", "oom", "kill"),
	})
	killed, told, ended := false, false, false // since its last start
	for {
		select {
		case message := <-result.Messages:
			switch message.Action {
			case events.ActionStart:
				killed, told, ended = false, false, false
			case events.ActionOOM:
				killed, oom = true, oom || ended
			case events.ActionKill:
				told = true
			case events.ActionDie:
				code, _ = strconv.Atoi(message.Actor.Attributes["exitCode"])
				oom, byHand, ended = killed, told, true
			}
		case err := <-result.Err:
			if err != nil && !errors.Is(err, io.EOF) {
				r.log.Debug("the engine does not tell how a container ended", "container", id[:12], "error", err)
			}
			return code, oom, byHand
		case <-ctx.Done():
			return code, oom, byHand
		}
	}
}

// stillFlaps is the end of a start of a service that flaps: until it has run steadily it is told with the same words.
func (st *serviceState) stillFlaps(err error) error {
	var bad *fault
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	if flaps := st.flappingErr(); flaps != nil {
		return flaps
	}
	return err
}

// tell makes what is told of a service that flaps the same from look to look.
func (f *flapping) tell(facts *reconcilers.ServiceFacts) {
	if !f.flaps() {
		return
	}
	facts.Restarts, facts.Since, facts.Health = f.Told, f.First, ""
	facts.State, facts.ExitCode = "restarting", f.ExitCode
	if f.GivenUp {
		facts.State = "exited"
	}
}
