package mongo_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// What people are told of a set: each member as the server has it, the set's last election and the oplog's window, and
// of a member that is lost, since when.
func TestFacts(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...)
	s.spec.Keyfile = desired.Literal(s.key)
	none, two := 0.0, 2.0
	s.spec.Members[0].Priority = &two
	s.spec.Members[2].Hidden, s.spec.Members[2].Priority, s.spec.Members[2].Delay = true, &none, desired.Duration(5*time.Second)
	s.run(three...)
	r := reconciler(t)
	o := s.settle(r)

	set := o.Facts.Set
	require.Equal(t, "rs0", set.Name)
	require.Equal(t, "6.0", set.FCV)
	require.Positive(t, set.Term)
	require.WithinDuration(t, time.Now(), set.Elected, 5*time.Minute)
	require.NotEmpty(t, set.Reason)
	require.Positive(t, set.Oplog)
	require.Less(t, set.Oplog, 5*time.Minute)

	require.Len(t, o.Facts.Members, 3)
	for i, m := range o.Facts.Members {
		require.Equal(t, three[i]+":27017", m.Host)
		require.True(t, m.Health)
		require.Equal(t, "6.0.5", m.Version)
		require.WithinDuration(t, time.Now(), m.Started, 5*time.Minute)
		require.Zero(t, m.Trouble)
		require.Less(t, m.Lag, 30*time.Second, "a delay that is declared is no lag")
	}
	first, last := o.Facts.Members[0], o.Facts.Members[2]
	require.Equal(t, 2.0, first.Priority)
	require.Equal(t, 1, first.Votes)
	require.True(t, last.Hidden)
	require.Equal(t, 5*time.Second, last.Delay)
	require.Zero(t, last.Priority)

	s.quiet(r)

	s.lab.Stop(three[1])
	stopped := time.Now()
	var trouble time.Time
	testbed.Eventually(t, 30*time.Second, "the trouble of the lost member", func() error {
		o, _, _ := s.pass(r)
		if len(o.Facts.Members) != 3 || o.Facts.Members[1].Health {
			return errors.New("it is not missed")
		}
		trouble = o.Facts.Members[1].Trouble
		return nil
	})
	require.WithinDuration(t, stopped, trouble, 20*time.Second)
	o, _, _ = s.pass(reconciler(t)) // an agent that was started anew
	require.WithinDuration(t, stopped, o.Facts.Members[1].Trouble, 20*time.Second)
}

// quiet holds looks at a set that needs nothing to what they may cost: three connections each, and no write.
func (s *set) quiet(r reconcilers.Reconciler) {
	s.t.Helper()
	const looks = 20
	count := func() (connections, writes int64) {
		for _, name := range three {
			var told struct {
				Connections struct {
					Created int64 `bson:"totalCreated"`
				} `bson:"connections"`
				Counters struct{ Insert, Update, Delete int64 } `bson:"opcounters"`
			}
			raw, err := bson.Marshal(s.command(name, bson.D{{Key: "serverStatus", Value: 1}}))
			require.NoError(s.t, err)
			require.NoError(s.t, bson.Unmarshal(raw, &told))
			connections += told.Connections.Created
			writes += told.Counters.Insert + told.Counters.Update + told.Counters.Delete
		}
		return connections, writes
	}
	zero, _ := count()
	connections, writes := count() // what counting costs
	own := connections - zero
	began := time.Now()
	for range looks {
		o, err := r.Observe(s.t.Context(), s.target)
		require.NoError(s.t, err)
		require.NoError(s.t, o.Err)
		plan, err := r.Plan(s.target, o)
		require.NoError(s.t, err)
		require.Empty(s.t, plan.Changes)
	}
	took := time.Since(began) / looks
	after, written := count()
	s.t.Logf("a look at nothing: %s, %.1f connections", took, float64(after-connections-own)/looks)
	require.Equal(s.t, writes, written, "a look writes nothing")
	require.LessOrEqual(s.t, after-connections-own, int64(3*looks)+3, "the server's own may come and go")
}
