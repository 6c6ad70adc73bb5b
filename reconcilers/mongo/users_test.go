package mongo_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
)

func text(s string) *string { return &s }

// planned gives what the next pass would do, and does nothing.
func (s *set) planned(r reconcilers.Reconciler) []string {
	s.t.Helper()
	o, err := r.Observe(s.t.Context(), s.target)
	require.NoError(s.t, err)
	require.NoError(s.t, o.Err)
	plan, err := r.Plan(s.target, o)
	require.NoError(s.t, err)
	var lines []string
	for _, c := range plan.Changes {
		lines = append(lines, string(c.Action)+" "+c.Address+": "+c.Reason)
	}
	return lines
}

// tryAs logs in anew and sends a command.
func (s *set) tryAs(c options.Credential, database string, command bson.D) error {
	s.t.Helper()
	at, err := s.lab.Find(s.t.Context(), "mongodb")
	require.NoError(s.t, err)
	return s.tryAt(at.Addr().String(), c, database, command)
}

func (s *set) tryAt(address string, c options.Credential, database string, command bson.D) error {
	s.t.Helper()
	client, err := driver.Connect(options.Client().SetHosts([]string{address + ":27017"}).SetDirect(true).
		SetServerSelectionTimeout(20 * time.Second).SetAuth(c))
	require.NoError(s.t, err)
	defer func() { _ = client.Disconnect(s.t.Context()) }()
	return client.Database(database).RunCommand(s.t.Context(), command).Err()
}

var (
	find   = bson.D{{Key: "find", Value: "coi_definitions"}}
	insert = bson.D{{Key: "insert", Value: "coi_definitions"}, {Key: "documents", Value: bson.A{bson.D{{Key: "a", Value: 1}}}}}
)

func app(password string) options.Credential {
	return options.Credential{AuthSource: "admin", Username: "app", Password: password}
}

func TestRolesAreKeptAsDeclared(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").withContent().run("mongodb")
	// The first inherits from the second: they are made the other way round.
	s.spec.Roles = []mongo.Role{
		{Name: "coiOperator", Roles: []string{"coiReader", "clusterMonitor"}, Privileges: []mongo.Privilege{
			{Resource: mongo.Resource{Cluster: true}, Actions: []string{"listDatabases"}},
		}},
		{Name: "coiReader", Privileges: []mongo.Privilege{
			{Resource: mongo.Resource{Database: text("dive"), Collection: "coi_definitions"}, Actions: []string{"find", "collStats"}},
		}},
	}
	s.spec.Users[0].Roles = []string{"coiOperator"}
	r := reconciler(t)
	s.settle(r)
	require.NoError(t, s.tryAs(app(appPassword), "dive", find))
	require.Error(t, s.tryAs(app(appPassword), "dive", insert))

	s.spec.Roles[0].Roles = []string{"clusterMonitor", "coiReader"}
	s.spec.Roles[1].Privileges = []mongo.Privilege{
		{Resource: mongo.Resource{Database: text("dive"), Collection: "coi_definitions"}, Actions: []string{"collStats"}},
		{Resource: mongo.Resource{Database: text("dive"), Collection: "coi_definitions"}, Actions: []string{"find", "find"}},
	}
	require.Empty(t, s.planned(r), "order and repetition are no difference")

	s.spec.Roles[1].Privileges[1].Actions = []string{"find", "insert"}
	s.spec.Roles[1].Privileges = append(s.spec.Roles[1].Privileges, mongo.Privilege{
		Resource: mongo.Resource{Database: text("")}, Actions: []string{"listCollections"},
	})
	s.spec.Roles[0].Roles = []string{"coiReader"}
	require.Equal(t, []string{
		"update role coiReader: on *.* none -> listCollections; on dive.coi_definitions collStats, find -> collStats, find, insert",
		"update role coiOperator: inherits clusterMonitor@admin, coiReader@admin -> coiReader@admin",
	}, s.planned(r))
	s.settle(r)
	require.NoError(t, s.tryAs(app(appPassword), "dive", insert), "the user was not touched, its role was")

	s.spec.Roles, s.spec.Users[0].Roles = nil, []string{"read@dive"}
	o := s.settle(r)
	require.Contains(t, o.Facts.Notes, "roles that are not in the manifest, left alone: coiOperator@admin, coiReader@admin")

	s.spec.Roles = []mongo.Role{{Name: "coiReader", Privileges: []mongo.Privilege{
		{Resource: mongo.Resource{Database: text("dive")}, Actions: []string{"fnd"}},
	}}}
	blocked := s.blocked(r)
	require.Equal(t, "RoleRefused", blocked.Reason)
	require.Contains(t, blocked.Error(), "the server does not take role coiReader@admin")
}

func TestBuiltInRolesAreThoseOfTheServer(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").run("mongodb")
	s.settle(reconciler(t))
	for _, database := range []string{"admin", "dive"} {
		var answer struct {
			Roles []struct {
				Name string `bson:"role"`
			} `bson:"roles"`
		}
		require.NoError(t, s.admin("mongodb").Database(database).RunCommand(t.Context(), bson.D{
			{Key: "rolesInfo", Value: 1}, {Key: "showBuiltinRoles", Value: true},
		}).Decode(&answer))
		require.GreaterOrEqual(t, len(answer.Roles), 6)
		for _, r := range answer.Roles {
			s.spec.Users = append(s.spec.Users, mongo.User{Name: database + r.Name, Password: desired.Literal(appPassword), Roles: []string{r.Name + "@" + database}})
		}
	}
	var faults []string
	s.spec.CheckGranted(func(text string) { faults = append(faults, text) })
	require.Empty(t, faults)
}

func TestUsersAreUpdatedInPlace(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").withContent().run("mongodb")
	r := reconciler(t)
	s.settle(r)
	info := func() (list []string, id bson.Binary) {
		var answer struct {
			Users []struct {
				ID         bson.Binary `bson:"userId"`
				Mechanisms []string    `bson:"mechanisms"`
			} `bson:"users"`
		}
		require.NoError(t, s.admin("mongodb").Database("admin").RunCommand(t.Context(), bson.D{{Key: "usersInfo", Value: "app"}}).Decode(&answer))
		require.Len(t, answer.Users, 1)
		return answer.Users[0].Mechanisms, answer.Users[0].ID
	}
	have, id := info()
	require.Equal(t, []string{"SCRAM-SHA-256"}, have)

	s.spec.Users[0].Mechanisms = []string{"SCRAM-SHA-1", "SCRAM-SHA-256"}
	require.Equal(t, []string{"update user app: mechanisms SCRAM-SHA-256 -> SCRAM-SHA-1, SCRAM-SHA-256"}, s.planned(r))
	s.settle(r)
	old := app(appPassword)
	old.AuthMechanism = "SCRAM-SHA-1"
	require.NoError(t, s.tryAs(old, "dive", find), "a new mechanism has the same password")
	s.spec.Users[0].Mechanisms = []string{"SCRAM-SHA-256"}
	s.settle(r)
	require.Error(t, s.tryAs(old, "dive", find))
	s.spec.Users[0].Mechanisms = nil
	require.Empty(t, s.planned(r), "what is not named stays as it is")

	s.command("mongodb", bson.D{{Key: "createUser", Value: "by-hand"}, {Key: "pwd", Value: "by-hand-Secret-1"}, {Key: "roles", Value: bson.A{}}})
	o := s.settle(r)
	require.Equal(t, []string{"users that are not in the manifest, left alone: by-hand@admin"}, o.Facts.Notes)
	require.Empty(t, s.planned(r), "a user that nobody declared is no drift")

	s.spec.Users[0].Password = desired.Literal("another-Secret-99")
	require.Equal(t, []string{"update user app: password changed"}, s.planned(r))
	s.settle(r)
	_, now := info()
	require.Equal(t, id, now, "it is the same user, never one made anew")
	require.NoError(t, s.tryAs(app("another-Secret-99"), "dive", find))
	require.Error(t, s.tryAs(app(appPassword), "dive", find))
}

// TestAPasswordThatNoLongerWorksIsFoundAndMended: at the start, and each hour.
func TestAPasswordThatNoLongerWorksIsFoundAndMended(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").withContent().run("mongodb")
	clock := &shiftedClock{}
	d := deps()
	d.Clock = clock
	start := func() reconcilers.Reconciler {
		r := mongo.New(d)
		t.Cleanup(func() { require.NoError(t, r.(interface{ Close() error }).Close()) })
		return r
	}
	r := start()
	s.settle(r)
	change := bson.D{{Key: "updateUser", Value: "app"}, {Key: "pwd", Value: "by-hand-Secret-1"}}
	const reason = "update user app: the server no longer takes its password"

	s.command("mongodb", change)
	require.Empty(t, s.planned(r), "it is not tried at each look")
	clock.ahead = 61 * time.Minute
	require.Equal(t, []string{reason}, s.planned(r))
	o, err := r.Observe(t.Context(), s.target)
	require.NoError(t, err)
	notes := userNotes(o)
	require.Len(t, notes, 1)
	require.Regexp(t, `^user app@admin: the server refused its password, found at .* UTC \(it worked at .* UTC\); it is to be set anew$`, notes[0])
	require.NotContains(t, o.Outputs, "uri", "a login that is refused is given to nobody")

	r = start() // a crash before it is mended
	require.Equal(t, []string{reason}, s.planned(r))
	s.settle(r)
	require.NoError(t, s.tryAs(app(appPassword), "dive", find))

	s.command("mongodb", change)
	r = start()
	require.Equal(t, []string{reason}, s.planned(r))
	o = s.settle(r)
	notes = userNotes(o)
	require.Len(t, notes, 1)
	require.Regexp(t, `^user app@admin: the server refused its password, found at .* UTC; it was set anew at .* UTC$`, notes[0])
	clock.ahead += 25 * time.Hour
	require.Empty(t, userNotes(s.settle(r)))
}

// userNotes are the notes on users; the test's clock is told of beside them.
func userNotes(o reconcilers.Observed) []string {
	return slices.DeleteFunc(slices.Clone(o.Facts.Notes), func(note string) bool { return !strings.HasPrefix(note, "user ") })
}
