package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

// crashWalk is a replica set whose agent is killed again and again.
type crashWalk struct {
	*small
	host    *agenttest.Host
	wants   replicas
	commit  string
	sample  string
	disturb func()        // before each scene's end is waited for
	setID   bson.ObjectID // of the set that was made first: there is never a second one
	version int64         // of its configuration
	writer  *writer
	kills   int
}

// newCrashWalk makes the fleet; nothing is merged yet.
func newCrashWalk(t *testing.T, sample string) *crashWalk {
	w := &crashWalk{small: newSmall(t), sample: sample, wants: replicas{image: testbed.Image(t, testbed.Mongod605)}}
	w.host = agenttest.NewHost(t, w.Fleet, agenttest.HostOptions{Tags: []string{"failpoint"}})
	return w
}

// play brings a scene about with an agent that is killed before and after each recorded change, once at each place, and
// then holds what is to what the manifest says.
func (w *crashWalk) play(n int, sc scene) {
	w.t.Helper()
	w.host.Kill()
	if sc.change != nil {
		w.wants.members = slices.Clone(w.wants.members)
		sc.change(&w.wants)
		w.commit = w.Merge(sc.name, w.replicas(w.wants))
	}
	if sc.rotate != "" {
		setSecret(w.t, w.host, sc.rotate, fmt.Sprintf("rotated-Secret-%d", n))
	}
	points := agenttest.Failpoints{File: filepath.Join(w.host.Dir, fmt.Sprintf("failpoints-%d", n)), Sample: w.sample}
	began := time.Now()
	if w.host.Env = points.Env(); w.disturb != nil {
		w.host.Env = nil
		w.disturb()
	}
	kills := agenttest.UntilThrough(w.t, 3*time.Minute, func() <-chan struct{} {
		w.host.Launch()
		return w.host.Ended()
	}, func() error {
		s, err := w.host.Status("one")
		if err == nil && (s.Phase != report.Ready || s.Attempted != w.commit || s.Applied != w.commit) {
			err = fmt.Errorf("it is %s at %.7s: %s; why: %v", s.Phase, s.Attempted, s.News, s.Why)
		}
		return errors.Join(err, w.rotated(sc.rotate))
	})
	w.kills += kills
	w.t.Logf("%s: killed %d times, %.1f s; at %q", sc.name, kills, time.Since(began).Seconds(), points.Places(w.t))
	w.holds()
}

// secret is a value of the instance's.
func (w *crashWalk) secret(name string) string {
	w.t.Helper()
	value, err := os.ReadFile(filepath.Join(w.host.Dir, "state", "instances", "one", "secrets", ".store", "values", name))
	require.NoError(w.t, err)
	return string(value)
}

// rotated says what is lacking until the server took the secret's new value; no former one is kept then.
func (w *crashWalk) rotated(name string) error {
	user := map[string]string{"APP_PASSWORD": "app", "MONGO_PASSWORD": "admin"}[name]
	if user == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(w.host.Dir, "state", "instances", "one", "secrets", ".store", "former", name)); err == nil {
		return errors.New("the former value of " + name + " is kept")
	}
	return w.logsIn(user, name)
}

func (w *crashWalk) logsIn(user, secret string) error {
	c, err := w.client(user, secret, w.wants.members...)
	if err != nil {
		return err
	}
	defer func() { _ = c.Disconnect(context.Background()) }()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	return c.Database("dive").RunCommand(ctx, bson.D{{Key: "ping", Value: 1}}).Err()
}

// client connects as a user of the instance; directly where one host is named, else to the primary.
func (w *crashWalk) client(user, secret string, hosts ...string) (*mongo.Client, error) {
	dial := w.dialer()
	byName := dialerFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
		return dial(ctx, network, net.JoinHostPort(serviceOf(address), "27017"))
	})
	o := options.Client().SetDialer(byName).SetServerSelectionTimeout(soon).SetHeartbeatInterval(500 * time.Millisecond).
		SetWriteConcern(writeconcern.Majority()).
		SetAuth(options.Credential{Username: user, Password: w.secret(secret), AuthSource: "admin"})
	if len(hosts) == 1 && len(w.wants.members) > 1 {
		o.SetDirect(true)
	} else {
		o.SetReplicaSet("rs0")
	}
	var addresses []string
	for _, host := range hosts {
		addresses = append(addresses, host+":27017")
	}
	return mongo.Connect(o.SetHosts(addresses))
}

// begins lets a client write from now on; its password is never changed.
func (w *crashWalk) begins() {
	w.t.Helper()
	c, err := w.client("writer", "WRITER_PASSWORD", numbered(5)...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	w.writer = startWriter(w.t, c.Database("dive"))
}

// lostNothing ends the writer and looks for what was acknowledged.
func (w *crashWalk) lostNothing() {
	w.t.Helper()
	acknowledged, stall := w.writer.stop()
	c, err := w.client("admin", "MONGO_PASSWORD", w.wants.members...)
	require.NoError(w.t, err)
	defer func() { _ = c.Disconnect(context.Background()) }()
	var there []int64
	require.NoError(w.t, c.Database("dive").Collection("writes").Distinct(w.t.Context(), "_id", bson.D{}).Decode(&there))
	have := map[int64]bool{}
	for _, id := range there {
		have[id] = true
	}
	lost := slices.DeleteFunc(slices.Clone(acknowledged), func(id int64) bool { return have[id] })
	require.Empty(w.t, lost, "acknowledged writes were lost")
	require.NotEmpty(w.t, acknowledged)
	w.t.Logf("killed %d times; %d writes acknowledged, none lost; longest stall %s", w.kills, len(acknowledged), stall.Round(time.Millisecond))
}

// TestAReplicaSetWhoseAgentIsKilled at a few of the places of a set's life ends as if it had not been.
func TestAReplicaSetWhoseAgentIsKilled(t *testing.T) {
	t.Parallel()
	w := newCrashWalk(t, "5/1")
	for n, sc := range scenesNamed(t, "initiate one", "grow to three", "rename a host", "rotate a user's password") {
		w.play(n, sc)
		if n == 0 {
			w.begins()
		}
	}
	w.lostNothing()
	require.NotZero(t, w.kills)
}
