package mongo_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

const (
	walkSteps = 20
	walkPass  = 15 * time.Second // for what one step leaves to do; whatever it is cut off in is resumed by the next
	forcedBy  = 1000             // a forced reconfiguration jumps by more versions than this
)

// TestShortWalk changes the manifest and breaks members at random. DIVE_SEED repeats one.
func TestShortWalk(t *testing.T) {
	t.Parallel()
	walkAtRandom(t, walkSteps)
}

// walk is a set with a client that follows its primary.
type walk struct {
	*set
	client *driver.Client
}

func walkAtRandom(t *testing.T, steps int) {
	t.Helper()
	seed := uint64(1)
	if text := os.Getenv("DIVE_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		seed = n
	}
	t.Logf("DIVE_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 5))
	services := append(slices.Clone(three), "mongodb-4")
	s := &walk{set: plainSet(t, three...).run(services...)}
	r := reconciler(t)
	s.settle(r)
	w := s.write()
	s.client = w.client
	var history []walkConfig
	for n := range steps {
		if random.IntN(2) == 0 {
			s.spec.Members = anyMembers(random)
			s.spec.Settings.HeartbeatIntervalMillis = 250 + 50*random.IntN(3)
			t.Logf("step %d: manifest %s", n, membersText(s.spec.Members))
			history = s.passes(r, history)
			continue
		}
		victim := services[random.IntN(len(services))]
		name, undo := s.anyFault(random, victim)
		t.Logf("step %d: %s %s", n, name, victim)
		history = s.passes(r, history)
		undo()
		if random.IntN(3) == 0 {
			s.settle(r)
			history = append(history, s.walkConfig())
		}
	}
	o := s.settle(r)
	history = append(history, s.walkConfig())
	require.Equal(t, membersText(s.spec.Members), history[len(history)-1].members, "the set equals the manifest")
	for i, now := range history[1:] {
		before := history[i]
		require.LessOrEqual(t, now.version-before.version, int64(forcedBy), "nothing was forced")
		require.NotZero(t, now.term)
		changed := 0
		for _, host := range services {
			if before.voters[host] != now.voters[host] {
				changed++
			}
		}
		require.LessOrEqual(t, int64(changed), now.version-before.version, "one vote for each version: %+v to %+v", before, now)
	}
	require.Empty(t, w.lost(primaryOf(t, o)))
}

// anyFault breaks a member; what it gives mends it.
func (s *set) anyFault(random *rand.Rand, service string) (name string, undo func()) {
	switch random.IntN(4) {
	case 0:
		s.lab.Kill(service)
		return "kill", func() { s.lab.Start(service) }
	case 1:
		s.lab.Stop(service)
		return "stop", func() { s.lab.Start(service) }
	case 2:
		s.lab.Pause(service)
		return "freeze", func() { s.lab.Unpause(service) }
	}
	s.lab.Disconnect(service)
	return "cut off", func() { s.lab.Connect(service) }
}

// passes does what there is to do within walkPass. A change that ended is followed by a look at the configuration.
func (s *walk) passes(r reconcilers.Reconciler, history []walkConfig) []walkConfig {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), walkPass)
	defer cancel()
	o, err := r.Observe(ctx, s.target)
	if err != nil || o.State == nil {
		s.t.Logf("  %v %v", err, o.Err)
		return history
	}
	plan, err := r.Plan(s.target, o)
	require.NoError(s.t, err)
	for _, c := range plan.Changes {
		require.False(s.t, c.Destroys, "%+v", c)
	}
	ended := func(c reconcilers.Change) {
		if now, err := s.tryConfig(); err == nil {
			history = append(history, now)
		}
	}
	if _, err = r.Apply(ctx, s.target, plan, &progress{t: s.t, ended: ended}); err != nil {
		s.t.Logf("  %v", err)
	}
	return history
}

// anyMembers are two or three members with data of which two may be primary, and perhaps an arbiter.
func anyMembers(random *rand.Rand) []mongo.Member {
	var list []mongo.Member
	for i, at := range random.Perm(3) {
		m := mongo.Member{Service: three[at], Port: 27017}
		if random.IntN(2) == 0 {
			m.Tags = map[string]string{"place": strconv.Itoa(random.IntN(3))}
		}
		switch kind := random.IntN(4); {
		case i < 2:
			priority := float64(1 + random.IntN(2))
			m.Priority = &priority
		case kind == 0:
			return list
		case kind == 1:
			m.Hidden = true
		case kind == 2:
			m.Hidden, m.Delay = true, desired.Duration(2*time.Second)
		}
		list = append(list, m)
	}
	if random.IntN(4) == 0 {
		list = append(list, mongo.Member{Service: "mongodb-4", Port: 27017, Arbiter: true})
	}
	return list
}

func membersText(members []mongo.Member) string {
	var lines []string
	for _, m := range members {
		priority := 1.0
		if m.Hidden || m.Arbiter || m.Delay > 0 {
			priority = 0
		}
		if m.Priority != nil {
			priority = *m.Priority
		}
		lines = append(lines, fmt.Sprintf("%s:27017 priority %v hidden %t arbiter %t delay %d tags %v",
			m.Service, priority, m.Hidden, m.Arbiter, int(time.Duration(m.Delay).Seconds()), m.Tags["place"]))
	}
	slices.Sort(lines)
	return fmt.Sprint(lines)
}

// walkConfig is what the random walk compares of a configuration.
type walkConfig struct {
	version, term int64
	voters        map[string]bool
	members       string
}

func (s *walk) walkConfig() (now walkConfig) {
	s.t.Helper()
	testbed.Eventually(s.t, 30*time.Second, "the primary's configuration", func() (err error) {
		now, err = s.tryConfig()
		return err
	})
	return now
}

// tryConfig reads the configuration of the member that is primary now.
func (s *walk) tryConfig() (walkConfig, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	var answer struct {
		Config struct {
			Version int64 `bson:"version"`
			Term    int64 `bson:"term"`
			Members []struct {
				Host     string            `bson:"host"`
				Votes    int               `bson:"votes"`
				Priority float64           `bson:"priority"`
				Hidden   bool              `bson:"hidden"`
				Arbiter  bool              `bson:"arbiterOnly"`
				Delay    int               `bson:"secondaryDelaySecs"`
				Tags     map[string]string `bson:"tags"`
			} `bson:"members"`
		} `bson:"config"`
	}
	if err := s.client.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetGetConfig", Value: 1}}).Decode(&answer); err != nil {
		return walkConfig{}, err
	}
	c := walkConfig{version: answer.Config.Version, term: answer.Config.Term, voters: map[string]bool{}}
	var lines []string
	for _, m := range answer.Config.Members {
		c.voters[m.Host[:len("mongodb-1")]] = m.Votes > 0
		lines = append(lines, fmt.Sprintf("%s priority %v hidden %t arbiter %t delay %d tags %v",
			m.Host, m.Priority, m.Hidden, m.Arbiter, m.Delay, m.Tags["place"]))
	}
	slices.Sort(lines)
	c.members = fmt.Sprint(lines)
	return c, nil
}
