package verify_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/desired"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

// federation is a contract hub with its records in a real MongoDB, and two instances in a fleet with it.
type federation struct {
	*world
	mongod *hubtest.Mongo
	hub    *hubtest.Server
}

func newFederation(t *testing.T) *federation {
	w := newWorld(t)
	f := &federation{world: w, mongod: hubtest.StartMongo(t, true)}
	f.hub = hubtest.Start(t, f.mongod.Database(t), hub.Config{Code: "USA", OwnCode: "USA"})
	fleet := &desired.Fleet{Name: "test", Hub: desired.HubSpec{Instance: "usa", URL: f.hub.URL, CA: string(f.hub.CA.PEM())}, Instances: map[string]*desired.Instance{}}
	for name, role := range map[string]string{"usa": desired.RoleHub, "deu": desired.RoleSpoke, "fra": desired.RoleSpoke} {
		fleet.Instances[name] = &desired.Instance{Name: name, Role: role, Components: w.target.Instance.Components}
	}
	w.target.Fleet = fleet
	return f
}

// as makes the checks those of an instance, whose own database has the given name.
func (f *federation) as(name, database string) {
	f.target.Instance = f.target.Fleet.Instances[name]
	f.target.Scope = desired.NewScope(map[string]desired.Value{"FEDERATION_ADMIN_KEY": desired.Secret(hubtest.AdminKey)}).
		WithObject("database", map[string]desired.Value{"uri": desired.Secret("mongodb://" + f.mongod.Address + "/" + database + "?directConnection=true")})
}

// spoke puts a record into the hub's database.
func (f *federation) spoke(code, status string, approved, heartbeat time.Time) {
	f.t.Helper()
	record := &hub.Record{
		ObjectID: bson.NewObjectID(), SpokeID: "spoke-" + code, InstanceCode: code, Status: status, RegisteredAt: time.Now(), HeartbeatIntervalMs: 30000,
	}
	if old, err := f.hub.Store.Spoke(f.t.Context(), record.SpokeID); err == nil {
		record.ObjectID = old.ObjectID
	}
	if !approved.IsZero() {
		record.ApprovedAt = &approved
	}
	if !heartbeat.IsZero() {
		record.LastHeartbeat = &heartbeat
	}
	require.NoError(f.t, f.hub.Store.Save(f.t.Context(), record))
}

func (f *federation) link(database, source, trusted string) {
	f.t.Helper()
	db := f.mongod.Database(f.t).Client().Database(database)
	require.NoError(f.t, hub.LinkIn(f.t.Context(), db.Collection(hub.Matrix), source, trusted))
}

// TestFederationOfASpoke: links in both directions in its own database, approved at the hub, heartbeat not missing.
func TestFederationOfASpoke(t *testing.T) {
	t.Parallel()
	f := newFederation(t)
	f.as("deu", "spoke")
	f.checks("within: 0s\nchecks: [{name: usa, federation: {both: usa}}]\n")
	r := f.reconciler()
	seen := func() string { saw, _ := f.saw(r); return saw["usa"] }
	require.Equal(t, "false DEU is not registered at the hub; no link DEU -> USA, USA -> DEU", seen())
	f.spoke("DEU", hub.Pending, time.Time{}, time.Time{})
	require.Equal(t, "false DEU is pending at the hub, expected approved; no link DEU -> USA, USA -> DEU", seen())
	f.link("spoke", "DEU", "USA")
	now := time.Now()
	f.spoke("DEU", hub.Approved, now, time.Time{})
	require.Equal(t, "false no link USA -> DEU", seen(), "the first heartbeat has its time")
	f.link("spoke", "USA", "DEU")
	require.Equal(t, "true 1 partner, links in both directions, heartbeats under 1m0s", seen())
	f.spoke("DEU", hub.Approved, now.Add(-2*time.Minute), time.Time{})
	require.Contains(t, seen(), "false DEU sent no heartbeat since its approval at ")
	f.spoke("DEU", hub.Approved, now.Add(-time.Hour), now.Add(-2*time.Minute))
	require.Contains(t, seen(), "false the last heartbeat of DEU was at ")
	f.spoke("DEU", hub.Approved, now.Add(-time.Hour), now)
	facts := f.facts(r)["usa"]
	require.True(t, facts.Passed, facts.Saw)
	require.Equal(t, map[string]int64{"partners": 1, "links": 2, "linksMissing": 0}, facts.Counts)
	f.spoke("DEU", hub.Suspended, now, now)
	require.Equal(t, "false DEU is suspended at the hub, expected approved", seen())

	f.hub.Stop()
	require.Contains(t, seen(), "connection refused")
}

// TestFederationOfAHub: of all spokes those count that it has approved, each with the time of its heartbeat; its own record never does.
func TestFederationOfAHub(t *testing.T) {
	t.Parallel()
	f := newFederation(t)
	database := f.mongod.Database(t).Name()
	f.as("usa", database)
	f.checks(`
within: 0s
checks:
  - {name: spokes, federation: {both: spokes, adminKey: "${FEDERATION_ADMIN_KEY}"}}
  - {name: key, severity: warn, federation: {both: spokes, adminKey: "not ${FEDERATION_ADMIN_KEY}"}}
  - {name: fra, severity: warn, federation: {both: fra, adminKey: "${FEDERATION_ADMIN_KEY}"}}
`)
	r := f.reconciler()
	facts := f.facts(r)
	require.True(t, facts["spokes"].Passed, facts["spokes"].Saw)
	require.Equal(t, map[string]int64{"partners": 0, "links": 0, "linksMissing": 0, "notApproved": 2}, facts["spokes"].Counts)
	require.Contains(t, facts["key"].Saw, "the hub refuses the admin key (401)")
	require.NotContains(t, facts["key"].Saw, hubtest.AdminKey)
	require.Equal(t, "FRA is not registered at the hub; no link USA -> FRA, FRA -> USA", facts["fra"].Saw)

	now := time.Now()
	f.spoke("DEU", hub.Approved, now, now.Add(-20*time.Second))
	f.link(database, "USA", "DEU")
	f.link(database, "DEU", "USA")
	f.spoke("FRA", hub.Approved, now.Add(-time.Hour), now.Add(-70*time.Second)) // healthy to the hub, and too old
	f.link(database, "USA", "FRA")
	facts = f.facts(r)
	require.Equal(t, fmt.Sprintf("the last heartbeat of FRA was at %s, more than 1m0s ago; no link FRA -> USA",
		now.Add(-70*time.Second).UTC().Format("2006-01-02 15:04:05 UTC")), facts["spokes"].Saw)
	require.Equal(t, map[string]int64{"partners": 2, "links": 3, "linksMissing": 1, "notApproved": 0}, facts["spokes"].Counts)
	require.WithinDuration(t, now.Add(-70*time.Second), facts["spokes"].Dates["oldestHeartbeat"], 2*time.Second)
	require.Equal(t, facts["spokes"].Saw, facts["fra"].Saw)
}
