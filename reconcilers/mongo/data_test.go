package mongo_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
)

// tree is a piece of YAML as a manifest has it.
func tree(t *testing.T, text string) desired.Tree {
	t.Helper()
	parsed, err := desired.ParseTree("test", []byte(text))
	require.NoError(t, err)
	return parsed
}

func (s *set) seedFile(name, text string) {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(filepath.Join(s.target.SourceDir, name), []byte(text), 0o600))
}

// addresses passes once and tells the changes.
func (s *set) addresses(r reconcilers.Reconciler) (lines []string) {
	s.t.Helper()
	_, plan, err := s.pass(r)
	require.NoError(s.t, err)
	for _, c := range plan.Changes {
		lines = append(lines, fmt.Sprintf("%s %s: %s", c.Action, c.Address, c.Reason))
	}
	return lines
}

func TestSeedsAndIndexes(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").run("mongodb")
	r := reconciler(t)
	s.settle(r)
	s.seedFile("coi.yaml", "- {coiId: A, n: 1, at: 2026-01-02}\n- {coiId: B, n: 2}\n- {coiId: C, n: 3}\n")
	hour := 3600
	s.spec.Seed = []mongo.Seed{{Collection: "coi", File: "coi.yaml", Key: "coiId", Update: true}}
	s.spec.Indexes = []mongo.Index{
		{Collection: "coi", Keys: tree(t, "{coiId: 1, n: -1}"), Unique: true, Collation: tree(t, "{locale: en, strength: 2}")},
		{Collection: "coi", Keys: tree(t, "{title: text, body: text}")},
		{Collection: "coi", Keys: tree(t, "{n: 1}"), Name: "some", Partial: tree(t, "{n: {$gt: 5}}")},
		{Collection: "sessions", Keys: tree(t, "{at: 1}"), ExpireAfterSeconds: &hour, Sparse: true},
	}
	require.Equal(t, []string{
		`create index dive.coi.coiId_1_n_-1: on {"coiId":1,"n":-1}`,
		`create index dive.coi.title_text_body_text: on {"title":"text","body":"text"}`,
		`create index dive.coi.some: on {"n":1}`,
		`create index dive.sessions.at_1: on {"at":1}`,
		"create documents dive.coi: seed 3 documents into coi",
	}, s.addresses(r))
	require.Empty(t, s.addresses(r), "a second plan is empty")

	coi := s.admin("mongodb").Database("dive").Collection("coi")
	_, err := coi.UpdateOne(t.Context(), bson.D{{Key: "coiId", Value: "B"}}, bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: 2.0}, {Key: "extra", Value: 1}}}})
	require.NoError(t, err)
	_, err = coi.UpdateOne(t.Context(), bson.D{{Key: "coiId", Value: "C"}}, bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: 3.0}}}})
	require.NoError(t, err)
	_, err = coi.DeleteOne(t.Context(), bson.D{{Key: "coiId", Value: "A"}})
	require.NoError(t, err)
	_, err = coi.InsertOne(t.Context(), bson.D{{Key: "coiId", Value: "ours"}})
	require.NoError(t, err)
	day := 86400
	s.spec.Indexes[3].ExpireAfterSeconds = &day
	require.Equal(t, []string{
		"update index dive.sessions.at_1: documents expire after 3600 -> 86400 s",
		"create documents dive.coi: seed 1 of 3 documents into coi, replace 1 that differ from coi.yaml",
	}, s.addresses(r))
	require.Empty(t, s.addresses(r))
	count, err := coi.CountDocuments(t.Context(), bson.D{})
	require.NoError(t, err)
	require.EqualValues(t, 4, count, "nothing is removed")
	require.ErrorContains(t, coi.FindOne(t.Context(), bson.D{{Key: "extra", Value: 1}}).Err(), "no documents")

	s.spec.Indexes[3].Sparse = false
	blocked := s.blocked(r)
	require.Equal(t, "OtherIndex", blocked.Reason)
	require.Contains(t, blocked.Message, `"sparse":true,"expireAfterSeconds":86400}, and the manifest declares {"key":{"at":1},"name":"at_1","expireAfterSeconds":86400}`)
	s.spec.Indexes = append(s.spec.Indexes[:3], mongo.Index{Collection: "coi", Keys: tree(t, "{n: 1, m: 1}"), Name: "some"})
	require.Equal(t, "OtherIndex", s.blocked(r).Reason, "another index of that name")
	s.spec.Indexes = s.spec.Indexes[:3]

	_, err = coi.InsertOne(t.Context(), bson.D{{Key: "coiId", Value: "A"}, {Key: "n", Value: 9}})
	require.NoError(t, err)
	blocked = s.blocked(r)
	require.Equal(t, "AmbiguousSeed", blocked.Reason)
	require.Contains(t, blocked.Message, "2 documents with the coiId of coi.yaml:1")
	s.spec.Seed = nil
	s.spec.Indexes = append(s.spec.Indexes, mongo.Index{Collection: "coi", Keys: tree(t, "{coiId: 1}"), Unique: true})
	require.Equal(t, "NotUnique", s.blocked(r).Reason)
	s.spec.Indexes[3] = mongo.Index{Collection: "coi", Keys: tree(t, "{coiId: 1}"), Partial: tree(t, "{coiId: {$nonsense: 1}}")}
	require.Equal(t, "IndexRefused", s.blocked(r).Reason)
}

func TestManySeedsInBulk(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").run("mongodb")
	r := reconciler(t)
	s.settle(r)
	var b strings.Builder
	for i := range 2500 {
		fmt.Fprintf(&b, "- {_id: %d, n: {$numberLong: \"1\"}}\n", i)
	}
	s.seedFile("many.yml", b.String())
	s.spec.Seed = []mongo.Seed{{Collection: "many", File: "many.yml", Update: true}}
	require.Len(t, s.addresses(r), 1)
	require.Empty(t, s.addresses(r))
	s.seedFile("many.yml", b.String()+"- {_id: 0}\n")
	_, _, err := s.pass(r)
	var blocked *reconcilers.BlockedError
	require.True(t, errors.As(err, &blocked), "%v", err)
	require.Contains(t, blocked.Message, "many.yml:2501: the document has the same _id as the one of line 1")
}
