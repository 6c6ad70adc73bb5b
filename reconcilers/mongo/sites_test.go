package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

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

// write starts a writer that reaches the members where the wide network has them.
func (all *sites) write() *writer {
	var hosts []string
	for _, s := range all.list {
		hosts = append(hosts, s.host())
	}
	return all.list[0].writeTo(hosts, func(ctx context.Context, host string) (reconcilers.Container, error) {
		c, err := all.lab.Find(ctx, all.of[host].service)
		if at, there := c.Addresses[all.wide.Network()]; err == nil && there {
			c.Addresses = map[string]netip.Addr{"": at}
			return c, nil
		}
		return c, errors.Join(err, fmt.Errorf("%s is cut off", host))
	})
}

// primary is the host whose member takes writes, by the word of an agent.
func (all *sites) primary(o reconcilers.Observed) *site {
	return all.of[strings.TrimSuffix(o.Outputs["primary"].Text(), ":27017")]
}

func (s *site) term() int64 {
	return s.command(s.service, bson.D{{Key: "replSetGetStatus", Value: 1}})["term"].(int64)
}
