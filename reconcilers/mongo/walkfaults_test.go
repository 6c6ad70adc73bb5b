package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
)

// outage is a fault that lasts.
type outage struct {
	service string
	undo    func()
	until   int // the step before which it ends
}

// breaks breaks a service in a way that is drawn, unless it is broken.
func (s *walk) breaks(service string, until int) {
	s.t.Helper()
	if slices.ContainsFunc(s.outages, func(o outage) bool { return o.service == service }) {
		return
	}
	names := []string{"kill", "stop", "freeze", "cut off"}
	ways := []struct{ do, undo func(string) }{
		{s.lab.Kill, s.lab.Start},
		{s.lab.Stop, s.lab.Start},
		{s.lab.Pause, s.lab.Unpause},
		{s.lab.Disconnect, s.lab.Connect},
	}
	i := s.random.IntN(len(ways))
	s.t.Logf("  %s %s", names[i], service)
	s.done[names[i]]++
	ways[i].do(service)
	s.outages = append(s.outages, outage{service, func() { ways[i].undo(service) }, until})
	s.calmed = false
}

// fault breaks one member. Where the majority lives on, a primary is there soon. Without chaining that is not sure: nobody
// copies from anybody but the primary, and one that may become it cannot fetch the last write from one that may not.
func (s *walk) fault(step int) {
	if s.random.IntN(2) == 0 {
		s.calm()
	}
	victim, until := s.services[s.random.IntN(len(s.services))], step+1
	if s.random.IntN(4) == 0 {
		until += 1 + s.random.IntN(2)
	}
	sure := s.calmed && s.config.survives(victim) && s.config.chaining
	s.breaks(victim, until)
	if sure {
		s.findsPrimary(victim)
	}
	s.passes()
}

// findsPrimary waits until the members that live on have a primary.
func (s *walk) findsPrimary(away ...string) {
	s.t.Helper()
	limit, began := primaryTime, time.Now()
	if rest := standsAgain - time.Since(s.stepped); rest > 0 {
		limit += rest
	}
	s.eventually(limit, "a primary where a majority lives on", func() error {
		at, err := s.writable()
		if err == nil && slices.Contains(away, at) {
			err = fmt.Errorf("%s still takes itself for it", at)
		}
		return err
	})
	s.longest = max(s.longest, time.Since(began))
}

// faultAmidChanges breaks a member after the first change of a pass.
func (s *walk) faultAmidChanges(step int) {
	s.anyManifest()
	victim := s.services[s.random.IntN(len(s.services))]
	s.amid = func() { s.breaks(victim, step+1) }
	s.passes()
	s.amid = nil
}

// killAll kills all members at once and starts them in another order: most of them get another's address.
func (s *walk) killAll() {
	s.mend(-1)
	s.calmed = false
	for _, service := range s.services {
		s.lab.Kill(service)
	}
	for _, i := range s.random.Perm(len(s.services)) {
		s.lab.Start(s.services[i])
	}
	s.accepting(s.services...)
	s.passes()
	s.calm()
}

// wipe empties the volume of a member while the others have a majority, and all that was acknowledged.
func (s *walk) wipe() {
	s.calm()
	victim := s.secondary()
	if victim == "" || !s.config.survives(victim) {
		return
	}
	for _, service := range s.config.electable {
		if service != victim {
			s.catchesUp(service)
		}
	}
	s.t.Logf("  %s is wiped", victim)
	s.keepJournal(victim)
	s.runMember(victim)
	s.passes()
	s.calm() // its vote counts before it has the data: nothing else may fail before
}

// split leaves one member with the agent, and moves the others, which have a majority, to where it does not reach them.
func (s *walk) split() {
	s.calm()
	here := s.config.services[s.random.IntN(len(s.config.services))]
	if !s.config.survives(here) || !s.config.chaining {
		return
	}
	there := slices.DeleteFunc(slices.Clone(s.services), func(service string) bool { return service == here })
	s.t.Logf("  %v are beyond reach", there)
	before := s.config
	s.lab.Part(there...)
	s.outages = append(s.outages, outage{here, s.lab.Reunite, 0})
	s.spec.Settings.HeartbeatIntervalMillis += 5
	s.passes()           // the primary does not know at first that it is none any more
	s.findsPrimary(here) // their connections among themselves are gone too: a heartbeat's timeout, ten seconds, comes first
	if s.config.hasData(here) {
		s.lostMajority()
	}
	now, _, err := s.readConfig() // beside an arbiter it is not committed before the other member with data is back
	require.NoError(s.t, err)
	require.Equal(s.t, before.version, now.version, "a minority changes nothing")
	s.mend(-1)
	s.passes()
}

// loseMajority kills as many members as it takes.
func (s *walk) loseMajority() {
	s.calm()
	before := s.config
	var killed []string
	for _, i := range s.random.Perm(len(s.config.services)) {
		if s.config.majority(killed...) {
			victim := s.config.services[i]
			killed = append(killed, victim)
			s.lab.Kill(victim)
			s.outages = append(s.outages, outage{victim, func() { s.lab.Start(victim) }, 0})
		}
	}
	s.t.Logf("  %v are killed", killed)
	s.calmed = false
	if slices.ContainsFunc(before.services, func(service string) bool { return before.hasData(service) && !slices.Contains(killed, service) }) {
		s.lostMajority()
	}
	s.mend(-1)
	s.calm()
	require.Equal(s.t, before.version, s.config.version, "what is blocked changes nothing")
}

// lostMajority looks, with a clock that runs fast, until the agent says that the majority is lost. It plans nothing then. A
// primary that reaches one of two voters was seen to stay one for a minute and more (6.0.5, right after another member had
// lost its vote): then it is enough that the agent says whom it does not reach.
func (s *walk) lostMajority() {
	s.t.Helper()
	clock, began := &shiftedClock{}, time.Now()
	r := mongo.New(reconcilers.Deps{Clock: clock, Rand: deps().Rand})
	defer func() { require.NoError(s.t, r.(io.Closer).Close()) }()
	s.eventually(time.Minute, "an agent that tells of a lost majority", func() error {
		ctx, cancel := context.WithTimeout(s.t.Context(), walkPass)
		defer cancel()
		o, err := r.Observe(ctx, s.target)
		clock.ahead += time.Minute
		var blocked *reconcilers.BlockedError
		if err == nil && time.Since(began) > 40*time.Second && o.Facts.Set != nil && o.Err != nil && strings.Contains(o.Err.Error(), "do not reach") {
			s.t.Logf("  a primary stays without a majority: %v", o.Err)
			return nil
		}
		if err != nil || !errors.As(o.Err, &blocked) {
			return fmt.Errorf("not blocked: %w", errors.Join(err, o.Err))
		}
		s.t.Logf("  %v", blocked)
		require.Equal(s.t, "LostMajority", blocked.Reason)
		plan, err := r.Plan(s.target, o)
		require.NoError(s.t, err)
		require.Empty(s.t, plan.Changes)
		return nil
	})
}

// logsIn tries a login at the primary.
func (s *walk) logsIn(user, password string) error {
	s.t.Helper()
	c, err := s.lab.Where(s.t.Context(), s.config.primary)
	require.NoError(s.t, err)
	return s.tryAt(c.Addr().String(), options.Credential{AuthSource: "admin", Username: user, Password: password}, "admin",
		bson.D{{Key: "connectionStatus", Value: 1}})
}
