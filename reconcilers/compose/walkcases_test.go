package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// cases are faults with all that follows on them. Each begins and ends with a stack that is as declared.
func (s *walk) cases() map[string]func() {
	return map[string]func(){
		"a tag moves to what does not work": s.badTag,
		"drift that is left so":             s.leftDrift,
		"a service that keeps ending":       s.keepsEnding,
		"a profile goes and comes":          s.switchProfile,
	}
}

// meanwhile is a pass, one that is cut off, or none.
func (s *walk) meanwhile() {
	s.t.Helper()
	switch s.random.IntN(3) {
	case 0:
		s.pass(s.t.Context())
	case 1:
		s.killedPass()
	}
}

// lasting are the services that are no jobs.
func (s *walk) lasting() []string {
	return slices.DeleteFunc(s.declared.order(), func(name string) bool { return s.declared.Services[name].Job })
}

// badTag gives a tag an image that cannot be started: its services stay at the one before, whatever is done to them, until
// the tag moves on.
func (s *walk) badTag() {
	s.t.Helper()
	s.calm()
	at := 1 + s.random.IntN(len(s.images)-1)
	for _, service := range s.declared.Services { // a job that does not work is run again and again, and not all others are put back
		if service.Image == at && (service.Job || service.OnFailure == onFailurePause || service.OnFailure == onFailureContinue) {
			return
		}
	}
	before, err := s.engine.ImageInspect(s.t.Context(), s.images[at])
	require.NoError(s.t, err)
	s.held[at] = before.ID
	s.tagged(at, `ENTRYPOINT ["/no/such/program"]`)
	s.meanwhile()
	for _, name := range s.lasting() {
		if s.declared.Services[name].Image == at && s.random.IntN(2) == 0 {
			s.hurt(name)
		}
	}
	s.meanwhile()
	s.calm()
	delete(s.held, at)
	s.moved++
	s.tagged(at, fmt.Sprintf("ENV TAG=moved%d", s.moved))
	s.meanwhile()
	s.calm()
}

// tagged gives a tag another image.
func (s *walk) tagged(at int, change string) {
	s.t.Helper()
	s.t.Logf("  %s: %s", s.images[at], change)
	s.calmed = false
	s.commit(fmt.Sprint(at), change)
	for name, service := range s.declared.Services {
		if service.Image == at {
			s.touched[name] = true
		}
	}
}

// hurt ends a service's container in one of several ways.
func (s *walk) hurt(name string) {
	s.t.Helper()
	c := s.containerOf(name)
	if c == nil {
		return
	}
	s.touched[name], s.calmed = true, false
	ctx := s.t.Context()
	var err error
	switch s.random.IntN(3) {
	case 0:
		s.t.Logf("  %s is killed", name)
		_, err = s.engine.ContainerKill(ctx, c.ID, client.ContainerKillOptions{Signal: "KILL"})
	case 1:
		s.t.Logf("  %s is removed", name)
		err = s.removeByHand(ctx, c)
	default:
		s.t.Logf("  %s is stopped", name)
		_, err = s.engine.ContainerStop(ctx, c.ID, client.ContainerStopOptions{})
	}
	if err != nil {
		s.t.Logf("  %v", err) // of one that is not running
	}
}

// leftDrift changes a container by hand, of a service where that is reported or ignored, until it is to be corrected.
func (s *walk) leftDrift() {
	s.t.Helper()
	s.calm()
	name, mode := s.anyOf(s.lasting()), s.anyOf([]string{driftReport, driftIgnore})
	s.spec.Services = map[string]Settings{name: {Drift: mode}}
	c := s.containerOf(name)
	s.t.Logf("  of service %s, drift: %s", name, mode)
	s.touched[name], s.calmed = true, false
	_, err := s.engine.ContainerUpdate(s.t.Context(), c.ID, client.ContainerUpdateOptions{
		Resources: &container.Resources{Memory: 200 << 20, MemorySwap: 400 << 20},
	})
	require.NoError(s.t, err)
	s.pass(s.t.Context())
	s.meanwhile()
	s.pass(s.t.Context())
	now, err := s.engine.ContainerInspect(s.t.Context(), c.ID, client.ContainerInspectOptions{})
	require.NoError(s.t, err)
	require.EqualValues(s.t, 200<<20, now.Container.HostConfig.Memory, "it is left so")
	o, err := s.r.Observe(s.t.Context(), s.targetOf(name))
	require.NoError(s.t, err)
	told := strings.Contains(strings.Join(o.Facts.Notes, "\n"), "memory limit 200 MiB instead of")
	require.Equal(s.t, mode == driftReport, told, "%v", o.Facts.Notes)
	s.spec.Services = nil
	s.meanwhile()
	s.calm()
}

// keepsEnding has a service end by itself until it is given up, and somebody start it again.
func (s *walk) keepsEnding() {
	s.t.Helper()
	s.calm()
	name, most := s.anyOf(s.lasting()), flapsFrom
	s.t.Logf("  service %s", name)
	s.spec.Services = map[string]Settings{name: {MaxRestarts: &most}}
	s.touched[name], s.ending, s.calmed = true, name, false
	ctx, cancel := context.WithTimeout(s.t.Context(), calmTime)
	defer cancel()
	var blocked *reconcilers.BlockedError
	c := s.containerOf(name)
	for blocked == nil {
		require.NoError(s.t, ctx.Err(), "service %s is not given up", name)
		s.endItself(ctx, c.ID)
		if s.random.IntN(4) == 0 {
			s.killedPass()
		}
		if err := s.pass(ctx)[name].err; errors.As(err, &blocked) {
			require.Equal(s.t, "KeepsRestarting", blocked.Reason)
		}
	}
	s.meanwhile()
	now, err := s.engine.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
	require.NoError(s.t, err)
	require.Equal(s.t, container.StateExited, now.Container.State.Status)
	_, err = s.engine.ContainerStart(ctx, c.ID, client.ContainerStartOptions{})
	require.NoError(s.t, err)
	s.spec.Services = nil
	s.meanwhile()
	s.calm()
	s.ending = ""
}

// switchProfile turns a service off by its profile, which leaves its containers alone, and on again, which does not make them anew.
func (s *walk) switchProfile() {
	s.t.Helper()
	s.calm()
	name := s.anyOf(s.declared.order())
	s.t.Logf("  of service %s", name)
	set := func(extra, off bool) {
		next := s.declared.clone()
		for other, service := range next.Services {
			if other == name {
				service.Extra, service.Off = extra, off
			}
			delete(service.Depends, name) // it could not be left out else
			next.Services[other] = service
		}
		s.spec.Profiles = nil
		if extra && !off {
			s.spec.Profiles = []desired.Expr{desired.Literal("extra")}
		}
		s.declare(next)
		s.meanwhile()
		s.calm()
	}
	before := s.lives()[name]
	for _, is := range []struct{ extra, off bool }{{true, false}, {true, true}, {true, false}, {false, false}} {
		set(is.extra, is.off)
		require.Equal(s.t, before, s.lives()[name], "profile %t, off %t", is.extra, is.off)
	}
}

// endItself kills what a container runs from within it, of which the engine is told nothing. One that does not run is left.
func (s *walk) endItself(ctx context.Context, id string) {
	s.t.Helper()
	before, err := s.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	require.NoError(s.t, err)
	if !serving(before.Container) {
		return
	}
	const all = `for f in /proc/[0-9]*/stat; do read -r pid name state parent rest <$f; [ "$parent" != 1 ] || kill -9 $pid; done`
	made, err := s.engine.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: []string{"bash", "-c", all}})
	if err == nil {
		_, err = s.engine.ExecStart(ctx, made.ID, client.ExecStartOptions{Detach: true})
	}
	require.NoError(s.t, err)
	s.eventually("it ended", func() bool {
		now, err := s.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		require.NoError(s.t, err)
		return !serving(now.Container) || now.Container.State.StartedAt != before.Container.State.StartedAt
	})
}
