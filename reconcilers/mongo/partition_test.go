package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

// reaches says whether a member reaches another one.
func (s *set) reaches(service, host string) bool {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	_, code, err := s.lab.Exec(ctx, service, []string{"bash", "-c", "exec 3<>/dev/tcp/" + host + "/27017"}, nil, nil)
	require.NoError(s.t, err)
	return code == 0
}

// soon is a pass that is broken off after some seconds.
func (s *set) soon(r reconcilers.Reconciler) error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 8*time.Second)
	defer cancel()
	o, err := r.Observe(ctx, s.target)
	if err != nil {
		return err
	}
	plan, err := r.Plan(s.target, o)
	require.NoError(s.t, err)
	if len(plan.Changes) == 0 {
		return o.Err
	}
	_, err = r.Apply(ctx, s.target, plan, &progress{t: s.t, ended: s.ended})
	return err
}

// TestAgentOnTheMinoritySide: of three members the agent reaches one, which was the primary; the others have a primary of
// their own. It changes nothing, whatever is merged, and says so; afterwards it goes on.
func TestAgentOnTheMinoritySide(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).run(three...)
	clock := &shiftedClock{}
	r := mongo.New(reconcilers.Deps{Clock: clock, Rand: deps().Rand})
	t.Cleanup(func() { require.NoError(t, r.(interface{ Close() error }).Close()) })
	o := s.settle(r)
	alone := primaryOf(t, o)
	others := beside(alone)
	version, term := s.configVersion(alone)

	s.lab.Split(others...)
	require.True(t, s.reaches(others[0], others[1]), "the majority is one")
	require.False(t, s.reaches(alone, others[0]), "the minority is cut off")
	s.spec.Settings.HeartbeatIntervalMillis = 400
	s.spec.Users = []mongo.User{{Name: "late", Password: s.spec.Root.Password, Database: "admin", Roles: []string{"read@dive"}}}
	now := s.soon(r) // the former primary still takes itself for one
	require.Error(t, now)
	t.Logf("at once: %v", now)

	var blocked *reconcilers.BlockedError
	testbed.Eventually(t, time.Minute, "words of what is", func() error {
		o, plan, err := s.pass(r)
		clock.ahead += 20 * time.Second
		if !errors.As(err, &blocked) {
			return fmt.Errorf("not blocked: %w", err)
		}
		require.Empty(t, plan.Changes)
		require.Contains(t, o.Facts.Summary, "rs0 without a primary, 1 of 3 members")
		return nil
	})
	require.Equal(t, "LostMajority", blocked.Reason)
	require.Contains(t, blocked.Message, "1 of the 2 votes that an election needs are reachable: "+alone+":27017 (SECONDARY")
	require.Contains(t, blocked.Do, "hold no primary of their own")
	limited, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	require.Error(t, r.(reconcilers.Roller).Turn(limited, s.target, reconcilers.Turn{Part: alone}, &progress{t: t}), "no member is restarted")
	unchanged, _ := s.configVersion(alone)
	require.Equal(t, version, unchanged, "the configuration was changed")

	s.lab.Join(others...)
	s.accepting(three...)
	o = s.settle(r)
	require.NotEqual(t, alone+":27017", o.Outputs["primary"].Text(), "the others had elected one")
	after, newTerm := s.configVersion(primaryOf(t, o))
	require.Greater(t, newTerm, term)
	require.Greater(t, after, version)
	require.Less(t, after-version, int64(forcedBy))
	require.Equal(t, "rs0 PRIMARY, 3 members", o.Facts.Summary)
	users := fmt.Sprint(s.command(primaryOf(t, o), bson.D{{Key: "usersInfo", Value: "late"}}))
	require.True(t, strings.Contains(users, "late"), users)
}

// The primary moves there and back within a minute: the member that stepped down is let stand again.
func TestPrimaryMovesThereAndBack(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[:2]...).run(three[:2]...)
	r := reconciler(t)
	first := primaryOf(t, s.settle(r))
	none, one := 0.0, 1.0
	moves := func(from string) string {
		t.Helper()
		for i := range s.spec.Members {
			m := &s.spec.Members[i]
			if m.Priority = &one; m.Service == from {
				m.Priority = &none
			}
		}
		return primaryOf(t, s.settle(r))
	}
	second := moves(first)
	require.NotEqual(t, first, second)
	began := time.Now()
	require.Equal(t, first, moves(second))
	require.Less(t, time.Since(began), 30*time.Second, "it does not stand by itself for a minute")
}
