package mongo_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/conformance"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

func TestOneMemberFromNothing(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").withContent()
	r := reconciler(t)

	o, err := r.Observe(t.Context(), s.target)
	require.NoError(t, err)
	var wait *reconcilers.WaitError
	require.ErrorAs(t, o.Err, &wait, "a service that is not there is waited for")
	plan, err := r.Plan(s.target, o)
	require.NoError(t, err)
	var lines []string
	for _, c := range plan.Changes {
		lines = append(lines, string(c.Action)+" "+c.Address+": "+c.Reason)
	}
	require.Equal(t, []string{
		"create replica set rs0: initiate with mongodb:27017",
		"create user app: with roles readWrite@dive",
		"create documents dive.coi_definitions: seed 22 documents into coi_definitions",
	}, lines, "the whole way is planned before anything runs")

	s.run("mongodb")
	o = s.settle(r)
	require.Equal(t, "rs0 PRIMARY", o.Facts.Summary)
	require.Equal(t, "6.0.5", o.Outputs["version"].Text())
	require.Equal(t, "mongodb:27017", o.Outputs["primary"].Text())
	require.True(t, o.Outputs["uri"].Secret())
	uri, err := url.Parse(o.Outputs["uri"].Text())
	require.NoError(t, err)
	password, _ := uri.User.Password()
	require.Equal(t, appPassword, password)
	require.Equal(t, "mongodb:27017", uri.Host)
	require.Equal(t, "replicaSet=rs0&authSource=admin", uri.RawQuery)
	require.Equal(t, o.Outputs["uri"].Text(), o.Outputs["uri_app"].Text())
	require.True(t, o.Outputs["uri_app"].Secret())
	require.Equal(t, "6.0", o.Outputs["featureCompatibilityVersion"].Text())
	require.Contains(t, s.picture("mongodb"), "22 documents")

	began := time.Now()
	for range 10 {
		o, plan, err := s.pass(r)
		require.NoError(t, err)
		require.Empty(t, plan.Changes)
		require.Equal(t, "PRIMARY", o.Facts.Members[0].State)
	}
	t.Logf("an observation with nothing to do takes %s", time.Since(began)/10)
}

func TestOnlyWhatIsMissingIsDone(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").withContent().run("mongodb")
	r := reconciler(t)
	s.settle(r)

	dive := s.admin("mongodb").Database("dive")
	_, err := dive.Collection("coi_definitions").DeleteOne(t.Context(), bson.D{{Key: "coiId", Value: "COI-03"}})
	require.NoError(t, err)
	_, err = dive.Collection("coi_definitions").UpdateOne(t.Context(), bson.D{{Key: "coiId", Value: "COI-04"}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "name", Value: "changed by hand"}}}})
	require.NoError(t, err)
	s.spec.Users[0].Password = desired.Literal("another-Secret-99")
	s.spec.Users[0].Roles = []string{"read@dive", "readWrite@dive"}
	s.spec.Settings.ElectionTimeoutMillis = 3000

	_, plan, err := s.pass(r)
	require.NoError(t, err)
	var addresses []string
	for _, c := range plan.Changes {
		addresses = append(addresses, c.Address+": "+c.Reason)
	}
	require.Equal(t, []string{
		"settings of rs0: electionTimeoutMillis 2000 -> 3000",
		"user app: password changed, roles readWrite@dive -> read@dive, readWrite@dive",
		"documents dive.coi_definitions: seed 1 of 22 documents into coi_definitions, the others are there",
	}, addresses)
	o := s.settle(r)
	require.Contains(t, o.Outputs["uri"].Text(), "another-Secret-99")
	var kept struct{ Name string }
	require.NoError(t, dive.Collection("coi_definitions").FindOne(t.Context(), bson.D{{Key: "coiId", Value: "COI-04"}}).Decode(&kept))
	require.Equal(t, "changed by hand", kept.Name, "what is there is never changed")
}

func TestWritablePrimarySoonAfterAccepting(t *testing.T) {
	others := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, others) }) // the last of the clean-up: a closed reconciler leaves nothing behind
	s := plainSet(t, "mongodb").run("mongodb")
	accepted := make(chan time.Time, 1)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for t.Context().Err() == nil {
			if c, err := s.lab.Find(t.Context(), "mongodb"); err == nil {
				if conn, err := net.Dial("tcp", c.Addr().String()+":27017"); err == nil {
					accepted <- time.Now()
					_ = conn.Close()
					return
				}
			}
			<-tick.C
		}
	}()
	s.settle(reconciler(t))
	took := time.Since(<-accepted)
	t.Logf("from accepting to a writable primary, outputs published: %s", took)
	require.Less(t, took, 30*time.Second, "what operators were promised; make bench has the bar")
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").run("mongodb")
	s.settle(reconciler(t))
	s.spec.Root.Password = desired.Literal("not-the-password")
	s.spec.Keyfile = desired.Literal(s.key)
	blocked := s.blocked(reconciler(t))
	require.Equal(t, "WrongPassword", blocked.Reason)
	require.Contains(t, blocked.Error(), "mongodb:27017 refuses the password of user admin")
	require.Contains(t, blocked.Do, "updateUser")
}

func TestWithoutReplSet(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb")
	s.lab.Run("mongodb", s.mongod(""))
	old := agedServices{s.lab}
	s.target.Services = old
	blocked := s.blocked(reconciler(t))
	require.Equal(t, "NoReplicaSet", blocked.Reason)
	require.Contains(t, blocked.Do, "--replSet rs0")
}

// agedServices are services whose containers run for an hour, so that nobody waits for the end of a first boot.
type agedServices struct{ reconcilers.Services }

func (a agedServices) Find(ctx context.Context, service string) (reconcilers.Container, error) {
	c, err := a.Services.Find(ctx, service)
	c.StartedAt = c.StartedAt.Add(-time.Hour)
	return c, err
}

func TestVolumeOfAnotherSet(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb")
	other := s.mongod("legacy")
	other.Volumes = map[string]string{"data": "/data/db"}
	s.spec.Name = "legacy"
	s.lab.Run("mongodb", other)
	s.settle(reconciler(t))

	s.target.Dir = t.TempDir()
	s.spec.Name = "rs0"
	ours := s.mongod("rs0")
	ours.Volumes = other.Volumes
	s.lab.Run("mongodb", ours)
	blocked := s.blocked(reconciler(t))
	require.Equal(t, "ForeignReplicaSet", blocked.Reason)
	require.Contains(t, blocked.Error(), "belongs to replica set legacy, not to rs0")

	s.spec.Root.Password = desired.Literal("not-the-password")
	blocked = s.blocked(reconciler(t))
	require.Equal(t, "ForeignReplicaSet", blocked.Reason, "also when the administrator's password is another one")
	require.Contains(t, blocked.Error(), "legacy")
}

func TestEmptiedVolumeIsNoNewSet(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").run("mongodb")
	s.settle(reconciler(t))
	s.run("mongodb") // an anonymous volume: the new container begins with nothing
	blocked := s.blocked(reconciler(t))
	require.Equal(t, "DataLost", blocked.Reason)
	require.Contains(t, blocked.Error(), "restore a backup")
	require.Equal(t, "no replica set", s.picture("mongodb"))
}

func TestFirstUserByKey(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb")
	s.spec.Keyfile = desired.Literal(s.key)
	service := s.mongod("rs0")
	service.Env = nil
	s.lab.Run("mongodb", service)
	r := reconciler(t)
	o := s.settle(r)
	require.Contains(t, o.Outputs["uri"].Text(), "authSource=admin")
	require.Contains(t, s.picture("mongodb"), "admin.admin")

	s.spec.Keyfile = desired.Literal("AnotherKeyAnotherKey")
	s.spec.Root.Password = desired.Literal("not-the-password")
	require.Equal(t, "WrongPassword", s.blocked(reconciler(t)).Reason)
}

func TestLocalhostIsRenamed(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").run("mongodb")
	s.spec.Members[0].Host = desired.Literal("localhost:27017")
	s.settle(reconciler(t))
	require.Contains(t, s.picture("mongodb"), "localhost:27017")
	s.spec.Members[0].Host = desired.Expr{}
	_, plan, err := s.pass(reconciler(t))
	require.NoError(t, err)
	require.Len(t, plan.Changes, 1)
	require.Equal(t, "renamed from localhost:27017", plan.Changes[0].Reason)
	require.NotContains(t, s.picture("mongodb"), "localhost")
}

func TestRestartedContainerIsFoundAgain(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").run("mongodb")
	r := reconciler(t)
	s.settle(r)
	s.lab.Stop("mongodb")
	o, err := r.Observe(t.Context(), s.target)
	require.NoError(t, err)
	var wait *reconcilers.WaitError
	require.ErrorAs(t, o.Err, &wait)
	require.Nil(t, o.State, "a known set is never planned from nothing")
	s.lab.Start("mongodb")
	s.settle(r)
}

// TestAConfigurationOnDiskIsNoNewSet: a server answers as a new one between accepting connections and reading its
// configuration. Here it never reads it.
func TestAConfigurationOnDiskIsNoNewSet(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").run("mongodb")
	r := reconciler(t)
	testbed.Eventually(t, time.Minute, "a new member", func() error {
		o, err := r.Observe(t.Context(), s.target)
		return errors.Join(err, o.Err)
	})
	internal := s.login("mongodb", options.Credential{AuthSource: "local", Username: "__system", Password: s.key})
	insert := bson.D{{Key: "insert", Value: "system.replset"}, {Key: "documents", Value: bson.A{bson.D{{Key: "_id", Value: "rs0"}}}}}
	require.NoError(t, internal.Database("local").RunCommand(t.Context(), insert).Err())
	o, err := r.Observe(t.Context(), s.target)
	require.NoError(t, err)
	require.ErrorContains(t, o.Err, "mongodb:27017 to read its configuration")
	require.Nil(t, o.State)
}

func TestCancelledWaitEndsAtOnce(t *testing.T) {
	s := plainSet(t, "mongodb")
	service := s.mongod("rs0")
	service.Command = []string{"sleep", "60"}
	s.lab.Run("mongodb", service)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := reconciler(t).Observe(ctx, s.target)
	require.True(t, errors.Is(err, context.DeadlineExceeded), "%v", err)
	require.Less(t, time.Since(began), 2*time.Second)
}

func TestConformanceOfOneMember(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Subject{World: func(t *testing.T) *conformance.World {
		s := plainSet(t, "mongodb").withContent().run("mongodb")
		return &conformance.World{
			Target:  s.target,
			New:     func(*testing.T) reconcilers.Reconciler { return mongo.New(deps()) },
			State:   func(t *testing.T) string { return s.picture("mongodb") },
			Secrets: []string{rootPassword, appPassword, s.key},
		}
	}})
}
