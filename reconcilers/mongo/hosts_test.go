package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

// site is one host of a set over several: a member of its own, an agent with a memory of its own, and a way to the
// members elsewhere that can be cut.
type site struct {
	*set
	all     *sites
	r       reconcilers.Reconciler
	service string // its member's, in the lab
	clock   *shiftedClock
	cut     atomic.Bool
}

type sites struct {
	t    *testing.T
	lab  *lab.Lab // where each host reaches its own member
	wide *lab.Lab // the network between the hosts
	list []*site
	of   map[string]*site // by the member's host name
}

// local is what one host's agent sees of services: only its own.
type local struct {
	*lab.Lab
	service string
}

func (l local) Find(ctx context.Context, service string) (reconcilers.Container, error) {
	if service != "mongodb" {
		return reconcilers.Container{}, &reconcilers.WaitError{For: "service " + service + " to run"}
	}
	return l.Lab.Find(ctx, l.service)
}

func (l local) Logs(ctx context.Context, _ string, since time.Time, lines int) (io.ReadCloser, error) {
	return l.Lab.Logs(ctx, l.service, since, lines)
}

// DialContext reaches members elsewhere by their names, as long as both sides are on the wide network.
func (s *site) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if other := s.all.of[name]; other != nil {
		if s.cut.Load() {
			return nil, errors.New("the way to other hosts is cut")
		}
		c, err := s.all.lab.Find(ctx, other.service)
		if err != nil {
			return nil, err
		}
		at, there := c.Addresses[s.all.wide.Network()]
		if !there || !at.IsValid() {
			return nil, fmt.Errorf("no way to %s", name)
		}
		address = net.JoinHostPort(at.String(), port)
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

func (s *site) name() string { return "mongo-" + s.target.Instance.Name + ".example" }
func (s *site) host() string { return s.name() + ":27017" }

// onSites makes hosts named by letters, none of which runs anything yet. All know all members.
func onSites(t *testing.T, letters ...string) *sites {
	t.Helper()
	all := &sites{t: t, lab: lab.New(t), wide: lab.New(t), of: map[string]*site{}}
	key := ""
	for _, letter := range letters {
		s := &site{all: all, service: "mongodb-" + letter, clock: &shiftedClock{}}
		s.set = plainSetIn(t, all.lab)
		if key == "" {
			key = s.key
		}
		s.key = key
		s.target.Instance = &desired.Instance{Name: "usa-" + letter, Host: "host-" + letter}
		s.target.Services = local{all.lab, s.service}
		s.restart()
		all.of[s.name()] = s
		all.list = append(all.list, s)
	}
	all.declare(letters...)
	return all
}

// restart gives the host another agent, with the memory of the one before.
func (s *site) restart() {
	if s.r != nil {
		require.NoError(s.t, s.r.(io.Closer).Close())
	}
	s.r = mongo.New(reconcilers.Deps{Clock: s.clock, Rand: deps().Rand, Dial: s.DialContext})
}

// declare puts the members of these hosts into the manifests of all.
func (all *sites) declare(letters ...string) {
	var members []mongo.Member
	for _, s := range all.list {
		for _, letter := range letters {
			if strings.HasSuffix(s.service, letter) {
				members = append(members, mongo.Member{Service: "mongodb", On: desired.Literal(s.target.Instance.Host), Host: desired.Literal(s.host())})
			}
		}
	}
	for _, s := range all.list {
		s.spec.Members = members
	}
}

// run starts the members of hosts, new ones or in place of those that run.
func (all *sites) run(list ...*site) {
	all.t.Helper()
	for _, s := range list {
		service := s.mongod("rs0")
		service.Volumes = map[string]string{"data-" + s.service: "/data/db"}
		all.lab.Run(s.service, service)
		all.lab.Attach(all.wide, s.service, s.name())
	}
}

// settle lets the agents of these hosts pass, all at once, until each finds the set as declared.
func (all *sites) settle(list ...*site) []reconcilers.Observed {
	all.t.Helper()
	seen := make([]reconcilers.Observed, len(list))
	testbed.Eventually(all.t, 2*time.Minute, "the set in its desired state on all hosts", func() error {
		errs := make([]error, len(list))
		done := make(chan struct{})
		for i, s := range list {
			go func() {
				defer func() { done <- struct{}{} }()
				var plan reconcilers.Plan
				if seen[i], plan, errs[i] = s.pass(s.r); errs[i] == nil && len(plan.Changes) > 0 {
					errs[i] = fmt.Errorf("%d changes were left to %s", len(plan.Changes), s.service)
				}
			}()
		}
		for range list {
			<-done
		}
		return errors.Join(errs...)
	})
	return seen
}

// waits is what the host's agent waits for.
func (s *site) waits() string {
	s.t.Helper()
	_, plan, err := s.pass(s.r)
	var wait *reconcilers.WaitError
	require.ErrorAs(s.t, err, &wait)
	require.Empty(s.t, plan.Changes)
	return wait.For
}

// Agents start in any order; one initiates, the one beside the primary goes on, and all come to tell the same.
func TestSetOverSeveralHosts(t *testing.T) {
	t.Parallel()
	all := onSites(t, "a", "b", "c")
	a, b, c := all.list[0], all.list[1], all.list[2]
	for _, s := range all.list {
		s.withContent()
	}
	all.declare("a", "b")
	all.run(b)
	testbed.Eventually(t, time.Minute, "b's agent waits for a's", func() error {
		if waits := b.waits(); waits != "mongo-usa-a.example:27017 on host-a to accept connections" {
			return errors.New(waits)
		}
		return nil
	})
	all.run(a)
	testbed.Eventually(t, time.Minute, "b's agent waits for a's", func() error {
		if waits := b.waits(); waits != "the agent on host-a to initiate rs0, beside mongo-usa-a.example:27017" {
			return errors.New(waits)
		}
		return nil
	})
	seen := all.settle(a, b)
	require.Equal(t, "rs0 PRIMARY, 2 members", seen[1].Facts.Summary)

	// Grown by a member on a third host, by the agent beside the primary; the others say whose matter it is.
	all.declare("a", "b", "c")
	all.run(c)
	testbed.Eventually(t, time.Minute, "c's agent waits for a's", func() error {
		want := "the agent on host-a, beside the primary mongo-usa-a.example:27017: create member mongo-usa-c.example:27017 (add to rs0, without a vote until it has caught up) and 1 more"
		if waits := c.waits(); waits != want {
			return errors.New(waits)
		}
		return nil
	})
	require.Contains(t, b.waits(), "the agent on host-a, beside the primary")
	seen = all.settle(a, b, c)
	for _, o := range seen {
		require.Equal(t, seen[0].Outputs, o.Outputs)
		require.Contains(t, o.Outputs["uri"].Text(), "@mongo-usa-a.example:27017,mongo-usa-b.example:27017,mongo-usa-c.example:27017/dive?")
		require.Equal(t, "rs0 PRIMARY, 3 members", o.Facts.Summary)
	}
	places := map[string]string{}
	for _, m := range seen[0].Facts.Members {
		places[m.Host] = m.On
	}
	require.Equal(t, map[string]string{a.host(): "", b.host(): "host-b", c.host(): "host-c"}, places)
}
