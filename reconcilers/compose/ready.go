package compose

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"dive-agent/reconcilers"
)

// notReady says what keeps a service from being ready although its plan may be empty.
func (r *Reconciler) notReady(ctx context.Context, st *serviceState) error {
	c := st.container
	if st.lacking != nil {
		return st.lacking
	}
	if err := cmp.Or(st.leftStopped(), st.flappingErr()); err != nil {
		return err
	}
	if st.foreign != "" {
		return st.nameTaken()
	}
	if c == nil {
		return nil
	}
	switch {
	case st.completed():
		return nil
	case c.State.Status == "removing":
		return &reconcilers.WaitError{For: "the engine to remove container " + st.wantName, Again: 300 * time.Millisecond}
	case c.State.Restarting:
		return fmt.Errorf("service %s keeps restarting, exit code %d%s%s", st.name, c.State.ExitCode, outOfMemory(c.State), r.lastWords(ctx, c.ID))
	case !c.State.Running || c.State.Paused:
		return nil // the plan starts it
	case st.oneShot:
		return &reconcilers.WaitError{For: "service " + st.name + " to complete", Again: 2 * time.Second}
	case c.State.Health == nil:
		return nil
	}
	switch {
	case isUnhealthy(c):
		return fmt.Errorf("service %s is unhealthy%s", st.name, r.lastProbe(c))
	case c.State.Health.Status == container.Starting, c.State.Health.Status == container.Unhealthy:
		return &reconcilers.WaitError{For: "service " + st.name + " to become healthy", Again: 2 * time.Second}
	}
	return nil
}

// nameTaken tells of a container of another owner that has the name of ours.
func (st *serviceState) nameTaken() error {
	return &reconcilers.BlockedError{
		Reason: "ContainerNameTaken", Message: fmt.Sprintf("container %s exists and belongs to nobody's Compose project", st.wantName),
		Do: "Rename or remove it, or give the service another container_name",
	}
}

// facts tells what runs, and of the image what the container has; the wanted one only where there is no container.
func (st *serviceState) facts() reconcilers.Facts {
	f := &reconcilers.ServiceFacts{Name: st.name, State: "missing", Image: st.service.Image}
	facts := reconcilers.Facts{Service: f, Summary: "missing"}
	if c := st.container; c != nil {
		f.State, f.Image, f.Digest, f.Restarts = string(c.State.Status), c.Config.Image, c.Image, c.RestartCount
		if c.State.Health != nil && c.State.Health.Status != container.NoHealthcheck {
			f.Health = string(c.State.Health.Status)
		}
		if at, err := time.Parse(time.RFC3339Nano, c.State.StartedAt); err == nil && at.Year() > 1 {
			f.Since = at
		}
		if c.State.Status == container.StateExited {
			f.ExitCode = c.State.ExitCode
		}
		st.record.Flaps.tell(f)
		facts.Summary = f.State
		if f.Health != "" {
			facts.Summary += ", " + f.Health
		}
		if st.completed() {
			facts.Summary = "completed"
		}
	}
	facts.Notes = append(facts.Notes, st.driftNotes()...)
	if st.refuses() {
		facts.Notes = append(facts.Notes, fmt.Sprintf("image %s now means %s, which did not become healthy; the service stays at %s",
			st.service.Image, shortImage(st.imageID), shortImage(st.container.Image)))
	}
	return facts
}

func shortImage(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}
