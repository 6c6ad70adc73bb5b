package mongo_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

// crossable is a set from which one member was removed, which runs on: whoever reaches it by mistake is told that the
// configuration does not include it.
type crossable struct {
	*set
	r       reconcilers.Reconciler
	clock   *shiftedClock
	primary string
	former  string
}

func newCrossable(t *testing.T, members ...string) *crossable {
	t.Helper()
	all := slices.Concat(members, []string{"mongodb-former"})
	s := plainSet(t, all...).run(all...)
	c := &crossable{set: s, clock: &shiftedClock{}, former: all[len(members)]}
	c.r = mongo.New(reconcilers.Deps{Clock: c.clock, Rand: deps().Rand})
	t.Cleanup(func() { require.NoError(t, c.r.(interface{ Close() error }).Close()) })
	s.settle(c.r)
	s.spec.Members = s.spec.Members[:len(members)]
	c.primary = primaryOf(t, s.settle(c.r))
	return c
}

// cross has a member take another one's name for the address of a third from now on, as if that one had the other's former
// address. Connections that are opened meanwhile end there. The result puts the name right again.
func (c *crossable) cross(from, name, at string) (right func()) {
	c.t.Helper()
	third, err := c.lab.Find(c.t.Context(), at)
	require.NoError(c.t, err)
	c.shell(from, fmt.Sprintf("cp /etc/hosts /tmp/hosts && echo %s %s >> /etc/hosts", third.Addr(), name))
	return func() { c.shell(from, "cat /tmp/hosts > /etc/hosts") }
}

func (c *crossable) shell(service, text string) {
	c.t.Helper()
	out, code, err := c.lab.Exec(c.t.Context(), service, []string{"sh", "-c", text}, nil, nil)
	require.NoError(c.t, err)
	require.Zero(c.t, code, string(out))
}

// sees gives a member's state and last heartbeat message as another one has them.
func (c *crossable) sees(from, of string) (words string, err error) {
	answer, err := c.tryCommand(from, bson.D{{Key: "replSetGetStatus", Value: 1}})
	if err != nil {
		return "", err
	}
	raw, err := bson.Marshal(answer)
	require.NoError(c.t, err)
	var st struct {
		Members []struct {
			Host    string `bson:"name"`
			State   string `bson:"stateStr"`
			Message string `bson:"lastHeartbeatMessage"`
		} `bson:"members"`
	}
	require.NoError(c.t, bson.Unmarshal(raw, &st))
	for _, m := range st.Members {
		if m.Host == of+":27017" {
			return m.State + " " + m.Message, nil
		}
	}
	return "", fmt.Errorf("%s does not know %s", from, of)
}

func (c *crossable) awaitSeen(from, of, words string) {
	c.t.Helper()
	testbed.Eventually(c.t, 30*time.Second, of+" as "+words+" for "+from, func() error {
		seen, err := c.sees(from, of)
		if err == nil && !strings.Contains(seen, words) {
			err = errors.New(seen)
		}
		return err
	})
}

// renewed looks on until a member's connections are made anew, which is planned, told of with the reason, and done once.
// The name is put right just before: a connection that is opened for another reason could end there too.
func (c *crossable) renewed(from, why string, right func()) {
	c.t.Helper()
	_, plan, err := c.pass(c.r)
	require.Empty(c.t, plan.Changes, "at once nothing is done: %v", err)
	c.clock.ahead += 16 * time.Second
	var o reconcilers.Observed
	testbed.Eventually(c.t, 20*time.Second, "a plan to connect anew", func() error {
		if o, err = c.r.Observe(c.t.Context(), c.target); err != nil {
			return err
		}
		if plan, err = c.r.Plan(c.target, o); err == nil && len(plan.Changes) == 0 {
			err = fmt.Errorf("no changes; %w", o.Err)
		}
		return err
	})
	require.Len(c.t, plan.Changes, 1)
	require.Equal(c.t, reconcilers.Change{
		Action: reconcilers.Run, Address: "connections of " + from + ":27017",
		Reason: "made anew: " + why + ", for longer than a heartbeat may take",
	}, plan.Changes[0])
	require.Contains(c.t, o.Facts.Notes, why+": a connection may end at another server, and "+from+":27017 is made to connect anew, once in 2 min")
	right()
	_, err = c.r.Apply(c.t.Context(), c.target, plan, &progress{t: c.t})
	var wait *reconcilers.WaitError
	require.True(c.t, err == nil || errors.As(err, &wait), "%v", err)
	again, err := c.r.Observe(c.t.Context(), c.target)
	require.NoError(c.t, err)
	plan, err = c.r.Plan(c.target, again)
	require.NoError(c.t, err)
	require.Empty(c.t, plan.Changes, "a second time at once")
}

// The primary's heartbeats to a member end at another server: at a former member, so that the primary says that it does not
// reach one that serves; then at another member, so that it says of one that is gone that it serves.
func TestPrimaryThatTalksToTheWrongMember(t *testing.T) {
	t.Parallel()
	c := newCrossable(t, three...)
	var others []string
	for _, name := range three {
		if name != c.primary {
			others = append(others, name)
		}
	}
	w := c.write()
	_, term := c.configVersion(c.primary)

	right := c.cross(c.primary, others[0], c.former)
	c.lab.Kill(others[0])
	c.lab.Start(others[0])
	c.awaitSeen(c.primary, others[0], "invalid or does not include us")
	c.accepting(others[0])
	c.awaitSeen(others[1], others[0], "SECONDARY")
	c.awaitSeen(c.primary, others[0], "invalid or does not include us")
	c.renewed(c.primary, fmt.Sprintf("%s:27017 serves, but the primary %s:27017 does not reach it", others[0], c.primary), right)
	c.awaitSeen(c.primary, others[0], "SECONDARY")
	require.NotContains(t, fmt.Sprint(c.settle(c.r).Facts.Notes), "anew")

	c.clock.ahead += 2 * time.Minute
	right = c.cross(c.primary, others[0], others[1])
	c.lab.Kill(others[0])
	c.awaitSeen(c.primary, others[0], "SECONDARY")
	c.renewed(c.primary, fmt.Sprintf("%s:27017 does not serve, but the primary %s:27017 says that it does", others[0], c.primary), right)
	c.awaitSeen(c.primary, others[0], "not reachable")
	c.lab.Start(others[0])
	require.NotContains(t, fmt.Sprint(c.settle(c.r).Facts.Notes), "anew")

	_, after := c.configVersion(c.primary)
	require.Equal(t, term, after, "no election")
	require.Empty(t, w.lost(c.primary))
}

// A secondary's heartbeats to the primary end at another server: it serves, and has nothing of what is written.
func TestMemberThatTalksToTheWrongPrimary(t *testing.T) {
	t.Parallel()
	c := newCrossable(t, three[:2]...)
	other := three[0]
	if other == c.primary {
		other = three[1]
	}
	right := c.cross(other, c.primary, c.former)
	c.lab.Kill(c.primary)
	c.awaitSeen(other, c.primary, "invalid or does not include us")
	c.lab.Start(c.primary)
	c.accepting(c.primary)
	c.awaitSeen(c.primary, c.primary, "PRIMARY")
	c.awaitSeen(other, c.primary, "invalid or does not include us")
	c.renewed(other, fmt.Sprintf("%s:27017 serves, but does not know the primary %s:27017", other, c.primary), right)
	c.awaitSeen(other, c.primary, "PRIMARY")
	require.NotContains(t, fmt.Sprint(c.settle(c.r).Facts.Notes), "anew")
}

// The only member that may become primary asks another server for the vote that it needs. The agent has it connect anew before
// it stands for election, when there has been no primary for longer than an election takes.
func TestVotesThatAreAskedOfTheWrongMember(t *testing.T) {
	t.Parallel()
	c := newCrossable(t, three[:2]...)
	none := 0.0
	c.spec.Members[1].Priority = &none
	require.Equal(t, three[0], primaryOf(t, c.settle(c.r)))
	right := c.cross(three[0], three[1], c.former)
	c.lab.Kill(three[1])
	c.awaitSeen(three[0], three[0], "SECONDARY")
	c.lab.Start(three[1])
	c.accepting(three[1])
	c.awaitSeen(three[0], three[1], "invalid or does not include us")
	err := c.soon(c.r)
	require.Error(t, err)
	c.awaitSeen(three[0], three[0], "SECONDARY")
	right()
	c.clock.ahead += 16 * time.Second
	began := time.Now()
	testbed.Eventually(t, 10*time.Second, "a primary", func() error {
		_, _, err := c.pass(c.r)
		return err
	})
	t.Logf("a primary %s after the names were right", time.Since(began))
	require.Equal(t, three[0], primaryOf(t, c.settle(c.r)))
}
