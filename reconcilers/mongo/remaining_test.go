package mongo_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// A voter leaves, or loses its vote, when a majority of those that remain has caught up: until then nobody waits for them to
// have a write.
func TestVoterLeavesWhenTheOthersHaveCaughtUp(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).run(three...)
	r := reconciler(t)
	chaining := false // else one may copy from the one that is behind
	s.spec.Settings.ChainingAllowed = &chaining
	primary := primaryOf(t, s.settle(r))
	first := slices.Index(three, primary)
	behind, leaves := (first+1)%3, (first+2)%3
	inserts := s.admin(primary).Database("dive").Collection("inserts", options.Collection().SetWriteConcern(writeconcern.Majority()))
	insert := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := inserts.InsertOne(ctx, bson.D{})
		require.NoError(t, err)
	}
	lock := func(service string) { s.command(service, bson.D{{Key: "fsync", Value: 1}, {Key: "lock", Value: true}}) }
	unlock := func(service string) { s.command(service, bson.D{{Key: "fsyncUnlock", Value: 1}}) }
	votes := func(host, want string) {
		t.Helper()
		require.Contains(t, s.picture(primary), "{Host:"+host+":27017 Votes:"+want+" ")
	}

	lock(three[behind])
	insert()
	none, nothing := 0, 0.0
	one := &s.spec.Members[leaves]
	one.Votes, one.Priority = &none, &nothing
	require.ErrorIs(t, s.soon(r), context.DeadlineExceeded)
	votes(three[leaves], "1")
	insert()
	unlock(three[behind])
	s.settle(r)
	votes(three[leaves], "0")

	one.Votes, one.Priority = nil, nil
	s.settle(r)
	lock(three[behind])
	insert()
	s.spec.Members = append(s.spec.Members[:leaves:leaves], s.spec.Members[leaves+1:]...)
	require.ErrorIs(t, s.soon(r), context.DeadlineExceeded)
	votes(three[leaves], "1")
	insert()
	unlock(three[behind])
	s.settle(r)
	require.NotContains(t, s.picture(primary), three[leaves])
}
