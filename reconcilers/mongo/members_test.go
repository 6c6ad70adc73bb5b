package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/conformance"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

var three = []string{"mongodb-1", "mongodb-2", "mongodb-3"}

// The longest of these tests comes first, so that the others run beside it.
func TestConformanceOfThreeMembers(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Subject{CrashPoints: 4, World: func(t *testing.T) *conformance.World {
		s := plainSet(t, three...).withContent().run(three...)
		return &conformance.World{
			Target:  s.target,
			New:     func(*testing.T) reconcilers.Reconciler { return mongo.New(deps()) },
			State:   func(t *testing.T) string { return s.picture(three[0]) },
			Secrets: []string{rootPassword, appPassword, s.key},
		}
	}})
}

func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[0]).withContent().run(three...)
	r := reconciler(t)
	o := s.settle(r)
	require.Equal(t, "rs0 PRIMARY", o.Facts.Summary)

	s.spec.Keyfile = desired.Literal(s.key)
	s.spec.Members = []mongo.Member{{Service: three[0]}, {Service: three[1]}, {Service: three[2]}}
	s.ended = func(c reconcilers.Change) {
		if host, added := strings.CutPrefix(c.Address, "member "); added && c.Action == reconcilers.Create {
			require.Contains(t, s.picture(three[0]), "{Host:"+host+" Votes:0 Priority:0 ", "it has no data yet, and would count for a majority")
		}
	}
	_, plan, err := s.pass(r)
	s.ended = nil
	require.NoError(t, err)
	var addresses []string
	for _, c := range plan.Changes {
		addresses = append(addresses, string(c.Action)+" "+c.Address)
	}
	require.Equal(t, []string{
		"create member mongodb-2:27017", "create member mongodb-3:27017",
		"update member mongodb-2:27017", "update member mongodb-3:27017",
	}, addresses, "one member at a time, both copying at once, each with its vote after it has caught up")
	o = s.settle(r)
	require.Equal(t, "rs0 PRIMARY, 3 members", o.Facts.Summary)
	require.Len(t, o.Facts.Members, 3)
	require.Contains(t, o.Outputs["uri"].Text(), "@mongodb-1:27017,mongodb-2:27017,mongodb-3:27017/dive?")

	// The primary's own place in the manifest goes: it steps down first, and another one carries on.
	s.spec.Members = []mongo.Member{{Service: three[1]}}
	o = s.settle(r)
	require.Equal(t, "mongodb-2:27017", o.Outputs["primary"].Text())
	require.Len(t, o.Facts.Members, 1)
	require.Contains(t, s.picture(three[1]), "22 documents")

	// A member that was removed comes back with its data, under an _id that was never used.
	s.spec.Members = []mongo.Member{{Service: three[1]}, {Service: three[2]}, {Service: three[0]}}
	s.settle(r)
	config := s.command(three[1], bson.D{{Key: "replSetGetConfig", Value: 1}})
	ids := map[any]bool{}
	for _, m := range config["config"].(bson.D) {
		if m.Key == "members" {
			for _, one := range m.Value.(bson.A) {
				ids[one.(bson.D)[0].Value] = true
			}
		}
	}
	require.Len(t, ids, 3)
	require.False(t, ids[int32(0)] || ids[int32(2)], "an _id was used twice: %v", ids)
}

// A member that was added right before a crash, and is then taken out of the manifest, is ours to remove, though nobody
// saw it in the set; and so is a primary under a name that is not its service's.
func TestRemovesWhatItAddedUnderAnyName(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[0]).run(three[:2]...)
	named := func(service string) mongo.Member {
		c, err := s.lab.Find(t.Context(), service)
		require.NoError(t, err)
		return mongo.Member{Service: service, Host: desired.Literal(strings.TrimPrefix(c.Name, "/") + ":27017")}
	}
	one, two := named(three[0]), named(three[1])
	s.spec.Members = []mongo.Member{one}
	r := reconciler(t)
	s.settle(r)

	s.spec.Members = []mongo.Member{one, two}
	ctx, cancel := context.WithCancel(t.Context())
	o, plan := s.looks(r)
	require.NoError(t, o.Err)
	_, err := r.Apply(ctx, s.target, plan, &progress{t: t, ended: func(reconcilers.Change) { cancel() }})
	require.ErrorIs(t, err, context.Canceled)
	s.spec.Members = []mongo.Member{one}
	r = reconciler(t)
	_, plan = s.looks(r)
	require.Len(t, plan.Changes, 1)
	require.Contains(t, plan.Changes[0].Reason, "no longer in the manifest")
	require.False(t, plan.Changes[0].Destroys)

	s.spec.Members = []mongo.Member{one, two}
	s.settle(r)
	s.spec.Members = []mongo.Member{two} // the primary goes
	o = s.settle(r)
	require.Equal(t, two.Host.Source(), o.Outputs["primary"].Text())
}

// A set that was made by hand is taken over: nothing is made anew, and members that no manifest ever named are not
// taken out without approval.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[0], three[1]).withContent().run(three[0], three[1])
	s.settle(reconciler(t))
	s.target.Dir = t.TempDir() // as if somebody else had made it
	r := reconciler(t)
	o, plan, err := s.pass(r)
	require.NoError(t, err)
	require.Empty(t, plan.Changes, "what is equal in substance is left as it is")
	require.Equal(t, "rs0 PRIMARY, 2 members", o.Facts.Summary)

	s.target.Dir = t.TempDir()
	s.spec.Members = s.spec.Members[:1]
	o, err = r.Observe(t.Context(), s.target)
	require.NoError(t, err)
	plan, err = r.Plan(s.target, o)
	require.NoError(t, err)
	require.Len(t, plan.Changes, 1)
	require.True(t, plan.Changes[0].Destroys)
	require.Contains(t, plan.Changes[0].Reason, "somebody else added it")
}

func TestOtherVersions(t *testing.T) {
	t.Parallel()
	for _, image := range []testbed.ImageName{testbed.Mongod442, testbed.Mongod504, testbed.Mongod6027} {
		t.Run(string(image), func(t *testing.T) {
			s := plainSet(t, three[:2]...).withContent()
			for _, name := range three[:2] {
				s.lab.Run(name, s.mongodOf(image))
			}
			r := reconciler(t)
			o := s.settle(r)
			require.Equal(t, "rs0 PRIMARY, 2 members", o.Facts.Summary)
			require.Contains(t, string(image), o.Outputs["version"].Text())
			s.spec.Members = s.spec.Members[1:] // the primary goes
			s.settle(r)
			require.Contains(t, s.picture(three[1]), "22 documents")
		})
	}
}

func TestThreeMembersFromNothing(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...)
	hidden := 0.0
	s.spec.Members[2].Hidden, s.spec.Members[2].Priority = true, &hidden
	s.run(three...)
	began := time.Now()
	o := s.settle(reconciler(t))
	t.Logf("three members from docker run: %s", time.Since(began))
	require.Equal(t, "rs0 PRIMARY, 3 members", o.Facts.Summary)
	require.NotContains(t, o.Outputs["uri"].Text(), "mongodb-3", "clients are not told of a hidden member")

	// One member away: the set goes on, and the status says who is missing.
	r := reconciler(t)
	s.lab.Stop(three[1])
	testbed.Eventually(t, 30*time.Second, "the lost member in the facts", func() error {
		o, _, err := s.pass(r)
		var wait *reconcilers.WaitError
		if !errors.As(err, &wait) || o.Facts.Summary != "rs0 PRIMARY, 2 of 3 members" {
			return fmt.Errorf("%s: %w", o.Facts.Summary, err)
		}
		require.Contains(t, wait.For, "mongodb-2:27017")
		require.NotEmpty(t, o.Outputs, "a set with a primary stays usable")
		return nil
	})

	// A majority away: no primary, and nothing is forced.
	s.lab.Stop(three[2])
	clock := &shiftedClock{}
	late := mongo.New(reconcilers.Deps{Clock: clock, Rand: deps().Rand})
	t.Cleanup(func() { _ = late.(interface{ Close() error }).Close() })
	testbed.Eventually(t, time.Minute, "the lost majority", func() error {
		_, _, err := s.pass(late)
		clock.ahead += time.Minute
		var blocked *reconcilers.BlockedError
		if !errors.As(err, &blocked) {
			return fmt.Errorf("not blocked: %w", err)
		}
		require.Equal(t, "LostMajority", blocked.Reason)
		require.Contains(t, blocked.Error(), "1 of the 2 votes")
		return nil
	})
	s.lab.Start(three[1])
	s.lab.Start(three[2])
	s.settle(r)
}

// shiftedClock is the machine's clock, put forward.
type shiftedClock struct {
	reconcilers.SystemClock
	ahead time.Duration
}

func (c *shiftedClock) Now() time.Time { return time.Now().Add(c.ahead) }

// A frozen member takes connections and answers nothing: observing must not wait for it, and it can be removed.
func TestFrozenMember(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).run(three...)
	r := reconciler(t)
	s.settle(r)
	s.lab.Pause(three[2])
	began := time.Now()
	o, err := r.Observe(t.Context(), s.target)
	require.NoError(t, err)
	require.NotEmpty(t, o.Outputs)
	require.Less(t, time.Since(began), 4*time.Second, "asking the frozen member alone would take 5 s")
	s.spec.Members = s.spec.Members[:2]
	o = s.settle(r)
	require.Equal(t, "rs0 PRIMARY, 2 members", o.Facts.Summary)
	s.lab.Unpause(three[2])
}

func TestMemberWithWrongKey(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[0]).run(three[0])
	r := reconciler(t)
	s.settle(r)
	stranger := s.mongod("rs0")
	stranger.Files = map[string]lab.File{"/etc/mongo-keyfile": {Content: "AnotherKeyOfAnotherSet", Mode: 0o400, Owner: 999}}
	s.lab.Run(three[1], stranger)
	s.spec.Members = append(s.spec.Members, mongo.Member{Service: three[1]})

	s.spec.Keyfile = desired.Literal(s.key)
	require.Equal(t, "WrongKeyfile", s.blocked(r).Reason)
	require.NotContains(t, s.picture(three[0]), three[1], "with the key in the manifest it is found before it is added")

	s.spec.Keyfile = desired.Expr{}
	blocked := s.blocked(r)
	require.Equal(t, "WrongKeyfile", blocked.Reason)
	require.Contains(t, blocked.Error(), "mongodb-2:27017")

	s.spec.Members = s.spec.Members[:1] // the way out
	o := s.settle(r)
	require.Equal(t, "rs0 PRIMARY", o.Facts.Summary)
}

func TestMemberOfAnotherSetIsRefused(t *testing.T) {
	t.Parallel()
	other := plainSet(t, three[1])
	other.spec.Name = "rs0"
	s := plainSet(t, three[0]).run(three[0])
	s.settle(reconciler(t))
	other.lab, other.key, other.target.Services = s.lab, s.key, s.lab
	other.run(three[1])
	other.settle(reconciler(t))

	s.spec.Members = append(s.spec.Members, mongo.Member{Service: three[1]})
	require.Equal(t, "TwoReplicaSets", s.blocked(reconciler(t)).Reason)
	require.NotContains(t, s.picture(three[0]), three[1])

	s.spec.Members[1] = mongo.Member{Service: three[0], Host: desired.Literal(three[0] + "-alias")}
	require.Equal(t, "AliasOfMember", s.blocked(reconciler(t)).Reason)
}

func TestWatchTellsOfANewPrimary(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[:2]...).run(three[:2]...)
	s.settle(reconciler(t))
	r := reconciler(t)
	ctx, cancel := context.WithCancel(t.Context())
	woken, ended := make(chan string, 64), make(chan error, 1)
	go func() {
		ended <- r.(reconcilers.Watcher).Watch(ctx, s.target, func(part string) { woken <- part })
	}()
	select {
	case part := <-woken: // the first word of a member is news
		require.Empty(t, part)
	case <-time.After(10 * time.Second):
		t.Fatal("the watch does not tell of what is")
	}
	s.lab.Stop(three[1])
	deadline := time.After(20 * time.Second)
	for told := false; !told; {
		select {
		case <-woken:
			o, _, _ := s.pass(r)
			told = o.Outputs == nil // one of two is no majority
		case <-deadline:
			t.Fatal("the watch does not tell of the lost primary")
		}
	}
	cancel()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(5 * time.Second):
		t.Fatal("the watch does not end with its context")
	}
}

// TestAMemberWithDataOfItsOwnIsNotWiped: it was a server of its own before; neither founding nor joining empties it.
func TestAMemberWithDataOfItsOwnIsNotWiped(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[0], three[1])
	volume := testbed.Prefix(t) + "-data"
	alone, member := s.mongod(""), s.mongod("rs0")
	alone.Volumes, member.Volumes = map[string]string{volume: "/data/db"}, map[string]string{volume: "/data/db"}
	s.lab.Run(three[1], alone)
	testbed.Eventually(t, time.Minute, "a document in a server of its own", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		shop := s.admin(three[1]).Database("shop", options.Database().SetWriteConcern(writeconcern.Journaled())) // it is killed right after
		_, err := shop.Collection("orders").InsertOne(ctx, bson.D{{Key: "_id", Value: 1}})
		return err
	})
	s.lab.Stop(three[1])
	s.lab.Remove(three[1])
	s.lab.Run(three[1], member)
	s.run(three[0])
	blocked := s.blocked(reconciler(t))
	require.Equal(t, "DataWouldBeLost", blocked.Reason)
	require.Contains(t, blocked.Message, "mongodb-2:27017 has 1 collections")

	// As a former member looks that was started and has not read its configuration yet.
	internal := s.login(three[1], options.Credential{AuthSource: "local", Username: "__system", Password: s.key})
	insert := bson.D{{Key: "insert", Value: "system.replset"}, {Key: "documents", Value: bson.A{bson.D{{Key: "_id", Value: "rs0"}}}}}
	require.NoError(t, internal.Database("local").RunCommand(t.Context(), insert).Err())
	testbed.Eventually(t, time.Minute, "a wait for it", func() error {
		_, _, err := s.pass(reconciler(t))
		var wait *reconcilers.WaitError
		if !errors.As(err, &wait) || wait.For != "mongodb-2:27017 to read its configuration" {
			return fmt.Errorf("not that wait: %w", err)
		}
		return nil
	})

	s.lab.Remove(three[1])
	s.lab.Run(three[1], alone)
	var order bson.M
	testbed.Eventually(t, time.Minute, "the document", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return s.admin(three[1]).Database("shop").Collection("orders").FindOne(ctx, bson.D{}).Decode(&order)
	})
}

// A member with data does not become an arbiter as it runs, nor an arbiter a member with data; with an empty volume each does.
func TestArbiterBeginsWithoutData(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[:2]...).run(three[:2]...)
	r := reconciler(t)
	s.settle(r)
	data, arbiter, without := s.spec.Members, []mongo.Member{{Service: three[0]}, {Service: three[1], Arbiter: true}}, s.spec.Members[:1]
	for _, wanted := range [][]mongo.Member{arbiter, data} {
		s.spec.Members = wanted
		require.Equal(t, "ArbiterInPlace", s.blocked(r).Reason)
		require.Contains(t, s.picture(three[0]), three[1], "it is not removed first")
		s.spec.Members = without
		s.settle(r)
		s.spec.Members = wanted
		require.Equal(t, "ArbiterInPlace", s.blocked(r).Reason, "it still is what it was")
		s.run(three[1])
		require.Equal(t, "rs0 PRIMARY, 2 members", s.settle(r).Facts.Summary)
		s.spec.Members = without
		s.settle(r)
		s.spec.Members = wanted
		require.Equal(t, "rs0 PRIMARY, 2 members", s.settle(r).Facts.Summary, "what it was before it may be again")
	}
}

// The server refuses to make a second member with data beside an arbiter voter and electable in one step.
func TestGrowsBesideAnArbiter(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[0]).run(three...)
	s.spec.Members = append(s.spec.Members, mongo.Member{Service: three[2], Arbiter: true})
	r := reconciler(t)
	s.settle(r)
	s.spec.Members = append(s.spec.Members, mongo.Member{Service: three[1]})
	require.Equal(t, []string{
		"create member mongodb-2:27017: add to rs0, without a vote until it has caught up",
		"update member mongodb-2:27017: when it is SECONDARY: votes 0 -> 1",
		"update member mongodb-2:27017: when it is SECONDARY: priority 0 -> 1",
	}, s.planned(r))
	require.Equal(t, "rs0 PRIMARY, 3 members", s.settle(r).Facts.Summary)
}
