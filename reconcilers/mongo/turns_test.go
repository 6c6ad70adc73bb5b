package mongo_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// restarted gives the host's member its turn, runs another image on its volume, and waits until it is back.
func (s *site) restarted(image string, away *atomic.Int32) error {
	turn := reconcilers.Turn{Part: "mongodb", Changes: []reconcilers.Change{{Image: "mongod:6.0.27", Interrupts: true}}}
	roller, tells := s.r.(reconcilers.Roller), &progress{t: s.t}
	for ends := time.Now().Add(3 * time.Minute); ; {
		err := roller.Turn(s.t.Context(), s.target, turn, tells)
		var wait *reconcilers.WaitError
		if err == nil {
			break
		}
		if !errors.As(err, &wait) || time.Now().After(ends) {
			return err
		}
		if strings.HasPrefix(wait.For, "members of other hosts") { // 40 s, of which 2 are waited for
			s.clock.ahead += 5 * time.Second
		}
		<-time.After(max(wait.Again, 50*time.Millisecond))
	}
	if n := away.Add(1); n != 1 {
		return fmt.Errorf("%d members were let go at once", n)
	}
	service := s.mongod("rs0")
	service.Image, service.Volumes = image, map[string]string{"data-" + s.service: "/data/db"}
	s.all.lab.Stop(s.service)
	s.all.lab.Run(s.service, service)
	s.all.lab.Attach(s.all.wide, s.service, s.name())
	err := roller.Back(s.t.Context(), s.target, turn, tells)
	away.Add(-1)
	return err
}

// All hosts get another image at once: their agents take turns, the primary's last, and no write is lost.
func TestAgentsOfSeveralHostsTakeTurns(t *testing.T) {
	t.Parallel()
	all := onSites(t, "a", "b", "c")
	all.run(all.list...)
	all.settle(all.list...)
	w, term := all.write(), all.list[0].term()
	image := testbed.Image(t, testbed.Mongod6027)
	var away atomic.Int32
	ended := make(chan error)
	for _, s := range all.list {
		go func() { ended <- s.restarted(image, &away) }()
	}
	for range all.list {
		require.NoError(t, <-ended)
	}
	for _, o := range all.settle(all.list...) {
		require.Equal(t, "6.0.27", o.Outputs["version"].Text())
		require.NotContains(t, strings.Join(o.Facts.Notes, "\n"), "turn to be restarted", "it was not given back")
	}
	require.Equal(t, term+1, all.list[0].term(), "one step-down, and no election beside")
	require.Empty(t, w.lost(all.list[0].service))
}

// An agent that is killed in its turn keeps it: nobody else restarts a member until it is back and ends it.
func TestATurnOutlivesItsAgent(t *testing.T) {
	t.Parallel()
	all := onSites(t, "a", "b", "c")
	b, c := all.list[1], all.list[2]
	all.run(all.list...)
	all.settle(all.list...)
	turn := reconcilers.Turn{Part: "mongodb"}
	require.NoError(t, b.r.(reconcilers.Roller).Turn(t.Context(), b.target, turn, &progress{t: t}))
	var wait *reconcilers.WaitError
	refused := func() string {
		err := c.r.(reconcilers.Roller).Turn(t.Context(), c.target, turn, &progress{t: t})
		require.ErrorAs(t, err, &wait)
		return wait.For
	}
	const whose = "the restart of mongo-usa-b.example:27017 on host-b to be over, whose turn it is"
	require.Equal(t, whose, refused())
	_, plan := b.looks(b.r)
	require.Empty(t, plan.Changes, "its agent may be about to restart it")

	b.restart()
	c.clock.ahead += 24 * time.Hour
	require.Equal(t, whose, refused(), "no clock ends a turn")
	o, plan := c.looks(c.r)
	require.Empty(t, plan.Changes)
	require.Contains(t, strings.Join(o.Facts.Notes, "\n"), "mongo-usa-b.example:27017 on host-b has its turn to be restarted since")
	_, plan = b.looks(b.r)
	require.Len(t, plan.Changes, 1)
	require.Equal(t, "turn of mongo-usa-b.example:27017", plan.Changes[0].Address)
	all.settle(b)
	require.NoError(t, c.r.(reconcilers.Roller).Turn(t.Context(), c.target, turn, &progress{t: t}))

	// Taken out of the set, c's member has no turn any more.
	all.declare("a", "b")
	all.settle(all.list[:2]...)
	require.NoError(t, b.r.(reconcilers.Roller).Turn(t.Context(), b.target, turn, &progress{t: t}))
}
