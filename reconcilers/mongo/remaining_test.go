package mongo_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"dive-agent/testbed"
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
	unlock := func(service string) { s.command(service, bson.D{{Key: "fsyncUnlock", Value: 1}}) }
	votes := func(host, want string) {
		t.Helper()
		require.Contains(t, s.picture(primary), "{Host:"+host+":27017 Votes:"+want+" ")
	}

	s.lock(three[behind])
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
	s.lock(three[behind])
	insert()
	s.spec.Members = append(s.spec.Members[:leaves:leaves], s.spec.Members[leaves+1:]...)
	require.ErrorIs(t, s.soon(r), context.DeadlineExceeded)
	votes(three[leaves], "1")
	insert()
	unlock(three[behind])
	s.settle(r)
	require.NotContains(t, s.picture(primary), three[leaves])
}

// A member that is to leave may be elected after it was found to be no primary, or was asked to step down: then it is asked
// again. The server takes no configuration from a primary that is not in it.
func TestMemberThatIsElectedBeforeItLeaves(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).run(three...)
	r := reconciler(t)
	chaining := false
	s.spec.Settings.ChainingAllowed = &chaining
	primary := primaryOf(t, s.settle(r))
	first := slices.Index(three, primary)
	behind, leaves := three[(first+1)%3], (first+2)%3
	s.lock(behind)
	inserts := s.admin(primary).Database("dive").Collection("inserts", options.Collection().SetWriteConcern(writeconcern.Majority()))
	_, err := inserts.InsertOne(t.Context(), bson.D{})
	require.NoError(t, err)

	s.spec.Members = append(s.spec.Members[:leaves:leaves], s.spec.Members[leaves+1:]...)
	waits := make(chan struct{}, 100)
	s.said = func(words string) {
		if strings.Contains(words, "to catch up before "+three[leaves]) {
			waits <- struct{}{}
		}
	}
	passed := make(chan error, 1)
	go func() {
		_, _, err := s.pass(r)
		passed <- err
	}()
	select {
	case <-waits:
	case err := <-passed:
		t.Fatalf("it did not wait: %v", err)
	}
	testbed.Eventually(t, 20*time.Second, "the member that leaves to be the primary", func() error {
		_, err := s.tryCommand(three[leaves], bson.D{{Key: "replSetStepUp", Value: 1}})
		return err
	})
	s.command(behind, bson.D{{Key: "fsyncUnlock", Value: 1}})
	require.ErrorContains(t, <-passed, "another primary than "+three[leaves]+":27017")
	s.settle(r)
	require.NotContains(t, s.picture(primary), three[leaves])
}
