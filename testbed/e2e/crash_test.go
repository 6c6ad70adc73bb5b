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

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/replicaset"
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
	writer  *replicaset.Writer
	kills   int
}

// newCrashWalk makes the fleet; nothing is merged yet.
func newCrashWalk(t *testing.T, sample string) *crashWalk {
	w := &crashWalk{small: newSmall(t), sample: sample, wants: replicas{image: testbed.Image(t, testbed.Mongod605), users: true}}
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

// rotated says what is lacking until the server took the secret's new value; no former one is kept then.
func (w *crashWalk) rotated(name string) error {
	user := map[string]string{"APP_PASSWORD": "app", "MONGO_PASSWORD": "admin"}[name]
	if user == "" {
		return nil
	}
	if _, err := os.Stat(formerOf(w.host, name)); err == nil {
		return errors.New("the former value of " + name + " is kept")
	}
	return w.logsIn(user, name)
}

func (w *crashWalk) logsIn(user, secret string) error {
	return ping(w.t.Context(), 10*time.Second, w.options(user, secret, w.wants.members...))
}

// options are those of a client for a user of the instance: of one member where one host is named, else of the primary.
func (w *crashWalk) options(user, secret string, hosts ...string) *options.ClientOptions {
	w.t.Helper()
	o := w.set(user, secretOf(w.t, w.host, secret)).Options(hosts...).SetDialer(w)
	if len(hosts) == 1 && len(w.wants.members) > 1 {
		o.SetDirect(true)
	}
	return o
}

// DialContext reaches a member by any of its names.
func (w *crashWalk) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return w.set("", "").DialContext(ctx, network, net.JoinHostPort(serviceOf(address), "27017"))
}

func (w *crashWalk) client(user, secret string, hosts ...string) *mongo.Client {
	w.t.Helper()
	c, err := mongo.Connect(w.options(user, secret, hosts...))
	require.NoError(w.t, err)
	return c
}

// begins lets a client write from now on; its password is never changed.
func (w *crashWalk) begins() {
	w.t.Helper()
	w.writer = replicaset.StartWriter(w.t.Context(), open(w.t, w.options("writer", "WRITER_PASSWORD", numbered(5)...)))
}

// lostNothing ends the writer and looks for what was acknowledged.
func (w *crashWalk) lostNothing() {
	w.t.Helper()
	lostNothing(w.t, w.writer, open(w.t, w.options("admin", "MONGO_PASSWORD", w.wants.members...)))
}

// goThrough brings scenes about one after the other, under a writer as soon as there is a set.
func (w *crashWalk) goThrough(scenes []scene) {
	w.t.Helper()
	for n, sc := range scenes {
		w.play(n, sc)
		if n == 0 {
			w.begins()
		}
	}
	w.lostNothing()
	w.t.Logf("killed %d times", w.kills)
}

// TestAReplicaSetWhoseAgentIsKilled at a few of the places of a set's life ends as if it had not been.
func TestAReplicaSetWhoseAgentIsKilled(t *testing.T) {
	t.Parallel()
	w := newCrashWalk(t, "5/1")
	w.goThrough(scenesNamed(t, "initiate one", "grow to three", "rename a host", "rotate a user's password"))
	require.NotZero(t, w.kills)
}
