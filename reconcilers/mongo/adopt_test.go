package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

// initiate does by hand what operators do, once the service's real server takes it.
func (s *set) initiate(service string, hosts ...string) {
	s.t.Helper()
	members := bson.A{}
	for i, host := range hosts {
		members = append(members, bson.D{{Key: "_id", Value: i}, {Key: "host", Value: host}})
	}
	config := bson.D{{Key: "_id", Value: "rs0"}, {Key: "members", Value: members}, {Key: "settings", Value: bson.D{
		{Key: "electionTimeoutMillis", Value: 2000}, {Key: "heartbeatIntervalMillis", Value: 300},
	}}}
	testbed.Eventually(s.t, time.Minute, "a set initiated by hand", func() error {
		ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
		defer cancel()
		db := s.admin(service).Database("admin")
		if db.RunCommand(ctx, bson.D{{Key: "replSetGetStatus", Value: 1}}).Err() == nil {
			return nil
		}
		return db.RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: config}}).Err()
	})
}

// started lists when the services' containers were started.
func (s *set) started(services ...string) (at []time.Time) {
	s.t.Helper()
	for _, name := range services {
		c, err := s.lab.Find(s.t.Context(), name)
		require.NoError(s.t, err)
		at = append(at, c.StartedAt)
	}
	return at
}

// A set under its containers' names becomes one under its services' names, each rename a step of its own.
func TestHandMadeSetIsRenamed(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).run(three...)
	var hosts []string
	for _, name := range three {
		c, err := s.lab.Find(t.Context(), name)
		require.NoError(t, err)
		hosts = append(hosts, c.Name[1:]+":27017")
	}
	s.initiate(three[1], hosts...)
	before := s.started(three...)
	r := reconciler(t)
	var primary string
	testbed.Eventually(t, time.Minute, "the hand-made set with all its members", func() error {
		o, err := r.Observe(t.Context(), s.target)
		if err != nil || o.Err != nil || o.State == nil {
			return errors.Join(err, o.Err, errors.New("no plan yet"))
		}
		plan, err := r.Plan(s.target, o)
		require.NoError(t, err)
		if len(plan.Changes) != 3 {
			return fmt.Errorf("%d changes: %v", len(plan.Changes), plan.Changes)
		}
		for _, c := range plan.Changes {
			require.Regexp(t, `^renamed from .*-mongodb-[123]:27017$`, c.Reason)
		}
		primary = plan.Changes[2].Address
		for _, m := range o.Facts.Members {
			if m.State == "PRIMARY" {
				require.Equal(t, "renamed from "+m.Host, plan.Changes[2].Reason, "the primary is renamed last")
			}
		}
		return nil
	})
	o := s.settle(r)
	require.Equal(t, primary, "member "+o.Outputs["primary"].Text(), "nobody stepped down")
	require.Equal(t, "rs0 PRIMARY, 3 members", o.Facts.Summary)
	require.Equal(t, before, s.started(three...), "no member was restarted")
}

// A member that is silent when the plan is made, and answers under its former name when it is carried out, is renamed in
// the next pass.
func TestMemberIsRenamedWhenItAnswersAgain(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).run(three...)
	never := 0.0
	s.spec.Members[2].Priority = &never // it is another one that is primary when it answers again
	r := reconciler(t)
	s.settle(r)
	c, err := s.lab.Find(t.Context(), three[2])
	require.NoError(t, err)
	name := c.Name[1:] + ":27017"
	s.spec.Members[2].Host = desired.Literal(name)
	s.lab.Pause(three[2])
	_, plan := s.looks(r)
	require.Equal(t, "member "+name, plan.Changes[0].Address)
	require.Equal(t, reconcilers.Create, plan.Changes[0].Action)
	s.lab.Unpause(three[2])
	_, err = r.Apply(t.Context(), s.target, plan, &progress{t: t})
	var wait *reconcilers.WaitError
	require.ErrorAs(t, err, &wait)
	require.Contains(t, wait.For, "which the set knows as mongodb-3:27017")
	s.ended = func(c reconcilers.Change) { require.Equal(t, "renamed from mongodb-3:27017", c.Reason) }
	s.settle(r)
}

// Two sets of one, both made under localhost: neither is renamed, grown or made anew.
func TestTwoSetsAreNotMerged(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[:2]...).run(three[:2]...)
	for _, name := range three[:2] {
		s.initiate(name, "localhost:27017")
	}
	pictures := []string{s.picture(three[0]), s.picture(three[1])}
	blocked := s.blocked(reconciler(t))
	require.Equal(t, "TwoReplicaSets", blocked.Reason)
	require.Contains(t, blocked.Error(), "mongodb-1:27017 and mongodb-2:27017 are in two replica sets")
	require.Equal(t, pictures, []string{s.picture(three[0]), s.picture(three[1])})

	s.run(three[1]) // the way out: that one is emptied
	o := s.settle(reconciler(t))
	require.Equal(t, "rs0 PRIMARY, 2 members", o.Facts.Summary)
}

// The first member is empty, and the one that has the data is away: no second set is made.
func TestNoSecondSetBesideDataOfOne(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[:2]...).run(three[:2]...)
	s.initiate(three[1], "localhost:27017")
	s.lab.Stop(three[1])
	r := reconciler(t)
	var wait *reconcilers.WaitError
	_, _, err := s.pass(r)
	require.ErrorAs(t, err, &wait)
	require.Contains(t, wait.For, "mongodb-2:27017 to answer before rs0 is initiated")
	require.Equal(t, "no replica set", s.picture(three[0]))
	s.lab.Start(three[1])
	o := s.settle(r)
	require.Equal(t, "mongodb-2:27017", o.Outputs["primary"].Text(), "the set that is there is grown, though its member is not the first")
}

// without is the set's configuration, less one member.
func (s *set) without(service string) bson.D {
	s.t.Helper()
	for _, one := range three {
		if one == service {
			continue
		}
		if c, err := s.lab.Find(s.t.Context(), one); err != nil || c.ID == "" {
			continue
		}
		config := s.command(one, bson.D{{Key: "replSetGetConfig", Value: 1}})["config"].(bson.D)
		for i, field := range config {
			switch field.Key {
			case "version":
				config[i].Value = field.Value.(int32) + 1
			case "members":
				kept := bson.A{}
				for _, m := range field.Value.(bson.A) {
					if m.(bson.D)[1].Value != service+":27017" {
						kept = append(kept, m)
					}
				}
				config[i].Value = kept
			}
		}
		return config
	}
	s.t.Fatal("no member answers")
	return nil
}

func TestMemberThatWasTakenOutComesBack(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).withContent().run(three...)
	r := reconciler(t)
	s.settle(r)
	s.command(three[0], bson.D{{Key: "replSetReconfig", Value: s.without(three[1])}})
	s.lab.Stop(three[1])
	s.lab.Start(three[1])
	o := s.settle(r)
	require.Equal(t, "rs0 PRIMARY, 3 members", o.Facts.Summary)

	// Wiped, it comes back by itself: no data was lost. The primary's word of it is old for a while.
	s.spec.Settings = &mongo.Settings{ElectionTimeoutMillis: 20000, HeartbeatIntervalMillis: 8000}
	s.settle(r)
	s.run(three[1])
	o, plan, _ := s.pass(r)
	require.NotEmpty(t, o.Outputs, "the set goes on")
	require.Empty(t, plan.Changes)
	s.settle(r)
	require.Contains(t, s.picture(three[1]), "22 documents")
}

// A frozen member is told of at once, though the primary takes it for a good one until a heartbeat is overdue.
func TestFrozenMemberIsToldOfBeforeThePrimaryKnows(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).run(three...)
	r := reconciler(t)
	s.settle(r)
	s.lab.Pause(three[2])
	o, plan, err := s.pass(r)
	s.lab.Unpause(three[2])
	var wait *reconcilers.WaitError
	require.ErrorAs(t, err, &wait)
	require.Contains(t, wait.For, "member mongodb-3:27017")
	require.Empty(t, plan.Changes)
	require.NotEmpty(t, o.Outputs, "the set goes on")
	require.Equal(t, "rs0 PRIMARY, 2 of 3 members", o.Facts.Summary)
	require.Equal(t, "rs0 PRIMARY, 3 members", s.settle(r).Facts.Summary)
}

// Initiated by hand, and nobody made the user.
func TestInitiatedWithoutUser(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb")
	s.spec.Keyfile = desired.Literal(s.key)
	service := s.mongod("rs0")
	service.Env = nil
	s.lab.Run("mongodb", service)
	s.settle(reconciler(t))
	s.command("mongodb", bson.D{{Key: "dropAllUsersFromDatabase", Value: 1}})
	s.target.Dir = t.TempDir()
	r := reconciler(t)
	o, plan, err := s.pass(r)
	require.NoError(t, err, o.Err)
	require.Len(t, plan.Changes, 1)
	require.Equal(t, "user admin", plan.Changes[0].Address)
	require.NotEmpty(t, s.settle(r).Outputs)
}
