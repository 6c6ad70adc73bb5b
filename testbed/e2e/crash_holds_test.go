package e2e

import (
	"context"
	"sort"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/testbed"
)

// forcedBy is less than a forced reconfiguration adds to a configuration's version, and more than all others together.
const forcedBy = 1000

// liveSet is what the servers say of the set.
type liveSet struct {
	Config struct {
		Name    string `bson:"_id"`
		Version int64  `bson:"version"`
		Term    int64  `bson:"term"`
		Members []struct {
			Host     string  `bson:"host"`
			Votes    int     `bson:"votes"`
			Priority float64 `bson:"priority"`
			New      bool    `bson:"newlyAdded"`
		} `bson:"members"`
		Settings struct {
			ID bson.ObjectID `bson:"replicaSetId"`
		} `bson:"settings"`
	} `bson:"config"`
	Committed bool `bson:"commitmentStatus"`
}

// holds compares what the servers say with the manifest: members with a vote each, one primary, users, versions; and with
// what was before: the same set, and no configuration was forced.
func (w *crashWalk) holds() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), soon)
	defer cancel()
	c := w.client("admin", "MONGO_PASSWORD", w.wants.members...)
	defer func() { _ = c.Disconnect(context.Background()) }()
	var live liveSet
	testbed.Eventually(w.t, soon, "the configuration is committed", func() error { // a new primary hears from the others first
		live = liveSet{}
		err := c.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetGetConfig", Value: 1}, {Key: "commitmentStatus", Value: true}}).Decode(&live)
		if err == nil && !live.Committed {
			err = errNotYet
		}
		return err
	})
	var hosts, want []string
	for _, m := range live.Config.Members {
		hosts = append(hosts, m.Host)
		require.Equal(w.t, 1, m.Votes, m.Host)
		require.Equal(w.t, 1.0, m.Priority, m.Host)
		require.False(w.t, m.New, m.Host)
	}
	for _, host := range w.wants.members {
		want = append(want, host+":27017")
	}
	sort.Strings(hosts)
	sort.Strings(want)
	require.Equal(w.t, want, hosts)
	require.NotZero(w.t, live.Config.Term, "a forced configuration has none")
	if w.setID.IsZero() {
		w.setID = live.Config.Settings.ID
	}
	require.Equal(w.t, w.setID, live.Config.Settings.ID, "another set")
	require.GreaterOrEqual(w.t, live.Config.Version, w.version)
	require.Less(w.t, live.Config.Version-w.version, int64(forcedBy))
	w.version = live.Config.Version

	require.Len(w.t, w.running(), len(w.wants.members))
	primaries := 0
	for _, host := range w.wants.members {
		primaries += w.serves(ctx, host)
	}
	require.Equal(w.t, 1, primaries)
	for user, secret := range map[string]string{"app": "APP_PASSWORD", "writer": "WRITER_PASSWORD", "admin": "MONGO_PASSWORD"} {
		require.NoError(w.t, w.logsIn(user, secret), user)
	}
}

// serves holds a member to the manifest's version and gives 1 when it is the primary.
func (w *crashWalk) serves(ctx context.Context, host string) (primaries int) {
	w.t.Helper()
	c := w.client("admin", "MONGO_PASSWORD", host)
	defer func() { _ = c.Disconnect(context.Background()) }()
	var build struct{ Version string }
	require.NoError(w.t, c.Database("admin").RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&build))
	_, version, _ := strings.Cut(w.wants.image, ":")
	require.Equal(w.t, version, build.Version, host)
	var hello struct {
		Primary   bool `bson:"isWritablePrimary"`
		Secondary bool `bson:"secondary"`
	}
	testbed.Eventually(w.t, 10*time.Second, host+" serves", func() error {
		err := c.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
		if err == nil && !hello.Primary && !hello.Secondary {
			err = errNotYet
		}
		return err
	})
	if hello.Primary {
		return 1
	}
	return 0
}
