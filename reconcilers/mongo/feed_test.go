package mongo_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

// A secondary from which another one copies lets that one go to the primary before it is restarted: else all majority
// writers wait until it has found another source.
func TestMembersLetGoOfASourceThatIsRestarted(t *testing.T) {
	t.Parallel()
	for _, image := range []testbed.ImageName{testbed.Mongod442, testbed.Mongod605} {
		t.Run(string(image), func(t *testing.T) {
			s := plainSet(t, three...)
			s.spec.Settings = &mongo.Settings{ElectionTimeoutMillis: 10000, HeartbeatIntervalMillis: 500}
			for _, name := range three {
				s.lab.Run(name, s.mongodOf(image))
			}
			r := reconciler(t)
			primary := primaryOf(t, s.settle(r))
			goes, stays := beside(primary)[0], beside(primary)[1]
			w := s.write()
			s.feeds(goes, primary)
			s.feeds(stays, goes)
			turn := reconcilers.Turn{Part: goes, Others: three}
			member := s.admin(stays)
			w.stall()

			testbed.Eventually(t, time.Minute, "a turn for "+goes, func() error { return s.turn(r, turn) })
			require.Equal(t, primary+":27017", s.source(member))
			t.Logf("the turn: longest wait %s", w.stall())
			s.lab.Stop(goes)
			t.Logf("the stop: longest wait %s", w.stall())
			require.Equal(t, primary+":27017", s.source(member), "it looked for no other")
			s.lab.Start(goes)
			require.NoError(t, r.(reconcilers.Roller).Back(t.Context(), s.target, turn, &progress{t: t}))
			t.Logf("the return: longest wait %s", w.stall())
			require.Empty(t, w.lost(stays))
		})
	}
}

// source is from where a member copies; empty: from nowhere.
func (s *set) source(member *driver.Client) string {
	s.t.Helper()
	var status struct {
		Source string `bson:"syncSourceHost"`
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(s.t, member.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetGetStatus", Value: 1}}).Decode(&status))
	return status.Source
}

// feeds waits until a member copies from another one, and goes on so for a second. It is asked again only when it has
// turned that one down: each request makes it leave the source that it has.
func (s *set) feeds(service, from string) {
	s.t.Helper()
	// It is not to leave that one by itself for a source that seems nearer; 4.4.2 does not know the parameter.
	_, _ = s.tryCommand(service, bson.D{{Key: "setParameter", Value: 1}, {Key: "changeSyncSourceThresholdMillis", Value: 0}})
	member := s.admin(service)
	last, since := "unknown", time.Time{}
	testbed.Eventually(s.t, time.Minute, service+" to copy from "+from, func() error {
		now := s.source(member)
		if now == from+":27017" && now == last && time.Since(since) > time.Second {
			return nil
		}
		if now != last {
			if now != from+":27017" {
				s.command(service, bson.D{{Key: "replSetSyncFrom", Value: from + ":27017"}})
			}
			last, since = now, time.Now()
		}
		return fmt.Errorf("it copies from %q", now)
	})
}

// stall is the longest time between two acknowledged writes since it was asked last.
func (w *writer) stall() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	longest := w.longest
	w.longest = 0
	return longest
}
