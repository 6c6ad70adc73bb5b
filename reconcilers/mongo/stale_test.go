package mongo_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// A former member that lacks more than the primary's oplog has is made to copy from a member that has it. Where nobody has,
// the status says what to do, and nothing is wiped.
func TestMemberTooStaleForThePrimary(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).run(three...)
	r := reconciler(t)
	chaining, high := false, 2.0 // a member may copy from the primary alone
	s.spec.Settings.ChainingAllowed = &chaining
	all := s.spec.Members
	all[2].Priority = &high
	is := func(members ...int) {
		s.spec.Members = nil
		for _, i := range members {
			s.spec.Members = append(s.spec.Members, all[i])
		}
	}
	is(0, 1)
	s.settle(r)
	s.lock(three[1]) // takes a checkpoint: before its first one a member that is stopped begins its initial sync anew
	s.command(three[1], bson.D{{Key: "fsyncUnlock", Value: 1}})
	is(0)
	s.settle(r)
	s.lab.Stop(three[1]) // one that was removed may go on copying for a while
	inserts := s.admin(three[0]).Database("dive").Collection("inserts", options.Collection().SetWriteConcern(writeconcern.Majority()))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	_, err := inserts.InsertOne(ctx, bson.D{{Key: "_id", Value: "while it was away"}})
	require.NoError(t, err)
	is(0, 2) // its oplog begins with its initial sync
	s.settle(r)
	testbed.Eventually(t, 30*time.Second, "the newest member to be the primary", func() error {
		hello, err := s.tryCommand(three[2], bson.D{{Key: "hello", Value: 1}})
		if err == nil && hello["isWritablePrimary"] != true {
			err = fmt.Errorf("%v", hello["primary"])
		}
		return err
	})

	var sources []string
	s.ended = func(c reconcilers.Change) {
		if c.Address == "source of mongodb-2:27017" {
			sources = append(sources, c.Reason)
		}
	}
	is(2)
	s.settle(r)
	s.lab.Start(three[1])
	is(1, 2)
	blocked := s.blocked(r)
	require.Equal(t, "MemberTooStale", blocked.Reason)
	require.Contains(t, blocked.Message, "mongodb-2:27017 was away for longer than the oplog of any other member reaches back")
	require.Contains(t, blocked.Do, "empty its volume")
	require.Empty(t, sources)

	is(0, 1, 2)
	s.settle(r)
	require.Contains(t, sources, "copies from mongodb-1:27017 for now: whom it would copy from has no longer what it lacks")
	n, err := s.admin(three[1]).Database("dive").Collection("inserts").CountDocuments(ctx, bson.D{{Key: "_id", Value: "while it was away"}})
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}
