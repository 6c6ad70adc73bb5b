package mongo

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

const (
	loadLimit  = 150 * time.Millisecond // for a member to read its configuration, where its disk may not be looked at: seen 100 ms
	secondLook = time.Second            // the same where there is one to be read, or where others tell it of theirs
)

// isFresh says whether the member was never in a replica set. A set that is known here is never made a second time.
func (s *session) isFresh(ctx context.Context, m wantMember) (fresh, isRoot bool, err error) {
	client, isRoot, err := s.enter(ctx, m)
	if err != nil {
		return false, isRoot, err
	}
	fresh, err = s.neverInSet(ctx, client, m)
	if fresh && s.memory.ReplicaSetID != "" {
		return false, isRoot, s.lostData(m.host)
	}
	return fresh, isRoot, err
}

// neverInSet says whether the member has no configuration of a replica set, neither at work nor on its disk: between
// accepting connections and reading what it has the server answers NotYetInitialized too.
func (s *session) neverInSet(ctx context.Context, client *driver.Client, m wantMember) (bool, error) {
	isMember := func(h hello) bool { return h.SetName != "" }
	_, err := getStatus(ctx, client)
	if hasCode(err, codeNotYetInitialized) {
		written, known, diskErr := hasConfig(ctx, client)
		if diskErr != nil {
			return false, fmt.Errorf("look for a configuration on the disk of %s: %w", m.host, diskErr)
		}
		if known && !written && s.memory.ReplicaSetID == "" {
			return true, nil
		}
		limit := loadLimit
		if written || s.memory.ReplicaSetID != "" {
			limit = secondLook
		}
		if _, err := s.await(ctx, limit, []wantMember{m}, isMember); err == nil {
			return false, nil
		}
		if _, err = getStatus(ctx, client); written && hasCode(err, codeNotYetInitialized) {
			return false, &reconcilers.WaitError{For: m.host + " to read its configuration", Again: time.Second, Err: err}
		}
	}
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err == nil:
		_, err = s.await(ctx, electLimit, []wantMember{m}, isMember)
		return false, err
	case hasCode(err, codeNotYetInitialized):
		return true, nil
	case hasCode(err, codeInvalidReplicaSetConfig):
		return false, s.strangeConfig(ctx, client, m.host)
	case hasCode(err, codeNoReplicationEnabled):
		return false, s.noReplSet(m.host)
	}
	return false, fmt.Errorf("ask %s for the replica set's status: %w", m.host, err)
}

// hasConfig says whether there is the configuration of a replica set on the member's disk, as there is from the
// initiation on, and after a removal too. known is false where the login may not look.
func hasConfig(ctx context.Context, client *driver.Client) (has, known bool, err error) {
	var answer struct {
		Cursor struct {
			Batch []bson.Raw `bson:"firstBatch"`
		} `bson:"cursor"`
	}
	err = run(ctx, client, "local", bson.D{{Key: "find", Value: "system.replset"}, {Key: "limit", Value: 1}}, &answer)
	if hasCode(err, codeUnauthorized) {
		return false, false, nil
	}
	return len(answer.Cursor.Batch) > 0, err == nil, err
}
