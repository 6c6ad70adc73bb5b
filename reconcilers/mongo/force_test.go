package mongo_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

// configVersion is what a member that answers says of its configuration; a term of 0 is none.
func (s *set) configVersion(service string) (version, term int64) {
	s.t.Helper()
	for _, field := range s.command(service, bson.D{{Key: "replSetGetConfig", Value: 1}})["config"].(bson.D) {
		n, _ := strconv.ParseInt(fmt.Sprint(field.Value), 10, 64)
		switch field.Key {
		case "version":
			version = n
		case "term":
			term = n
		}
	}
	return version, term
}

// looks observes and plans without doing anything.
func (s *set) looks(r reconcilers.Reconciler) (reconcilers.Observed, reconcilers.Plan) {
	s.t.Helper()
	o, err := r.Observe(s.t.Context(), s.target)
	require.NoError(s.t, err)
	plan, err := r.Plan(s.target, o)
	require.NoError(s.t, err)
	return o, plan
}

// A lost majority is told of and nothing is done, until somebody merges an order for exactly what is.
func TestLostMajorityIsForcedOnceByOrder(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).withContent()
	for _, name := range three {
		service := s.mongod("rs0")
		service.Volumes = map[string]string{"data-" + name: "/data/db"}
		s.lab.Run(name, service)
	}
	s.settle(reconciler(t))
	clock := &shiftedClock{}
	r := mongo.New(reconcilers.Deps{Clock: clock, Rand: deps().Rand})
	t.Cleanup(func() { require.NoError(t, r.(interface{ Close() error }).Close()) })
	s.lab.Disconnect(three[1]) // cut off, and the agent with it
	s.lab.Kill(three[2])
	version, term := s.configVersion(three[0])
	require.NotZero(t, term)

	lost := func() *reconcilers.BlockedError {
		var blocked *reconcilers.BlockedError
		testbed.Eventually(t, time.Minute, "a lost majority", func() error {
			o, err := r.Observe(t.Context(), s.target)
			clock.ahead += time.Minute
			if err != nil { // until the primary has noticed, it misses members
				return err
			}
			plan, err := r.Plan(s.target, o)
			require.NoError(t, err)
			if !errors.As(o.Err, &blocked) {
				return fmt.Errorf("not blocked: %w", o.Err)
			}
			require.Equal(t, "LostMajority", blocked.Reason)
			require.Empty(t, plan.Changes, "a minority changes nothing")
			return nil
		})
		return blocked
	}
	blocked := lost()
	require.Regexp(t, `1 of the 2 votes .*mongodb-1:27017 \(SECONDARY, at 20`, blocked.Error())
	require.Contains(t, blocked.Do, fmt.Sprintf("force: {survivors: [mongodb-1:27017], version: %d, term: %d}", version, term))

	for _, wrong := range []*mongo.Force{
		{Survivors: []string{"mongodb-1:27017"}, Version: version + 1, Term: term},
		{Survivors: []string{"mongodb-1:27017"}, Version: version, Term: term + 1},
		{Survivors: []string{"mongodb-1:27017"}, Version: version},
	} {
		s.spec.Force = wrong
		require.Contains(t, lost().Error(), fmt.Sprintf("mongodb-1:27017 has version %d, term %d", version, term))
	}
	s.spec.Force = &mongo.Force{Survivors: []string{"mongodb-1:27017", "mongodb-2:27017"}, Version: version, Term: term}
	require.Contains(t, lost().Error(), "mongodb-2:27017, a survivor by the manifest, does not answer")

	s.spec.Force = &mongo.Force{Survivors: []string{"mongodb-1:27017"}, Version: version, Term: term}
	_, plan := s.looks(r)
	require.Len(t, plan.Changes, 1)
	require.True(t, plan.Changes[0].Destroys)
	require.Contains(t, plan.Changes[0].Reason, "mongodb-1:27017 go on without mongodb-2:27017, mongodb-3:27017")
	_, err := r.Apply(t.Context(), s.target, plan, &progress{t: t})
	require.NoError(t, err)
	forced, none := s.configVersion(three[0])
	require.Greater(t, forced, version)
	require.Zero(t, none, "a forced configuration has no term")

	// The members that come back are added again, and the order that was left in the manifest is a note.
	s.lab.Connect(three[1])
	s.lab.Start(three[2])
	o := s.settleWithin(5*time.Minute, r) // on a busy machine one took more than two to find whom to copy from
	require.Equal(t, "rs0 PRIMARY, 3 members", o.Facts.Summary)
	require.Contains(t, strings.Join(o.Facts.Notes, "\n"), "has been carried out and is not carried out again")
	require.Contains(t, s.picture(three[2]), "22 documents")

	s.lab.Kill(primaryOf(t, o))
	o = s.settleWithout(r)
	s.lab.Kill(primaryOf(t, o))
	require.Contains(t, lost().Error(), "has been carried out before")
}

// settleWithout passes until there is a primary, though a member is away.
func (s *set) settleWithout(r reconcilers.Reconciler) (o reconcilers.Observed) {
	s.t.Helper()
	testbed.Eventually(s.t, time.Minute, "another primary", func() error {
		var err error
		o, err = r.Observe(s.t.Context(), s.target)
		if err == nil && len(o.Outputs) == 0 {
			err = fmt.Errorf("no primary: %w", o.Err)
		}
		return err
	})
	return o
}
