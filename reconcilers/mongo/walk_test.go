package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
)

const (
	walkSteps   = 8
	walkPass    = 8 * time.Second  // for what one step leaves to do; whatever it is cut off in is resumed by the next
	calmTime    = 90 * time.Second // for the set to be as the manifest says, faults mended
	primaryTime = 30 * time.Second // on a crowded machine, for a primary where a majority lives on; the election timeout is 2 or 3
	standsAgain = 60 * time.Second // a primary that was asked to step down does not stand sooner
	walkerName  = "walker"
	forcedBy    = 1000 // a forced reconfiguration jumps by more versions than this
)

// TestShortWalk changes the manifest and breaks members at random. DIVE_SEED repeats one.
func TestShortWalk(t *testing.T) {
	t.Parallel()
	walkAtRandom(t, walkSteps)
}

// walk is a set that is changed and broken at random, under a writer that follows its primary.
type walk struct {
	*set
	random   *rand.Rand // of the step: what one step draws does not depend on what came of those before
	services []string
	agent    reconcilers.Reconciler
	writer   *writer
	client   *driver.Client // the writer's, which may do everything

	root, app string            // the passwords that the manifest has now
	former    []desired.Value   // those that root had, newest first
	names     map[string]string // host names that members have instead of their service's
	arbiters  map[string]bool   // services whose volume is an arbiter's
	outages   []outage
	journals  []journal

	config  walkConfig // the last committed one that was seen
	calmed  bool       // nothing was changed or broken since the set was as the manifest says
	amid    func()     // breaks something after the next change of a pass; nil: nothing
	stepped time.Time  // when a change last made another member primary
	done    map[string]int
	told    bool          // what members said when something failed
	longest time.Duration // without a primary where a majority lived on
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
	s := newWalk(t)
	for n := range steps {
		s.random = rand.New(rand.NewPCG(seed, uint64(n)))
		s.mend(n)
		name, step := s.anyStep()
		t.Logf("step %d: %s", n, name)
		s.done[name]++
		step(n)
		if s.random.IntN(3) == 0 {
			s.calm()
		}
		if n%20 == 19 {
			s.nothingLost()
		}
	}
	s.calm()
	s.nothingLost()
	s.everywhere()
	s.checkJournals()
	t.Logf("steps: %v; longest without a primary where a majority lived on: %s", s.done, s.longest)
}

// newWalk founds a set of three with a writer.
func newWalk(t *testing.T) *walk {
	t.Helper()
	s := &walk{
		set: plainSet(t, three...), services: append(slices.Clone(three), "mongodb-4"), agent: mongo.New(deps()),
		root: rootPassword, app: appPassword, names: map[string]string{}, arbiters: map[string]bool{}, done: map[string]int{},
	}
	t.Cleanup(s.stopAgent)
	s.spec.Users = []mongo.User{
		{Name: "app", Roles: []string{"readWrite@dive"}},
		{Name: walkerName, Password: desired.Literal(appPassword), Roles: []string{"root"}},
	}
	var problems desired.Problems
	s.spec.Root.Password, problems = desired.ParseExpr("${ROOT}", desired.Position{})
	require.Empty(t, problems)
	s.spec.Users[0].Password, problems = desired.ParseExpr("${APP}", desired.Position{})
	require.Empty(t, problems)
	s.secrets()
	for _, service := range s.services {
		s.runMember(service)
	}
	t.Cleanup(func() { s.tellOfFailure(t.Failed()) })
	s.settle(s.agent)
	s.ended = s.afterChange
	s.writer = &writer{s: s.set, every: 100 * time.Millisecond}
	s.client = s.walker(s, three...)
	s.writer.client = s.client
	s.writer.start()
	s.calm()
	return s
}

// runMember starts a member with an empty volume, as its stack would now.
func (s *walk) runMember(service string) {
	s.t.Helper()
	member := s.mongod("rs0")
	member.Env = []string{"MONGO_INITDB_ROOT_USERNAME=admin", "MONGO_INITDB_ROOT_PASSWORD=" + s.root}
	s.lab.Run(service, member)
	s.journals = append(s.journals, journal{service: service, since: time.Now()})
}

// walker is a client for the set, or directly for the only service.
func (s *walk) walker(dialer options.ContextDialer, services ...string) *driver.Client {
	s.t.Helper()
	hosts := make([]string, len(services))
	for i, name := range services {
		hosts[i] = name + ":27017"
	}
	o := options.Client().SetHosts(hosts).SetDialer(dialer).SetWriteConcern(writeconcern.Majority()).
		SetServerSelectionTimeout(5 * time.Second).SetHeartbeatInterval(500 * time.Millisecond).
		SetConnectTimeout(5 * time.Second). // a primary that moved away is believed in no longer than this
		SetAuth(options.Credential{AuthSource: "admin", Username: walkerName, Password: appPassword})
	if len(services) == 1 {
		o.SetDirect(true)
	} else {
		o.SetReplicaSet("rs0")
	}
	client, err := driver.Connect(o)
	require.NoError(s.t, err)
	return client
}

func (s *walk) secrets() {
	s.target.Scope = desired.NewScope(map[string]desired.Value{"ROOT": desired.Secret(s.root), "APP": desired.Secret(s.app)}).
		WithFormer(map[string][]desired.Value{"ROOT": s.former})
}

func (s *walk) stopAgent() { require.NoError(s.t, s.agent.(io.Closer).Close()) }

// passes does what there is to do within walkPass, or, when the agent is to be killed amid it, a part of that.
func (s *walk) passes() {
	s.t.Helper()
	s.calmed = false
	limit, killed := walkPass, s.random.IntN(6) == 0
	if killed {
		limit = time.Duration(50+s.random.IntN(1500)) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	s.tell(s.onePass(ctx, s.agent))
	if killed {
		s.t.Logf("  the agent was killed after %s", limit)
		s.stopAgent()
		s.agent = mongo.New(deps())
	}
	s.look()
}

func (s *walk) onePass(ctx context.Context, r reconcilers.Reconciler) error {
	s.t.Helper()
	o, err := r.Observe(ctx, s.target)
	if err != nil {
		return err
	}
	plan, err := r.Plan(s.target, o)
	require.NoError(s.t, err)
	var blocked *reconcilers.BlockedError
	if errors.As(o.Err, &blocked) {
		require.Empty(s.t, plan.Changes, "%v", blocked)
	}
	if len(plan.Changes) == 0 {
		return o.Err
	}
	for _, c := range plan.Changes {
		require.False(s.t, c.Destroys, "%+v", c)
	}
	_, err = r.Apply(ctx, s.target, plan, &progress{t: s.t, ended: s.afterChange})
	return err
}

// tell judges what a pass ended with: it may wait, and it may be blocked while members are away. Nothing tells a secret.
func (s *walk) tell(err error) {
	s.t.Helper()
	if err == nil {
		return
	}
	s.t.Logf("  %v", err)
	for _, secret := range []string{s.root, s.app, s.key} {
		require.NotContains(s.t, err.Error(), secret)
	}
	var wait *reconcilers.WaitError
	var blocked *reconcilers.BlockedError
	if !errors.As(err, &wait) && errors.As(err, &blocked) { // what a wait has in it is what it would be otherwise
		require.Contains(s.t, []string{"LostMajority", "RemovedMember"}, blocked.Reason)
		require.NotEmpty(s.t, s.outages, "nothing is broken")
		s.done["blocked, "+blocked.Reason]++
	}
}

// afterChange looks at what a change left, and breaks what is to be broken amid a pass.
func (s *walk) afterChange(reconcilers.Change) {
	s.look()
	if s.amid != nil {
		s.amid()
		s.amid = nil
	}
}

// calm mends what is broken and waits until the set is as the manifest says.
func (s *walk) calm() {
	s.t.Helper()
	s.mend(-1)
	if s.calmed {
		return
	}
	began := time.Now()
	var now walkConfig
	s.eventually(calmTime, "the set as the manifest says, and committed", func() error {
		o, plan, err := s.pass(s.agent)
		if err == nil && len(plan.Changes) > 0 {
			err = fmt.Errorf("%d changes were left", len(plan.Changes))
		}
		if err == nil && !strings.Contains(o.Outputs["uri"].Text(), "app:") {
			err = errors.New("no uri of the user")
		}
		if err == nil {
			now, err = s.committed()
		}
		return err
	})
	s.follow(now)
	if took := time.Since(began); took > 20*time.Second {
		s.t.Logf("  calm after %s", took)
	}
	require.Equal(s.t, membersText(s.spec.Members), s.config.members, "the set equals the manifest")
	s.calmed = true
}

// mend ends the outages that last until a step, all of them for -1.
func (s *walk) mend(step int) {
	s.t.Helper()
	s.outages = slices.DeleteFunc(s.outages, func(o outage) bool {
		if step >= 0 && step < o.until {
			return false
		}
		o.undo()
		s.calmed = false
		return true
	})
}
