package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/hub"
)

// dump is what a backup of the hub's database has of the federation.
type dump map[string][]bson.D

func takeDump(t *testing.T, db *mongo.Database) dump {
	t.Helper()
	d := dump{}
	for _, name := range []string{"federation_spokes", "federation_tokens"} {
		found, err := db.Collection(name).Find(t.Context(), bson.D{})
		require.NoError(t, err)
		all := []bson.D{}
		require.NoError(t, found.All(t.Context(), &all))
		d[name] = all
	}
	return d
}

func (d dump) restore(t *testing.T, db *mongo.Database) {
	t.Helper()
	for name, all := range d {
		_, err := db.Collection(name).DeleteMany(t.Context(), bson.D{})
		require.NoError(t, err)
		if len(all) > 0 {
			_, err = db.Collection(name).InsertMany(t.Context(), all)
			require.NoError(t, err)
		}
	}
}

// renew lets two thirds of the life of deu's token be over, as far as the hub's agent knows, and waits for the next one.
func (j *joining) renew() {
	j.t.Helper()
	before := j.held("deu")
	usa := j.hosts["usa"]
	usa.Stop()
	file := filepath.Join(usa.Dir, "state/instances/usa/components/federation/tokens.json")
	var tokens map[string]map[string]any
	require.NoError(j.t, json.Unmarshal([]byte(read(j.t, file)), &tokens))
	require.Len(j.t, tokens, 1)
	for _, one := range tokens {
		one["since"] = time.Now().Add(-72 * time.Hour).UTC()
	}
	content, err := json.Marshal(tokens)
	require.NoError(j.t, err)
	require.NoError(j.t, os.WriteFile(file, content, 0o600))
	usa.Launch()
	testbed.Eventually(j.t, 2*soon, "another token in deu's container", func() error {
		if now := j.held("deu"); now == "" || now == before {
			return errNotYet
		}
		return j.beats("deu")
	})
	require.NoError(j.t, j.beat(before), "the one before is still good")
}

// TestATokenThatTheHubForgets is found and mended within one heartbeat interval: it was revoked there; the hub's database is that of
// a time before the last token, and before the spoke. Then the manifest suspends the spoke, releases it, revokes it, has it
// back, goes and comes again.
func TestATokenThatTheHubForgets(t *testing.T) {
	t.Parallel()
	j := newJoining(t, "")
	j.begin("deu")
	j.awaitBeat(soon, "deu")
	store, db, deu := j.store(), j.database(), j.hosts["deu"]
	id := j.record(store, "DEU").SpokeID
	mended := func(what string, forget func()) {
		t.Helper()
		token := j.held("deu")
		forget()
		require.Error(t, j.beat(token), what)
		took := j.awaitBeat(2*soon, "deu")
		t.Logf("%s: heartbeats again after %.1f s", what, took.Seconds())
		require.Less(t, took, stretched(t, beat), what)
		deu.AwaitPhase(soon, "deu", report.Ready, "")
	}
	mended("its tokens are revoked", func() { require.NoError(t, store.DeleteTokens(t.Context(), id)) })
	former := takeDump(t, db)
	j.renew()
	mended("the database is that of a time before its last token", func() { former.restore(t, db) })
	require.Equal(t, id, j.record(store, "DEU").SpokeID)
	mended("the database is that of a time before it joined", func() { dump{"federation_spokes": nil, "federation_tokens": nil}.restore(t, db) })
	require.Equal(t, map[string]string{"DEU": hub.Approved}, j.records(store))
	require.NotEqual(t, id, j.record(store, "DEU").SpokeID)
	id = j.record(store, "DEU").SpokeID
	require.Equal(t, id, j.shownID("deu"))

	j.stands("suspended", hub.Suspended)
	require.Error(t, j.beats("deu"))
	require.Equal(t, id, j.stands("approved", hub.Approved), "the record is the same")
	j.awaitBeat(soon, "deu")
	require.Equal(t, id, j.stands("revoked", hub.Revoked))
	require.Error(t, j.beats("deu"))
	next := j.stands("approved", hub.Approved)
	require.NotEqual(t, id, next)
	j.awaitBeat(soon, "deu")

	gone := j.spokeFiles("deu", "")
	for name := range gone {
		gone[name] = gitserver.Remove
	}
	j.Merge("Deu goes", gone)
	j.hosts["usa"].Await(2*soon, "usa", "has it revoked", func(s *report.Status) bool {
		return s.Phase == report.Ready && len(s.Spokes) == 1 && s.Spokes[0].State == hub.Revoked
	})
	deu.AwaitPhase(soon, "deu", report.Removed, "")
	require.NotEqual(t, next, j.stands("approved", hub.Approved), "merged again it is back, with no other word")
	j.awaitBeat(soon, "deu")
	require.Equal(t, map[string]string{"DEU": hub.Approved}, j.records(store))
}

// stands merges what the hub's agent is to keep deu at, waits until both agents are at rest, and gives the id that deu's status shows.
func (j *joining) stands(standing, state string) (id string) {
	j.t.Helper()
	began := time.Now()
	commit := j.mergeAll("Deu is "+standing, j.spokeFiles("deu", handed+"      standing: "+standing+"\n"))
	j.hosts["deu"].Await(2*soon, "deu", "is Ready as "+standing, func(s *report.Status) bool {
		return s.Phase == report.Ready && s.Attempted == commit && component(j.t, s, "registration").Values["status"] == state
	})
	j.hosts["usa"].Await(2*soon, "usa", "has it "+standing, func(s *report.Status) bool {
		return s.Phase == report.Ready && len(s.Spokes) == 1 && s.Spokes[0].State == state
	})
	j.hosts["deu"].AwaitPhase(soon, "deu", report.Ready, commit) // still
	store := j.store()
	require.Equal(j.t, state, j.record(store, "DEU").Status)
	require.Equal(j.t, j.record(store, "DEU").SpokeID, j.shownID("deu"))
	j.t.Logf("standing: %s took %.1f s", standing, time.Since(began).Seconds())
	return j.shownID("deu")
}

// shownID is the spoke's id by its own status.
func (j *joining) shownID(spoke string) string {
	j.t.Helper()
	status, err := j.hosts[spoke].Status(spoke)
	require.NoError(j.t, err)
	id, _ := component(j.t, status, "registration").Values["spokeId"].(string)
	require.NotEmpty(j.t, id)
	return id
}
